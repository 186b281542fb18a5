"""The comparison of two networks: their layers aligned, the differences, the ratios of the totals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from archspec import analysis
from archspec.graph import Graph, Node
from archspec.language.ops.base import format_shape
from archspec.language.spec import Multipliers
from archspec.report.facts import attributes
from archspec.report.text import aligned

Pair = tuple[Node | None, Node | None]


def align(a: Graph, b: Graph) -> list[Pair]:
    """Return the layers of two networks in pairs, in order; a layer that the other network lacks is paired with None.

    The alignment is the longest common subsequence of ops: names do not matter, and an added layer does not shift the
    rest.
    """
    from difflib import SequenceMatcher

    ops_a, ops_b = [node.op.op for node in a.nodes], [node.op.op for node in b.nodes]
    pairs: list[Pair] = []
    for _, i, i_end, j, j_end in SequenceMatcher(None, ops_a, ops_b, autojunk=False).get_opcodes():
        left, right = list(a.nodes[i:i_end]), list(b.nodes[j:j_end])
        if len(left) == len(right) and [n.op.op for n in left] == [n.op.op for n in right]:
            pairs += zip(left, right, strict=True)
        else:
            pairs += [(node, None) for node in left] + [(None, node) for node in right]
    return pairs


def differences(graphs: tuple[Graph, Graph], pair: Pair) -> list[str]:
    """Return how two layers differ: `only in a`, `only in b`, or any of attributes, output, params, macs and init."""
    a, b = pair
    if a is None or b is None:
        return ["only in b"] if a is None else ["only in a"]
    found = {
        "attributes": attributes(a.op) != attributes(b.op),
        "output": a.output_shape != b.output_shape,
        "params": analysis.params(a) != analysis.params(b),
        "macs": a.macs != b.macs,
        "init": any(
            graphs[0].initializer(a, name) != graphs[1].initializer(b, name)
            for name in a.trainable
            if name in b.trainable
        ),
    }
    return [what for what, differs in found.items() if differs]


def compare_facts(a: Graph, b: Graph) -> dict[str, Any]:
    """Return the comparison of two networks as data: aligned layers, and the totals with their ratio b / a."""
    totals_a, totals_b = asdict(analysis.totals(a)), asdict(analysis.totals(b))
    return {
        "a": {"name": a.name, "path": a.source.path},
        "b": {"name": b.name, "path": b.source.path},
        "layers": [{"a": _fact(p[0]), "b": _fact(p[1]), "differs": differences((a, b), p)} for p in align(a, b)],
        "differs": _outside(a, b),
        "totals": {
            key: {"a": value, "b": totals_b[key], "ratio": totals_b[key] / value if value else None}
            for key, value in totals_a.items()
        },
    }


def _outside(a: Graph, b: Graph) -> list[str]:
    """Return how two networks differ outside their layers: input, training, multipliers."""
    found = {
        "input": a.input.output_shape != b.input.output_shape,
        "training": a.spec.training != b.spec.training,
        "multipliers": (a.spec.multipliers or Multipliers()) != (b.spec.multipliers or Multipliers()),
    }
    return [what for what, differs in found.items() if differs]


def _fact(node: Node | None) -> dict[str, Any] | None:
    if node is None:
        return None
    return {
        "name": node.name,
        "op": node.op.op,
        "attributes": attributes(node.op),
        "output_shape": list(node.output_shape),
        "params": analysis.params(node),
        "macs": node.macs,
    }


def compare_lines(a: Graph, b: Graph) -> Iterator[str]:
    """Yield the lines of the comparison: aligned layers, `=` where they are equal, and the totals."""
    pairs = align(a, b)
    rows = [("", a.name, "", "", b.name, "", "", "differs in")]
    for pair in pairs:
        found = differences((a, b), pair)
        mark = "=" if not found else {"only in a": "-", "only in b": "+"}.get(found[0], "!")
        rows.append((mark, *_cells(pair[0]), *_cells(pair[1]), "" if mark in "=-+" else ", ".join(found)))
    yield from aligned(rows)
    same = sum(not differences((a, b), pair) for pair in pairs)
    yield ""
    yield f"{same} of {max(len(a.nodes), len(b.nodes))} layers are equal"
    for what in _outside(a, b):
        yield f"{what}: different"
    yield ""
    totals_a, totals_b = asdict(analysis.totals(a)), asdict(analysis.totals(b))
    lines = [
        (key, f"{value:,}", f"{totals_b[key]:,}", f"{totals_b[key] / value:.4g}" if value else "")
        for key, value in totals_a.items()
    ]
    yield from aligned([("total", a.name, b.name, "ratio"), *lines], {1, 2, 3})


def _cells(node: Node | None) -> tuple[str, str, str]:
    if node is None:
        return "", "", ""
    words = f"{node.op.op} {attributes(node.op)}".strip()
    return node.name, words, format_shape(node.output_shape)
