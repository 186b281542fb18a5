// The live page: sends the text at every change, and shows what comes back. Texts are never taken for HTML.

import { explained, makeEditor } from "./editor.js";
import * as engine from "./engine.js";
import { highlighted } from "./python.js";

const FOLLOW = 1000; // ms between two looks at the file
const $ = (id) => document.getElementById(id);

let name = "";
let version = ""; // of the file that was read or written last
let saved = ""; // the text of that version
const schema = engine.schema();
let network = null; // the content of the last text without errors
let shown = { text: "", depth: 0 }; // of that content
let busy = false;
let changed = 0; // when the text changed that is not shown yet; 0 if it is
let panel = "layers";
const open = new Set(); // rows whose arithmetic is shown

const editor = makeEditor($("editor"), {
  onChange: () => {
    update();
    showState();
  },
  onSave: () => save(),
  words: async () => ({ schema: await schema, layers: network?.names ?? [], blocks: network?.blocks ?? [] }),
});

/** Make an element with text or elements in it. */
function make(tag, attributes = {}, ...content) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) element.setAttribute(key, value);
  element.append(...content);
  return element;
}

// --- the content -----------------------------------------------------------------------------------------------------

/** Show the content anew. */
function update() {
  changed ||= performance.now();
  refresh();
}

async function refresh() {
  if (busy || !name) return;
  busy = true;
  while (changed) {
    const start = changed;
    const [text, of, wanted, depth] = [editor.text(), name, panel, Number($("depth").value || 0)];
    changed = 0;
    try {
      const content = await engine.check(text, of, wanted, depth);
      if (of !== name) continue;
      if (text === editor.text()) editor.show(content.diagnostics);
      if (content.network) shown = { text, depth };
      show(content);
      $("time").textContent = `${(performance.now() - start).toFixed(0)} ms`;
    } catch (error) {
      $("state").textContent = String(error.message ?? error);
      $("network").classList.add("stale");
    }
  }
  busy = false;
  showCode();
}

function show({ diagnostics, network: found }) {
  $("problems").replaceChildren(...diagnostics.map(problem));
  $("network").classList.toggle("stale", !found);
  if (!found) return;
  network = found;
  document.title = `${found.name} - archspec`;
  $("name").textContent = found.name;
  $("source").textContent = found.source;
  $("sums").replaceChildren(...found.sums.map(([count, what]) => make("li", {}, make("b", {}, count), ` ${what}`)));
  $("unfold").hidden = !found.depth;
  const depths = $("depth");
  const chosen = depths.value || "0";
  if (depths.options.length !== found.depth + 1) {
    depths.replaceChildren(...Array.from({ length: found.depth + 1 }, (_, i) => make("option", { value: i }, `${i}`)));
    depths.value = Math.min(Number(chosen), found.depth);
  }
  if (found.layers) $("layers").replaceChildren(table(found.layers, true));
  if (found.drawing !== undefined) $("drawing").replaceChildren(drawing(found.drawing));
  if (found.claims) $("claims").replaceChildren(found.claims.rows.length ? table(found.claims) : "The spec makes no claims.");
  if (found.counts) $("counts").replaceChildren(...found.counts.flatMap((one) => [make("h2", {}, one.title), table(one)]));
}

function problem(d) {
  const place = make("button", { type: "button" }, `${d.line}:${d.column}`);
  place.addEventListener("click", () => editor.goTo(d.line, d.column));
  return make("li", { class: d.severity }, place, " ", make("b", {}, d.severity), " ", explained(d));
}

function drawing(text) {
  if (!text) return "The network is too large to be drawn.";
  return document.adoptNode(new DOMParser().parseFromString(text, "image/svg+xml").documentElement);
}

function table(data, unfolds = false) {
  const right = new Set(data.right);
  const of = (i, text) => (right.has(i) ? "n" : text.length > 40 ? "w" : undefined);
  const head = make("tr", {}, ...data.heads.map((text, i) => make("th", { scope: "col", class: right.has(i) ? "n" : undefined }, text)));
  const body = make("tbody");
  data.rows.forEach((words, row) => {
    const cells = words.map((word, i) => make("td", { class: of(i, word) }, word));
    const line = make("tr", { class: data.states[row] }, ...cells);
    body.append(line);
    if (unfolds) cells[0].replaceChildren(unfolding(words[0], row, line));
  });
  return make("table", {}, make("thead", {}, head), body);
}

/** A button that shows the arithmetic of a row below it, and the row's line in the editor. */
function unfolding(word, row, line) {
  const isOpen = open.has(word);
  const button = make("button", { type: "button", "aria-expanded": isOpen }, word);
  const showArithmetic = async (jump) => {
    const found = await engine.layer(shown.text, name, shown.depth, row);
    if (!open.has(word) || line.nextSibling?.className === "arithmetic") return;
    line.after(make("tr", { class: "arithmetic" }, make("td", { colspan: line.children.length }, ...arithmetic(found))));
    if (jump && found.line) editor.goTo(found.line, 1, false);
  };
  button.addEventListener("click", () => {
    const opens = !open.delete(word);
    if (opens) open.add(word);
    button.setAttribute("aria-expanded", opens);
    if (opens) showArithmetic(true).catch(failed);
    else if (line.nextSibling?.className === "arithmetic") line.nextSibling.remove();
  });
  if (isOpen) showArithmetic(false).catch(failed);
  return button;
}

