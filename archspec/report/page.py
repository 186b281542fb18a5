"""A report as one self-contained HTML page."""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import prod
from typing import NamedTuple

import archspec
from archspec import analysis
from archspec.language.source import printable
from archspec.report.drawing import draw, svg
from archspec.report.facts import (
    Facts,
    claims_table,
    conventions_table,
    layers_table,
    memory_table,
    mib,
    totals_table,
    transfers_table,
)
from archspec.targets.render import html_environment
from archspec.targets.view import spec_hash

COLUMNS = [
    *"name op attributes input_shapes output_shape params params_share macs macs_share".split(),
    *"receptive_field effective_stride activation_bytes saved_bytes init".split(),
]
_BARS = 12  # more layers than that are summed up
_ROWS = 2000  # of the table of layers: a page with more takes seconds to write, and to open


class Bar(NamedTuple):
    """A layer's share of a total: 0 to 1, and as text."""

    name: str
    share: float
    text: str


def as_html(facts: Facts, columns: Iterable[str] = COLUMNS) -> str:
    """Return the page: a drawing, the costs by layer, the layers, memory, claims and counting conventions."""
    from markupsafe import Markup

    environment = html_environment()
    assert environment.loader
    scripts = [
        environment.loader.get_source(environment, f"html/vendor/{name}")[0]
        for name in ("sortable.min.js", "sortable.a11y.min.js")
    ]
    drawing = draw(facts.graph, facts.depth or 0)
    nodes = facts.graph.nodes
    table = layers_table(facts, columns, _ROWS)
    page = environment.get_template("html/report.html.jinja").render(
        f=facts,
        total=facts.totals,
        mib=mib,
        drawing=Markup(svg(drawing)) if drawing else None,  # noqa: S704, a template of ours, which escapes
        bars={
            "Parameters": _bars([(n.name, analysis.params(n)) for n in nodes], ""),
            "MACs": _bars([(n.name, n.macs) for n in nodes], ""),
            "Memory saved for the backward pass": _bars([(n.name, facts.saved[n]) for n in nodes], " bytes"),
        },
        layers=table,
        hidden=max(0, len(facts.items) - _ROWS),
        order=[[_order(value) for value in row] for row in table.values],
        tables=[totals_table(facts), memory_table(facts), transfers_table(facts), claims_table(facts)],
        conventions=conventions_table(facts),
        scripts=Markup("\n".join(scripts)),  # noqa: S704, files of ours
        version=archspec.__version__,
        path=printable(facts.graph.source.path),
        sha256=spec_hash(facts.graph.source),
    )
    return re.sub(r"#(?=#\w*\[)", "&#35;", page)  # what CI runners take for commands, where the page is printed


def _order(value: object) -> float | int | None:
    """Return the sort key of a cell that is not sorted as text: a number, or the size of a shape."""
    if isinstance(value, list) and value and all(isinstance(n, int) for n in value):
        return prod(value)
    return value if isinstance(value, int | float) else None


def _bars(parts: list[tuple[str, int]], unit: str) -> list[Bar]:
    """Return the largest parts of a total in the order of the network, and the sum of the others."""
    whole = sum(size for _, size in parts) or 1
    parts = [(name, size) for name, size in parts if size]
    top = set(sorted(range(len(parts)), key=lambda i: -parts[i][1])[:_BARS])
    shown = [part for i, part in enumerate(parts) if i in top]
    rest = [size for i, (_, size) in enumerate(parts) if i not in top]
    if rest:
        shown.append((f"{len(rest)} others", sum(rest)))
    return [Bar(name, size / whole, f"{size:,}{unit}, {size / whole:.1%}") for name, size in shown]
