"""A report as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import NamedTuple

import archspec
from archspec import analysis
from archspec.emit.words import pages
from archspec.report.drawing import draw, svg
from archspec.report.facts import Facts, claimed, counted, crossed, layers, mib, peaks, whole

COLUMNS = [
    *"name op attributes input_shapes output_shape params params_share macs macs_share".split(),
    *"receptive_field effective_stride activation_bytes kept_bytes init".split(),
]
_BARS = 12  # more layers than that are summed up


class Bar(NamedTuple):
    """A layer's part of a whole: 0 to 1, and in words."""

    name: str
    share: float
    says: str


def as_html(facts: Facts, columns: Iterable[str] = COLUMNS) -> str:
    """Return the page: the network drawn, where its cost goes, its layers, memory, claims and everyone's counts."""
    from hashlib import sha256

    from markupsafe import Markup

    environment = pages()
    assert environment.loader
    scripts = [
        environment.loader.get_source(environment, f"vendor/{name}")[0]
        for name in ("sortable.min.js", "sortable.a11y.min.js")
    ]
    drawing = draw(facts.graph)
    nodes = facts.graph.nodes
    table = layers(facts, columns)
    return environment.get_template("report.html.jinja").render(
        f=facts,
        total=facts.totals,
        mib=mib,
        drawing=Markup(svg(drawing)) if drawing else None,  # noqa: S704, a template of ours, which escapes
        bars={
            "Parameters": _bars([(n.name, analysis.params(n)) for n in nodes], ""),
            "MACs": _bars([(n.name, n.macs) for n in nodes], ""),
            "Memory kept for gradients": _bars([(n.name, facts.kept[n]) for n in nodes], " bytes"),
        },
        layers=table,
        order=[[_order(value) for value in row] for row in table.values],
        tables=[whole(facts), peaks(facts), crossed(facts), claimed(facts), counted(facts)],
        scripts=Markup("\n".join(scripts)),  # noqa: S704, files of ours
        version=archspec.__version__,
        sha256=sha256(facts.graph.source.text.encode()).hexdigest(),
    )


def _order(value: object) -> float | int | None:
    """Return by what a cell is sorted if not by its words: a number is itself, a shape how much it holds."""
    if isinstance(value, list) and value and all(isinstance(n, int) for n in value):
        return prod(value)
    return value if isinstance(value, int | float) else None


def _bars(parts: list[tuple[str, int]], unit: str) -> list[Bar]:
    """Return the largest parts of a whole in the order of the network, and what the others are together."""
    whole = sum(size for _, size in parts) or 1
    parts = [(name, size) for name, size in parts if size]
    top = set(sorted(range(len(parts)), key=lambda i: -parts[i][1])[:_BARS])
    shown = [part for i, part in enumerate(parts) if i in top]
    rest = [size for i, (_, size) in enumerate(parts) if i not in top]
    if rest:
        shown.append((f"{len(rest)} others", sum(rest)))
    return [Bar(name, size / whole, f"{size:,}{unit}, {size / whole:.1%}") for name, size in shown]
