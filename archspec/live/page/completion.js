// Completion of YAML from a JSON Schema: where the cursor is, then what the schema allows there.

/**
 * Where the end of `text` is: `frames` are the mappings and sequences around it, the outermost first, each with its
 * `key` (null where a key is being typed) and the scalars of its earlier `keys`; `word` is the unfinished word.
 */
export function place(text) {
  const frames = [];
  let word = "";
  const top = () => frames.at(-1);
  const popTo = (keep) => { while (frames.length && !keep(top())) frames.pop(); };
  const lines = text.split("\n");
  for (let number = 0; number < lines.length; number++) {
    const line = lines[number];
    const last = number === lines.length - 1;
    let at = 0;
    if (!top()?.flow) {
      at = line.length - line.trimStart().length;
      if (!last && (at === line.length || line[at] === "#")) continue;
      if (last && line[at] === "#") return null;
      for (word = ""; line[at] === "-" && (at + 1 === line.length || line[at + 1] === " "); ) {
        const column = at;
        popTo((f) => f.indent < column || (f.indent === column && (f.type === "seq" || f.key !== null)));
        if (top()?.type === "map" && top().indent === column && top().key === null) frames.pop();
        if (!(top()?.type === "seq" && top().indent === column)) frames.push({ type: "seq", indent: column, keys: {}, key: null });
        at += 1;
        while (line[at] === " ") at += 1;
      }
      const column = at;
      popTo((f) => f.indent < column || (f.type === "map" && f.indent === column));
      const key = /^("[^"]*"|'[^']*'|[^\s{}[\],"'#][^:#]*?):(?= |$)/.exec(line.slice(at));
      const holds = top()?.type === "map" && top().indent === column;
      const isValue = top() && !holds && top().type === "map" && top().key === null;
      if (key || (last && !isValue && !/^[{["']/.test(line.slice(at)))) {
        if (!holds) frames.push({ type: "map", indent: column, keys: {}, key: null });
        top().key = key ? key[1].replace(/^(["'])(.*)\1$/, "$2") : null;
        if (!key) word = line.slice(at);
        at = key ? at + key[0].length : line.length;
        if (key && last && at === line.length && !line.endsWith(" ")) return null; // just behind the colon
      }
    }
    word = scan(frames, line, at, word, last);
    if (word === null && last) return null; // in a comment or in quotes
    const frame = top();
    if (!frame?.flow && frame?.type === "map" && frame.key !== null && !last && word) frame.keys[frame.key] = word;
    word = last ? word : "";
  }
  return { frames, word };
}

/** Read a line from `at`: open and close flow collections; return the unfinished word, or null in a comment. */
function scan(frames, line, at, word, last) {
  const top = () => frames.at(-1);
  for (; at < line.length; at++) {
    const c = line[at];
    const flow = top()?.flow;
    if (c === "#" && (at === 0 || line[at - 1] === " ")) return last ? null : word.trim();
    if ((c === '"' || c === "'") && !word.trim()) {
      const end = line.indexOf(c, at + 1);
      if (end < 0) return null;
      word = line.slice(at + 1, end);
      at = end;
    } else if ((c === "{" || c === "[") && !word.trim()) {
      frames.push({ type: c === "{" ? "map" : "seq", flow: true, keys: {}, key: null, indent: 1e9 });
      word = "";
    } else if (flow && (c === "}" || c === "]")) {
      frames.pop();
      word = "";
    } else if (flow && c === ",") {
      if (top().type === "map" && top().key !== null) top().keys[top().key] = word.trim();
      if (top().type === "map") top().key = null;
      word = "";
    } else if (flow && c === ":" && top().type === "map" && top().key === null && (at + 1 === line.length || line[at + 1] === " ")) {
      top().key = word.trim();
      word = "";
    } else {
      word += c;
    }
  }
  return word.trimStart();
}

/** The schemas that hold for a value: references, choices and conditions of `schema` are followed. */
function expand(schema, root, keys, found = []) {
  if (!schema || typeof schema !== "object" || found.includes(schema)) return found;
  found.push(schema);
  if (schema.$ref) expand(root.$defs[schema.$ref.replace("#/$defs/", "")], root, keys, found);
  for (const part of [...(schema.anyOf ?? []), ...(schema.oneOf ?? []), ...(schema.allOf ?? [])]) expand(part, root, keys, found);
  const conditions = Object.entries(schema.if?.properties ?? {});
  if (conditions.length && conditions.every(([key, value]) => keys[key] === value.const)) expand(schema.then, root, keys, found);
  return found;
}

function inside(schemas, frame) {
  if (frame.type === "seq") return schemas.map((s) => s.items).filter(Boolean);
  const own = schemas.map((s) => s.properties?.[frame.key]).filter(Boolean);
  const any = schemas.map((s) => s.additionalProperties).filter((s) => s && typeof s === "object");
  return own.length ? own : any;
}

/** The schemas of what is at a place: of the mapping whose key is typed, or of the value. */
function schemasAt(root, frames) {
  let schemas = [root];
  for (const frame of frames) {
    schemas = schemas.flatMap((s) => expand(s, root, frame.keys));
    if (frame.type === "map" && frame.key === null) return schemas;
    schemas = inside(schemas, frame);
  }
  return schemas.flatMap((s) => expand(s, root, {}));
}

/**
 * The options at the end of `text`: label, what is inserted, and the schema's description.
 * `layers` are the names that `from` may have, `blocks` the ops that the spec defines.
 */
export function options(root, text, layers = [], blocks = []) {
  const here = place(text);
  if (!here) return null;
  const { frames, word } = here;
  const frame = frames.at(-1) ?? { type: "map", key: null, keys: {} };
  const schemas = schemasAt(root, frames);
  const found = new Map();
  const add = (label, apply, info, type) => { if (!found.has(label)) found.set(label, { label, apply, info, type }); };
  if (frame.type === "map" && frame.key === null) {
    for (const schema of schemas) {
      for (const [key, value] of Object.entries(schema.properties ?? {})) {
        const [first] = expand(value, root, {}).filter((s) => s.description);
        if (!(key in frame.keys)) add(key, `${key}: `, first?.description, "property");
      }
      for (const key of schema.required ?? []) if (!(key in frame.keys)) add(key, `${key}: `, undefined, "property");
    }
  } else {
    const names = [...frames].reverse().find((f) => f.type === "map")?.key;
    for (const schema of schemas) {
      (schema.enum ?? []).forEach((value, i) => add(String(value), String(value), schema.enumDescriptions?.[i], "enum"));
      if (schema.const !== undefined) add(String(schema.const), String(schema.const), schema.description, "enum");
      if ([schema.type].flat().includes("boolean")) ["true", "false"].forEach((value) => add(value, value, undefined, "keyword"));
      for (const [key, value] of Object.entries(schema.required?.length === 1 ? schema.properties ?? {} : {})) {
        add(`{${key}: }`, `{${key}: `, expand(value, root, {}).find((s) => s.description)?.description, "property");
      }
    }
    if (names === "op") blocks.forEach((name) => add(name, name, "a block of this spec", "class"));
    if (names === "from") layers.forEach((name) => add(name, name, undefined, "variable"));
  }
  return { word, options: [...found.values()] };
}
