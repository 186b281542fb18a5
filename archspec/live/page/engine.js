// What the page asks for. Here a server answers, at addresses below that of the page, which has the token.

async function request(address, options) {
  const answer = await fetch(address, options);
  if (!answer.ok && answer.status !== 412) throw new Error((await answer.text()).trim());
  return answer;
}

const post = async (action, text, query) =>
  (await request(`${action}?${new URLSearchParams(query)}`, { method: "POST", headers: { "Content-Type": "application/yaml" }, body: text })).json();

export const canSave = true;
export const specs = async () => (await request("specs")).json();
export const schema = async () => (await request("schema.json")).json();
export const check = (text, name, panel, depth) => post("check", text, { name, panel, depth });
export const layer = (text, name, depth, row) => post("layer", text, { name, depth, row });
export const code = (text, name, target) => post("code", text, { name, target });

/** The text of a spec with its version; null if the file still has `version`. */
export async function read(name, version = "") {
  const answer = await request(`spec?${new URLSearchParams({ name, version })}`);
  if (answer.status === 204) return null;
  const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(await answer.arrayBuffer());
  return { text, version: answer.headers.get("Version") };
}

/** Write a spec; the new version, or null if the file is no longer the one of `version`. */
export async function save(name, text, version) {
  const options = { method: "PUT", headers: { "Content-Type": "application/yaml" }, body: text };
  const answer = await request(`spec?${new URLSearchParams({ name, version })}`, options);
  return answer.status === 412 ? null : answer.headers.get("Version");
}
