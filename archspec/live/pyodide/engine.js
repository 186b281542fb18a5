// What the page asks for, as engine.js of the server. Here Python in a worker answers; for a text that is still that of
// its file, a file that was written with the page. So Python is loaded at the first edit.

const LIMIT = 20_000; // ms of one request, without the start

export const canSave = false;
let worker = null;
let starting = null;
const originals = new Map();
const contents = new Map();

const json = async (path) => {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`cannot load ${path}`);
  return answer.json();
};

function start() {
  worker = new Worker("worker.js", { type: "module" });
  starting = new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => (data === "ready" ? resolve() : reject(new Error(data.failed)));
    worker.onerror = (event) => reject(new Error(event.message ?? "Python could not be started"));
  });
  return starting;
}

let last = Promise.resolve();

/** Ask Python, one request after the other; one that takes too long ends the worker. */
function ask(name, ...values) {
  const run = async () => {
    document.getElementById("state").textContent = starting ? "" : "starting Python";
    await (starting ?? start());
    document.getElementById("state").textContent = "";
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => {
        worker.terminate();
        starting = null;
        reject(new Error(`it took more than ${LIMIT / 1000} s`));
      }, LIMIT);
      worker.onmessage = ({ data }) => {
        clearTimeout(late);
        if (data.failed) reject(new Error(data.failed));
        else resolve(JSON.parse(data.result));
      };
      worker.postMessage([name, values]);
    });
  };
  last = last.catch(() => {}).then(run);
  return last;
}

/** The content that was written with the page; null for a text that is another. */
async function written(text, name) {
  if (originals.get(name) !== text) return null;
  if (!contents.has(name)) contents.set(name, json(`content/${name}.json`));
  return contents.get(name);
}

export const specs = () => json("specs.json");
export const schema = () => json("schema.json");
export const layer = (text, name, depth, row) => ask("layer", text, name, depth, row);
export const code = async (text, name, target) => (await written(text, name))?.code[target] ?? ask("code", text, name, target);

export async function check(text, name, panel, depth) {
  const found = depth === 0 && (await written(text, name));
  return found ? (found.panels[panel] ?? found.panels.layers) : ask("check", text, name, panel, depth);
}

export async function read(name, version = "") {
  if (version) return null;
  const text = await (await fetch(`specs/${name}`)).text();
  originals.set(name, text);
  return { text, version: "1" };
}

export const save = async () => null;
