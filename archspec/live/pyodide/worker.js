// Python in a worker: archspec as it is, in Pyodide.

import { loadPyodide } from "./pyodide/pyodide.mjs";

async function start() {
  const python = await loadPyodide({ indexURL: new URL("pyodide/", import.meta.url).href });
  for (const [name, format] of [["pyodide/packages.zip", "zip"], ["pyodide/pydantic_core.whl", "wheel"]]) {
    const answer = await fetch(new URL(name, import.meta.url));
    if (!answer.ok) throw new Error(`cannot load ${name}`);
    python.unpackArchive(await answer.arrayBuffer(), format, { extractDir: "/packages" });
  }
  return python.runPython(`
import json, sys
sys.path.insert(0, "/packages")
from archspec.live import content
lambda name, values: json.dumps(getattr(content, name)(*json.loads(values)))
`);
}

const ready = start();
ready.then(
  () => postMessage("ready"),
  (error) => postMessage({ failed: String(error) }),
);

onmessage = async ({ data: [name, values] }) => {
  try {
    postMessage({ result: (await ready)(name, JSON.stringify(values)) });
  } catch (error) {
    postMessage({ failed: String(error).trim().split("\n").at(-1) });
  }
};
