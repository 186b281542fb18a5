"""The comparison of two networks: their rows aligned, the differences, the ratios of the totals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import Any

from archspec import analysis
from archspec.graph import Graph, Node
from archspec.graph.folding import Folded, Group, folded
from archspec.language.ops.base import format_shape
from archspec.language.spec import Multipliers
from archspec.report.facts import attributes
from archspec.report.text import aligned

MAX_MATCHES = 1_000_000  # pairs of rows of one op, which difflib looks at again and again
Pair = tuple[Folded | None, Folded | None]


def align(a: Graph, b: Graph, depth: int | None = None) -> list[Pair]:
    """Return the rows of two networks in pairs, in order; a row that the other network lacks is paired with None.

    The alignment is the longest common subsequence of ops and blocks: names of layers do not matter, and an added layer
    does not shift the rest. Networks of thousands of rows of one op are aligned by position. Blocks are aligned before
    what is in them, by their names where both networks have them. `depth` unfolds that many levels of blocks, None all.
    """
    pairs = _align(folded(a), folded(b))
    while depth is None or depth > 0:
        if not any(isinstance(item, Group) for pair in pairs for item in pair):
            break
        pairs = [inner for pair in pairs for inner in _unfolded(pair)]
        depth = None if depth is None else depth - 1
    return pairs


def _unfolded(pair: Pair) -> list[Pair]:
    """Return a pair of rows as the pairs of the rows in them."""
    if not any(isinstance(item, Group) for item in pair):
        return [pair]
    a, b = ([] if item is None else item.unfolded() if isinstance(item, Group) else [item] for item in pair)
    return _align(a, b)


def _align(a: Sequence[Folded], b: Sequence[Folded], *, by_name: bool = True) -> list[Pair]:
    """Return rows in pairs; blocks of one name together before, in what is left, blocks of other names."""
    from difflib import SequenceMatcher

    words_a, words_b = ([_word(item, by_name) for item in rows] for rows in (a, b))
    counts = Counter(words_b)
    if sum(counts[word] for word in words_a) > MAX_MATCHES:
        return align_by_position(a, b)
    pairs: list[Pair] = []
    for _, i, i_end, j, j_end in SequenceMatcher(None, words_a, words_b, autojunk=False).get_opcodes():
        if words_a[i:i_end] == words_b[j:j_end]:
            pairs += zip(a[i:i_end], b[j:j_end], strict=True)
        elif by_name and i < i_end and j < j_end:
            pairs += _align(a[i:i_end], b[j:j_end], by_name=False)
        else:
            pairs += [(item, None) for item in a[i:i_end]] + [(None, item) for item in b[j:j_end]]
    return pairs


def align_by_position(a: Sequence[Folded], b: Sequence[Folded]) -> list[Pair]:
    """Return rows in pairs by their place from the start, and from the last that differ by their place from the end."""
    words = [[_word(item, by_name=True) for item in rows] for rows in (a, b)]
    start, most = 0, min(len(a), len(b))
    while start < most and words[0][start] == words[1][start]:
        start += 1
    end = 0
    while end < most - start and words[0][-1 - end] == words[1][-1 - end]:
        end += 1
    middle: list[Pair] = []
    for left, right in zip_longest(a[start : len(a) - end], b[start : len(b) - end]):
        same = left and right and _word(left, by_name=True) == _word(right, by_name=True)
        middle += [(left, right)] if same or not (left and right) else [(left, None), (None, right)]
    ends = zip(a[len(a) - end :], b[len(b) - end :], strict=True)
    return [*zip(a[:start], b[:start], strict=True), *middle, *ends]


def _word(item: Folded, by_name: bool) -> str:
    """Return what a row is aligned by: its op or its block, however often it is repeated."""
    return item.op.op if isinstance(item, Node) else item.kind if by_name else "block"


def differences(graphs: tuple[Graph, Graph], pair: Pair) -> list[str]:
    """Return how two rows differ: `only in a`, `only in b`, or any of attributes, output, params, macs, init, layers.

    Blocks differ in what any two of their layers differ in, and in `layers` if one of them lacks a layer of the other.
    """
    a, b = pair
    if a is None or b is None:
        return ["only in b"] if a is None else ["only in a"]
    if not isinstance(a, Node) or not isinstance(b, Node):
        found = dict.fromkeys(("attributes", "output", "params", "macs", "init", "layers"), False)
        for what in (what for inner in _unfolded(pair) for what in differences(graphs, inner)):
            found["layers" if what.startswith("only") else what] = True
        return [what for what, differs in found.items() if differs]
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
        "layers": [
            {"a": _fact(left), "b": _fact(right), "differs": differences((a, b), (left, right))}
            for left, right in align(a, b)
        ],
        "differs": outside_differences(a, b),
        "totals": {
            key: {"a": value, "b": totals_b[key], "ratio": totals_b[key] / value if value else None}
            for key, value in totals_a.items()
        },
    }


def outside_differences(a: Graph, b: Graph) -> list[str]:
    """Return how two networks differ outside their layers: input, training, multipliers."""
    found = {
        "input": a.input.output_shape != b.input.output_shape,
        "training": a.spec.training != b.spec.training,
        "multipliers": (a.spec.multipliers or Multipliers()) != (b.spec.multipliers or Multipliers()),
    }
    return [what for what, differs in found.items() if differs]


def _fact(node: Folded | None) -> dict[str, Any] | None:
    if not isinstance(node, Node):
        return None
    return {
        "name": node.name,
        "op": node.op.op,
        "attributes": attributes(node.op),
        "output_shape": list(node.output_shape),
        "params": analysis.params(node),
        "macs": node.macs,
    }


def compare_lines(a: Graph, b: Graph, depth: int | None = 0) -> Iterator[str]:
    """Yield the lines of the comparison: aligned rows, `=` where they are equal, and the totals.

    `depth` is the levels of blocks that are unfolded, None being all.
    """
    pairs = align(a, b, depth)
    rows = [("", a.name, "", "", b.name, "", "", "differs in")]
    for pair in pairs:
        found = differences((a, b), pair)
        mark = "=" if not found else {"only in a": "-", "only in b": "+"}.get(found[0], "!")
        rows.append((mark, *_cells(pair[0]), *_cells(pair[1]), "" if mark in "=-+" else ", ".join(found)))
    yield from aligned(rows)
    same = sum(not differences((a, b), pair) for pair in align(a, b))
    yield ""
    yield f"{same} of {max(len(a.nodes), len(b.nodes))} layers are equal"
    for what in outside_differences(a, b):
        yield f"{what}: different"
    yield ""
    totals_a, totals_b = asdict(analysis.totals(a)), asdict(analysis.totals(b))
    lines = [
        (key, f"{value:,}", f"{totals_b[key]:,}", f"{totals_b[key] / value:.4g}" if value else "")
        for key, value in totals_a.items()
    ]
    yield from aligned([("total", a.name, b.name, "ratio"), *lines], {1, 2, 3})


def _cells(item: Folded | None) -> tuple[str, str, str]:
    if item is None:
        return "", "", ""
    op, words = (item.op.op, attributes(item.op)) if isinstance(item, Node) else (item.op, item.attributes)
    return item.name, f"{op} {words}".strip(), format_shape(item.output_shape)