function arithmetic({ layers, more }) {
  const of = ({ name: layer, op, attributes, formulas }) => {
    const terms = formulas.flatMap(([subject, names, numbers, value]) => [
      make("dt", {}, subject),
      make("dd", {}, ...(/\W/.test(names) ? [names, make("br"), `= ${numbers} = ${value}`] : [names ? `${names} = ${value}` : value])),
    ]);
    return [make("b", {}, layer), ` ${op} ${attributes}`, make("dl", {}, ...terms)];
  };
  const note = make("p", { class: "soft" }, "a // b is a / b rounded down.", more ? ` ${more} more layers: unfold the table.` : "");
  return [...layers.flatMap(of), note];
}

// --- code ------------------------------------------------------------------------------------------------------------

let shownCode = null;

async function showCode() {
  if (!["torch", "keras"].includes(panel) || !name) return;
  const [target, text] = [panel, editor.text()];
  const key = [target, name, text].join("\0");
  if (key === shownCode) return;
  shownCode = key;
  try {
    const found = await engine.code(text, name, target);
    if (key !== shownCode) return;
    const files = Object.entries(found.files).flatMap(([path, source]) => [make("h2", {}, path), highlighted(source)]);
    if (files.length) $(target).replaceChildren(...files);
    else if (!$(target).querySelector("pre")) $(target).replaceChildren(...found.diagnostics.map((d) => make("p", {}, explained(d))));
  } catch (error) {
    failed(error);
  }
}

function select(id) {
  panel = id;
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const chosen = tab.dataset.panel === id;
    tab.setAttribute("aria-selected", chosen);
    tab.setAttribute("tabindex", chosen ? 0 : -1);
    $(tab.dataset.panel).hidden = !chosen;
  }
  update();
}

// --- the file --------------------------------------------------------------------------------------------------------

const isDirty = () => editor.text() !== saved;

function failed(error) {
  $("state").textContent = String(error.message ?? error);
}

function showState() {
  const dirty = isDirty();
  $("save").disabled = !dirty || !engine.canSave;
  $("state").textContent = dirty ? (engine.canSave ? "not saved" : "") : "saved";
}

async function load(other) {
  const found = await engine.read(other);
  [name, version, saved] = [other, found.version, found.text];
  open.clear();
  location.hash = other;
  $("conflict").hidden = true;
  editor.open(found.text);
  showState();
  update();
}

async function save() {
  if (!engine.canSave || !name) return;
  const text = editor.text();
  try {
    const written = await engine.save(name, text, version);
    if (!written) {
      $("conflict").hidden = false;
      return;
    }
    [version, saved] = [written, text];
    showState();
  } catch (error) {
    failed(error);
  }
}

/** Follow the file where another program changes it. */
async function follow() {
  if (!name || document.hidden || !$("conflict").hidden) return;
  const of = name;
  const found = await engine.read(of, version).catch(() => null);
  if (!found || of !== name || found.version === version) return;
  if (isDirty() && found.text !== editor.text()) {
    $("conflict").hidden = false;
    return;
  }
  [version, saved] = [found.version, found.text];
  editor.follow(found.text);
  showState();
}

$("save").addEventListener("click", () => save());
$("load").addEventListener("click", () => load(name).catch(failed));
$("keep").addEventListener("click", async () => {
  const found = await engine.read(name);
  [version, saved] = [found.version, found.text];
  $("conflict").hidden = true;
  showState();
});
$("depth").addEventListener("change", () => {
  open.clear();
  update();
});
$("spec").addEventListener("change", (event) => {
  if (isDirty() && engine.canSave && !confirm("Leave the changes that are not saved?")) event.target.value = name;
  else load(event.target.value).catch(failed);
});
$("tabs").addEventListener("click", (event) => event.target.dataset.panel && select(event.target.dataset.panel));
$("tabs").addEventListener("keydown", (event) => {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step || !tabs.includes(event.target)) return;
  const next = tabs.at((tabs.indexOf(event.target) + step) % tabs.length);
  next.focus();
  select(next.dataset.panel);
});
window.addEventListener("beforeunload", (event) => isDirty() && engine.canSave && event.preventDefault());
document.addEventListener("visibilitychange", () => follow());

async function start() {
  select(panel);
  const names = await engine.specs();
  $("spec").replaceChildren(...names.map((one) => make("option", { value: one }, one)));
  const wanted = decodeURIComponent(location.hash.slice(1));
  const first = names.includes(wanted) ? wanted : names[0];
  if (!first) return failed("There are no specs.");
  $("spec").value = first;
  await load(first);
  if (engine.canSave) setInterval(follow, FOLLOW);
}

start().catch(failed);
