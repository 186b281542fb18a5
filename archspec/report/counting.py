"""A network under counting conventions, and the counts by kind that they combine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from archspec import analysis
from archspec.analysis.conventions import CONVENTIONS, Convention, totals
from archspec.graph import Graph
from archspec.language.ops.base import KINDS
from archspec.report.text import aligned


def convention_facts(graph: Graph, convention: Convention) -> dict[str, Any]:
    """Return a network's count in one convention, as data."""
    return {
        "name": graph.name,
        "path": graph.source.path,
        "convention": convention.name,
        "unit": convention.unit,
        "says": convention.says,
        "total": convention.total(graph),
        "layers": [{"name": node.name, "op": node.op.op, "count": convention.count(node)} for node in graph.nodes],
    }


def convention_table(graph: Graph, convention: Convention) -> Iterator[str]:
    """Yield the lines of a network's count in one convention, layer by layer."""
    total = convention.total(graph)
    yield f"{graph.name} as {convention.name} counts: {convention.unit}, {convention.says}"
    yield ""
    rows = [(n.name, n.op.op, c, c / total if total else 0) for n in graph.nodes if (c := convention.count(n))]
    cells = [(name, op, f"{count:,}", f"{share:.1%}") for name, op, count, share in rows]
    yield from aligned([("layer", "op", convention.unit, "share"), *cells], {2, 3})
    yield ""
    yield f"total  {total:,}"


def conventions_facts(graph: Graph) -> dict[str, Any]:
    """Return a network's totals in every convention, and its counts by kind, as data."""
    return {
        "name": graph.name,
        "path": graph.source.path,
        "conventions": [
            {"convention": c.name, "unit": c.unit, "total": total, "says": c.says}
            for c, total in zip(CONVENTIONS.values(), totals(graph).values(), strict=True)
        ],
        "counts": _kinds(graph),
    }


def conventions_table(graph: Graph) -> Iterator[str]:
    """Yield the lines of a network's totals in every convention, side by side, and of its counts by kind."""
    yield f"{graph.name}  ({graph.source.path}), one sample"
    yield ""
    found = totals(graph)
    rows = [(c.name, f"{found[c.name]:,}", c.unit, c.says) for c in CONVENTIONS.values()]
    yield from aligned([("convention", "count", "unit", "of what"), *rows], {1})
    yield ""
    kinds = _kinds(graph)
    counted = [
        (
            kind,
            *(f"{kinds[when].get(kind, 0):,}" for when in ("forward", "backward", "optimizer")),
            KINDS[kind],
        )
        for kind in KINDS
        if any(kinds[when].get(kind) for when in kinds)
    ]
    yield from aligned([("kind", "forward", "backward", "a step", "of what"), *counted], {1, 2, 3})
    yield ""
    yield "a step: of SGD with momentum and weight decay, a batch"


def _kinds(graph: Graph) -> dict[str, dict[str, int]]:
    sizes = {"padded", "stride_area"}  # of windows: no work
    forward: Counter[str] = Counter()
    backward: Counter[str] = Counter()
    for node in graph.nodes:
        forward.update({k: n for k, n in analysis.op_counts(node).items() if k not in sizes})
        backward.update(analysis.backward_counts(node))
    return {"forward": dict(forward), "backward": dict(backward), "optimizer": analysis.optimizer_counts(graph)}
