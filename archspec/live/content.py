"""The content of the live page for the text of a spec, as plain data; every string in it is shown as text."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import archspec
from archspec.graph import Node
from archspec.language import reference
from archspec.language.diagnostics import as_data, codes
from archspec.language.diagnostics import page as code_page
from archspec.language.source import Diagnostic, SpecError
from archspec.report import Facts, default_columns
from archspec.report.arithmetic import arithmetic
from archspec.report.drawing import draw, svg
from archspec.report.facts import (
    Table,
    attributes,
    claims_table,
    conventions_table,
    layers_table,
    memory_table,
    mib,
    totals_table,
)
from archspec.targets import TARGETS, files, model_source
from archspec.targets.render import html_environment

Json = dict[str, Any]

HIDDEN = {"input_shapes", "weights", "biases", "params_share"}  # columns of a report, which the page has no room for
MAX_LAYERS = 100  # of a block, whose arithmetic is shown


def check(text: str, path: str, panel: str = "layers", depth: int = 0) -> Json:
    """Return the diagnostics of a spec and, if it has no errors but those of claims, the content of a panel.

    `path` is that of its file, beside which other specs are found; blocks are unfolded to `depth`.
    """
    try:
        graph = archspec.loads(text, path)
        checked = archspec.check(graph)
    except SpecError as error:
        return {"diagnostics": _diagnostics(error.diagnostics), "network": None}
    facts = Facts(graph, verdicts=checked.claims, depth=depth)
    network = _summary(facts) | (PANELS[panel](facts) if panel in PANELS else {})
    return {"diagnostics": _diagnostics(checked.diagnostics), "network": network}


def layer(text: str, path: str, depth: int, row: int) -> Json:
    """Return the line of a row of the table, and the arithmetic of its layer, or of those of its block; of a spec with
    errors, and of a row that is not there, none.
    """
    try:
        facts = Facts(archspec.loads(text, path), depth=depth)
    except SpecError:
        facts = None
    if facts is None or row >= len(facts.items):
        return {"line": 0, "layers": [], "more": 0}
    item = facts.items[row]
    nodes = [item] if isinstance(item, Node) else item.nodes
    loc = item.loc if isinstance(item, Node) else item.row.loc
    return {
        "line": facts.graph.source.span(loc).line + 1,
        "layers": [_layer(node) for node in nodes[:MAX_LAYERS]],
        "more": max(0, len(nodes) - MAX_LAYERS),
    }


def code(text: str, path: str, target: str) -> Json:
    """Return the code of a spec for a target: the files that depend on the spec; or diagnostics.

    Where ruff cannot run, as in a browser, it is the model alone, not formatted.
    """
    try:
        graph = archspec.loads(text, path)
        if find_spec("ruff"):
            found = files(graph, TARGETS[target], headers=False, engine=False)
        else:
            found = {f"{TARGETS[target].folder}/model.py": model_source(graph, TARGETS[target])}
    except SpecError as error:
        return {"diagnostics": _diagnostics(error.diagnostics), "files": {}}
    return {"diagnostics": [], "files": {name: text for name, text in found.items() if not name.endswith("/train.py")}}


def explanation(topic: str) -> str:
    """Return the page of a diagnostic's code, an op or another name of the language as HTML; raise KeyError."""
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    if topic not in codes() and topic not in reference.TOPICS:
        raise KeyError(topic)
    text = code_page(topic) if topic in codes() else reference.topic_page(topic)
    html = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    page = html_environment().get_template("html/explain.html.jinja")
    return page.render(topic=topic, text=Markup(html))  # noqa: S704, a text of ours, in which HTML is escaped


def _diagnostics(found: tuple[Diagnostic, ...] | list[Diagnostic]) -> list[Json]:
    return [as_data(diagnostic) for diagnostic in found if not diagnostic.allowed]


def _summary(facts: Facts) -> Json:
    """Return the head of the page, and the names for completion."""
    graph, total = facts.graph, facts.totals
    return {
        "name": graph.name,
        "source": graph.spec.source or "",
        "sums": [
            [f"{total.params:,}", "parameters"],
            [f"{total.macs:,}", "MACs"],
            [mib(facts.memory.peak_training), "peak in training, one sample"],
        ],
        "names": [node.name for node in (graph.input, *graph.nodes) if "." not in node.name],
        "blocks": list(graph.spec.blocks or ()),
        "depth": max((node.name.count(".") for node in graph.nodes), default=0),
    }


def _layers(facts: Facts) -> Json:
    columns = [key for key in default_columns(facts) if key not in HIDDEN]
    return {"layers": _table(layers_table(facts, columns))}


def _drawing(facts: Facts) -> Json:
    drawing = draw(facts.graph, facts.depth or 0)
    return {"drawing": svg(drawing, styled=False) if drawing else ""}


def _claims(facts: Facts) -> Json:
    return {"claims": _table(claims_table(facts))}


def _counts(facts: Facts) -> Json:
    return {"counts": [_table(table) for table in (totals_table(facts), memory_table(facts), conventions_table(facts))]}


PANELS = {"layers": _layers, "drawing": _drawing, "claims": _claims, "counts": _counts}


def _table(table: Table) -> Json:
    states = [row[0] for row in table.values] if table.title == "Claims" else []
    return {
        "title": table.title,
        "heads": table.heads,
        "rows": table.words,
        "right": sorted(table.right),
        "states": states,
    }


def _layer(node: Node) -> Json:
    formulas = [[f.subject, f.names, f.numbers, f"{f.value:,}"] for f in arithmetic(node)]
    return {"name": node.name, "op": node.op.op, "attributes": attributes(node.op), "formulas": formulas}
