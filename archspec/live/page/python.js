// Python code with its comments, strings, numbers and keywords in elements of their own.

const KEYWORDS = "and as assert async await break class continue def del elif else except finally for from global if import in is lambda None nonlocal not or pass raise return True False try while with yield";
const TOKEN = new RegExp(
  String.raw`(?<c>#[^\n]*)|(?<s>[rbfu]{0,2}(?:"""[\s\S]*?"""|'''[\s\S]*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))|(?<k>\b(?:${KEYWORDS.replaceAll(" ", "|")})\b)|(?<n>\b\d[\d_.]*(?:e[-+]?\d+)?\b)`,
  "g",
);

export function highlighted(text) {
  const pre = document.createElement("pre");
  let end = 0;
  for (const match of text.matchAll(TOKEN)) {
    const [kind] = Object.entries(match.groups).find(([, value]) => value !== undefined);
    const span = document.createElement("span");
    span.className = kind;
    span.textContent = match[0];
    pre.append(text.slice(end, match.index), span);
    end = match.index + match[0].length;
  }
  pre.append(text.slice(end));
  return pre;
}
