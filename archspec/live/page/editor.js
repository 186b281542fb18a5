// The editor: CodeMirror with completion and diagnostics.

import {
  EditorState, EditorView, HighlightStyle, autocompletion, bracketMatching, closeBrackets, closeBracketsKeymap,
  completionKeymap, defaultKeymap, drawSelection, highlightActiveLine, highlightSpecialChars, history, historyKeymap,
  indentUnit, indentWithTab, keymap, lineNumbers, lintGutter, lintKeymap, setDiagnostics, syntaxHighlighting, tags, yaml,
} from "./codemirror.min.js";
import { options } from "./completion.js";

const theme = EditorView.theme({
  "&": { height: "100%", color: "var(--ink)", backgroundColor: "var(--paper)", fontSize: "13px" },
  ".cm-content": { fontFamily: "var(--mono)", caretColor: "var(--ink)" },
  ".cm-cursor": { borderLeftColor: "var(--ink)" },
  ".cm-gutters": { backgroundColor: "var(--paper)", color: "var(--soft)", borderRight: "1px solid var(--line)" },
  ".cm-activeLine, .cm-activeLineGutter": { backgroundColor: "var(--band)" },
  "&.cm-focused .cm-selectionBackground, .cm-selectionBackground": { backgroundColor: "#3392ff44 !important" },
  ".cm-tooltip": { backgroundColor: "var(--paper)", color: "var(--ink)", border: "1px solid var(--line)" },
  ".cm-tooltip-autocomplete ul li[aria-selected]": { backgroundColor: "var(--focus)", color: "var(--paper)" },
  ".cm-completionInfo": { whiteSpace: "pre-wrap", maxWidth: "28rem" },
  ".cm-diagnostic a": { color: "var(--focus)", marginLeft: ".6em" },
});

const colors = HighlightStyle.define([
  { tag: [tags.propertyName, tags.definition(tags.propertyName)], color: "var(--key)" },
  { tag: tags.string, color: "var(--string)" },
  { tag: [tags.number, tags.bool], color: "var(--number)" },
  { tag: tags.comment, color: "var(--soft)", fontStyle: "italic" },
]);

/**
 * Put an editor in `host`. `onChange` is called for every change, `onSave` for Ctrl-S; `words` returns a
 * promise of the schema and the names of layers and blocks for completion.
 */
export function makeEditor(host, { onChange, onSave, words }) {
  const shadow = host.attachShadow({ mode: "open" }); // here CodeMirror's styles need no exception from the page's policy
  const complete = async (context) => {
    const before = context.state.sliceDoc(0, context.pos);
    const { schema, layers, blocks } = await words();
    const found = options(schema, before, layers, blocks);
    if (!found || (!context.explicit && !found.word && !/[\s{,]$/.test(before))) return null;
    return { from: context.pos - found.word.length, options: found.options, validFor: /^[\w{]*$/ };
  };
  const stateOf = (text) =>
    EditorState.create({
      doc: text,
      extensions: [
        lineNumbers(), highlightSpecialChars(), history(), drawSelection(), highlightActiveLine(), bracketMatching(),
        closeBrackets(), indentUnit.of("  "), yaml(), syntaxHighlighting(colors), lintGutter(), theme,
        autocompletion({ override: [complete] }),
        EditorState.lineSeparator.of(text.includes("\r\n") ? "\r\n" : "\n"),
        EditorView.contentAttributes.of({ "aria-label": "Spec, YAML" }),
        EditorView.lineWrapping,
        keymap.of([
          { key: "Mod-s", preventDefault: true, run: () => (onSave(), true) },
          ...closeBracketsKeymap, ...defaultKeymap, ...historyKeymap, ...completionKeymap, ...lintKeymap, indentWithTab,
        ]),
        EditorView.updateListener.of((update) => update.docChanged && onChange()),
      ],
    });
  const view = new EditorView({ state: stateOf(""), parent: shadow, root: shadow });
  return {
    text: () => view.state.sliceDoc(),
    /** Show another text, without its history. */
    open: (text) => view.setState(stateOf(text)),
    /** Change the text to another one; the cursor stays where it is in what is equal. */
    follow(text) {
      const old = view.state.sliceDoc();
      if (text.includes("\r\n") !== old.includes("\r\n")) return view.setState(stateOf(text));
      const before = view.state.doc.toString();
      const after = view.state.toText(text).toString();
      let start = 0;
      while (start < Math.min(before.length, after.length) && before[start] === after[start]) start++;
      let end = 0;
      while (end < Math.min(before.length, after.length) - start && before.at(-1 - end) === after.at(-1 - end)) end++;
      const insert = view.state.toText(after.slice(start, after.length - end));
      return view.dispatch({ changes: { from: start, to: before.length - end, insert } });
    },
    show: (diagnostics) => view.dispatch(setDiagnostics(view.state, diagnostics.map((d) => marked(view.state.doc, d)))),
    goTo(line, column = 1, focus = true) {
      const at = offset(view.state.doc, line, column);
      view.dispatch({ selection: { anchor: at }, effects: EditorView.scrollIntoView(at, { y: "center" }) });
      if (focus) view.focus();
    },
  };
}

/** The offset of a place; columns count code points from 1. */
function offset(doc, line, column) {
  const { from, text } = doc.line(Math.max(1, Math.min(line, doc.lines)));
  return from + [...text].slice(0, column - 1).join("").length;
}

function marked(doc, d) {
  const from = offset(doc, d.line, d.column);
  const to = Math.max(from, offset(doc, d.line, d.end_column));
  return { from, to, severity: d.severity, message: d.message, source: d.code, renderMessage: () => explained(d) };
}

/** A diagnostic's message with a link to the page of its code. */
export function explained(d) {
  const span = document.createElement("span");
  const link = document.createElement("a");
  Object.assign(link, { href: `explain/${d.code}.html`, target: "_blank", rel: "noopener", textContent: d.code });
  span.append(`${d.message} `, link);
  return span;
}
