// Writes archspec/live/page/codemirror.min.js and its licences.
import { readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const page = new URL("../../archspec/live/page/", import.meta.url);
const { dependencies } = JSON.parse(readFileSync("package.json", "utf8"));
const names = Object.keys(dependencies).map((name) => `${name} ${dependencies[name]}`);
await build({
  entryPoints: ["entry.js"],
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "none",
  banner: { js: `/* MIT, see codemirror.LICENSE: ${names.join(", ")} */` },
  outfile: new URL("codemirror.min.js", page).pathname,
});
const licences = new Map();
for (const name of Object.keys(dependencies)) {
  const text = readFileSync(`node_modules/${name}/LICENSE`, "utf8").trim();
  licences.set(text, [...(licences.get(text) ?? []), name]);
}
const parts = [...licences].map(([text, packages]) => `${packages.join(", ")}:\n\n${text}\n`);
writeFileSync(new URL("codemirror.LICENSE", page), parts.join(`\n${"-".repeat(80)}\n\n`));
