"""What changed between two versions of a network: layers added, removed, renamed and changed, and the costs."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from archspec import analysis
from archspec.analysis.budget import format_cost
from archspec.analysis.memory import memory
from archspec.graph import Graph, Node
from archspec.language.ops.base import format_shape
from archspec.language.source import Diagnostic, printable
from archspec.report.compare import align_by_position, differences, outside_differences
from archspec.report.facts import attributes
from archspec.report.markup import markdown_table, plain
from archspec.report.text import aligned

MAX_CELLS = 250_000  # pairs of layers that are weighed against each other: about 0.3 s
MAX_ROWS = 100  # of a table; JSON has all
SIZES = ("peak_inference", "peak_training")
COSTS = {
    "params": "parameters",
    "macs": "MACs",
    "activation_bytes": "activations",
    "peak_inference": "peak, inference",
    "peak_training": "peak, training",
}
Pair = tuple[Node | None, Node | None]


@dataclass(frozen=True)
class Change:
    """A layer that is not as before; one that was added or removed is None on the other side."""

    before: Node | None
    after: Node | None
    differs: tuple[str, ...]  # name, op, attributes, reads, output, params, macs, init; empty if it is on one side only

    @property
    def kind(self) -> str:
        """The kind: added, removed, renamed (and nothing else) or changed."""
        if self.before is None or self.after is None:
            return "added" if self.before is None else "removed"
        return "renamed" if self.differs == ("name",) else "changed"

    def increase(self, cost: str) -> int:
        """Return by how much a cost of the layer, `params` or `macs`, has grown."""
        count = analysis.params if cost == "params" else lambda node: node.macs
        return sum(sign * count(node) for sign, node in ((-1, self.before), (1, self.after)) if node)


@dataclass(frozen=True)
class SpecDiff:
    """A spec in two revisions. A version that does not exist is None, as is one with errors, which are there instead.

    Where `same` is true the text differs, and the network does not: comments, claims or the budget.
    """

    path: str
    old_path: str
    before: Graph | None = None
    after: Graph | None = None
    old_errors: Sequence[Diagnostic] = ()
    errors: Sequence[Diagnostic] = ()
    same: bool = False

    @property
    def status(self) -> str:
        """What happened to it: added, deleted, changed, repaired, broken, or unchanged: the network is the same."""
        if self.errors:
            return "broken"
        if self.old_errors:
            return "repaired" if self.after else "deleted"
        if self.same or (self.before and self.after and not self.changes and not self.outside):
            return "unchanged"
        return "added" if not self.before else "deleted" if not self.after else "changed"

    @cached_property
    def changes(self) -> list[Change]:
        """The layers that differ; none where a version is missing."""
        return layer_changes(self.before, self.after) if self.before and self.after else []

    @cached_property
    def outside(self) -> list[str]:
        """What differs outside the layers: name, input, training, multipliers."""
        if not (self.before and self.after):
            return []
        name = ["name"] if self.before.name != self.after.name else []
        return name + outside_differences(self.before, self.after)

    @cached_property
    def costs(self) -> dict[str, tuple[int | None, int | None]]:
        """The costs before and after, by COSTS; memory is for one sample in float32."""
        before, after = (_costs(graph) if graph else {} for graph in (self.before, self.after))
        return {name: (before.get(name), after.get(name)) for name in COSTS if before or after}


def _costs(graph: Graph) -> dict[str, int]:
    peaks = memory(graph, recipe=graph.spec.training)
    return {**asdict(analysis.totals(graph)), **{name: getattr(peaks, name) for name in SIZES}}


# --- alignment -------------------------------------------------------------------------------------------------------


def layer_changes(a: Graph, b: Graph) -> list[Change]:
    """Return the layers of two versions of a network that differ, in the order of the layers."""
    pairs = align_versions(a, b)
    partners: dict[Node, Node] = {left: right for left, right in pairs if left and right}
    kept = set(partners.values())
    found = []
    for left, right in pairs:
        if left is None or right is None:
            found.append(Change(left, right, ()))
            continue
        words = ["name"] * (left.name != right.name) + ["op"] * (left.op.op != right.op.op)
        words += differences((a, b), (left, right))
        old = [partners.get(_nearest(read, partners), b.input) for read in left.inputs]
        if old != [_nearest(read, kept) if read is not b.input else read for read in right.inputs]:
            words.append("reads")
        if words:
            found.append(Change(left, right, tuple(words)))
    return found


def _nearest(node: Node, kept: Any) -> Node:
    """Return the layer itself if it is in both versions, or else the nearest such layer before it, or the input."""
    while node not in kept and node.inputs:
        node = node.inputs[0]
    return node


def align_versions(a: Graph, b: Graph) -> list[Pair]:
    """Return the layers of two versions of a network in pairs, in order; one that has no partner is paired with None.

    Layers that have not changed at all come first. Between two of them layers are paired so that most is kept of op,
    attributes, output and name. So a layer that was renamed is found, and one that was added does not shift the rest.
    """
    where = {_signature(node): j for j, node in enumerate(b.nodes)}
    same = [(i, where[key]) for i, node in enumerate(a.nodes) if (key := _signature(node)) in where]
    anchors = [(-1, -1), *_increasing(same), (len(a.nodes), len(b.nodes))]
    pairs: list[Pair] = []
    for (i, j), (i_end, j_end) in pairwise(anchors):
        if i >= 0:
            pairs.append((a.nodes[i], b.nodes[j]))
        pairs += _weighed(a.nodes[i + 1 : i_end], b.nodes[j + 1 : j_end])
    return pairs


def _signature(node: Node) -> Any:
    return node.name, node.op.op, attributes(node.op), node.input_shapes, node.output_shape


def _increasing(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the most of `pairs`, which increase in the first number, that increase in the second one as well."""
    ends: list[int] = []  # the smallest last number of a chain, by its length
    last: list[int] = []  # the pair that it belongs to
    before: list[int] = []
    for at, (_, j) in enumerate(pairs):
        length = bisect_left(ends, j)
        ends[length : length + 1] = [j]
        last[length : length + 1] = [at]
        before.append(last[length - 1] if length else -1)
    chain, at = [], last[-1] if last else -1
    while at >= 0:
        chain.append(pairs[at])
        at = before[at]
    return chain[::-1]


def _weighed(a: Sequence[Node], b: Sequence[Node]) -> list[Pair]:
    """Return layers in pairs of the greatest weight (Needleman and Wunsch 1970); many of them by their position."""
    if not a or not b:
        return [(node, None) for node in a] + [(None, node) for node in b]
    if len(a) * len(b) > MAX_CELLS:
        return align_by_position(a, b)  # type: ignore[return-value]  # the pairs of nodes are pairs of nodes
    words = {node: (node.op.op, attributes(node.op), node.output_shape, node.name) for node in (*a, *b)}

    def weight(left: Node, right: Node) -> int:
        same_op, *same, same_name = (x == y for x, y in zip(words[left], words[right], strict=True))
        return (1 + sum(same) if same_op else 0) + same_name

    best = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in range(len(a) - 1, -1, -1):
        row, below = best[i], best[i + 1]
        for j in range(len(b) - 1, -1, -1):
            paired = weight(a[i], b[j])
            row[j] = max(below[j], row[j + 1], below[j + 1] + paired if paired else 0)
    pairs: list[Pair] = []
    i = j = 0
    while i < len(a) and j < len(b):
        paired = weight(a[i], b[j])
        if paired and best[i][j] == best[i + 1][j + 1] + paired:
            pairs.append((a[i], b[j]))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            pairs.append((a[i], None))
            i += 1
        else:
            pairs.append((None, b[j]))
            j += 1
    return pairs + [(node, None) for node in a[i:]] + [(None, node) for node in b[j:]]


# --- text ------------------------------------------------------------------------------------------------------------

HEADS = ["", "layer", "before", "after", "params", "MACs", "differs in"]
MARKS = {"added": "+", "removed": "-", "renamed": ">", "changed": "!"}


def _rows(changes: Sequence[Change]) -> list[list[str]]:
    """Return the rows of the table of changes; layers of repeated blocks that changed alike are one row."""
    groups: dict[tuple[str, ...], list[Change]] = {}
    for change in changes:
        names = [re.sub(r"\.\d+(?=\.)", ".*", node.name) for node in (change.before, change.after) if node]
        name = " -> ".join(dict.fromkeys(names))
        cells = (name, _cell(change.before), _cell(change.after), ", ".join(change.differs))
        groups.setdefault((MARKS[change.kind], *cells), []).append(change)
    rows = []
    for (mark, name, before, after, differs), alike in groups.items():
        if len(alike) == 1:
            name = " -> ".join(dict.fromkeys(node.name for node in (alike[0].before, alike[0].after) if node))
        else:
            name += f" ({len(alike)} layers)"
        costs = [f"{sum(change.increase(cost) for change in alike):+,}" for cost in ("params", "macs")]
        rows.append([mark, name, before, after, *("" if cost == "+0" else cost for cost in costs), differs])
    return rows[:MAX_ROWS] + ([["", f"and {len(rows) - MAX_ROWS:,} more", *[""] * 5]] if len(rows) > MAX_ROWS else [])


def _cell(node: Node | None) -> str:
    if node is None:
        return ""
    return f"{node.op.op} {attributes(node.op)}".strip() + f", {format_shape(node.output_shape)}"


def _cost_rows(diff: SpecDiff) -> list[list[str]]:
    """Return the rows of the table of costs, the head first; without the columns of a version that is missing."""
    rows = [["", "before", "after", "change"]]
    for name, (before, after) in diff.costs.items():
        size = name not in ("params", "macs")
        texts = ["" if cost is None else format_cost(cost, size=size) for cost in (before, after)]
        growth = ""
        if before is not None and after is not None and before != after:
            growth = f"{after / before - 1:+.1%}" if before else "new"
        rows.append([COSTS[name], *texts, growth])
    columns = [column for i, column in enumerate(zip(*rows, strict=True)) if i == 0 or any(column[1:])]
    return [list(row) for row in zip(*columns, strict=True)]


def _head(diff: SpecDiff) -> str:
    moved = f"{diff.old_path} -> " if diff.old_path != diff.path else ""
    return printable(f"{moved}{diff.path}: {diff.status}")


def _notes(diff: SpecDiff) -> Iterator[str]:
    """Yield what is no row of a table, in words."""
    for errors, when in ((diff.old_errors, "before"), (diff.errors, "now")):
        if errors:
            first = errors[0]
            yield printable(f"errors {when}: {first.path}:{first.span.line + 1}: {first.code}: {first.message}")
    if diff.status == "unchanged" and diff.before is None:
        yield "the network is the same: comments, claims or the budget have changed"
    elif diff.status == "unchanged":
        yield "the network is the same, written otherwise"
    if diff.outside:
        yield f"changed outside the layers: {', '.join(diff.outside)}"


def diff_lines(diffs: Sequence[SpecDiff], old: str, new: str) -> Iterator[str]:
    """Yield the lines of the changes between two revisions, spec by spec."""
    yield printable(f"{len(diffs)} spec{'s' * (len(diffs) != 1)} changed from {old} to {new or 'the working tree'}")
    for diff in diffs:
        yield from ("", _head(diff), *(f"  {note}" for note in _notes(diff)))
        if diff.changes:
            yield from ("", *aligned([HEADS, *_rows(diff.changes)], {4, 5}))
        if diff.costs and diff.status != "unchanged":
            yield from ("", *aligned(_cost_rows(diff), {1, 2, 3}))


def diff_markdown(diffs: Sequence[SpecDiff], old: str, new: str) -> str:
    """Return the same as GitHub renders it, e.g. in a job summary."""
    first, *_ = diff_lines(diffs, old, new)
    parts = [f"## Networks\n\n{plain(first)}\n"]
    for diff in diffs:
        parts.append(f"### {plain(_head(diff))}\n")
        parts += [f"{plain(note)}\n" for note in _notes(diff)]
        if diff.changes:
            parts.append(markdown_table(HEADS, _rows(diff.changes), {4, 5}))
        if diff.costs and diff.status != "unchanged":
            head, *rows = _cost_rows(diff)
            parts.append(markdown_table(head, rows, {1, 2, 3}))
    return "\n".join(parts)


def diff_facts(diffs: Sequence[SpecDiff]) -> list[dict[str, Any]]:
    """Return the changes as data."""
    return [
        {
            "path": diff.path,
            "old_path": diff.old_path,
            "status": diff.status,
            "layers": [
                {"kind": c.kind, "before": _fact(c.before), "after": _fact(c.after), "differs": list(c.differs)}
                for c in diff.changes
            ],
            "differs": diff.outside,
            "costs": {name: {"before": before, "after": after} for name, (before, after) in diff.costs.items()},
            "errors": {"before": [str(d) for d in diff.old_errors], "after": [str(d) for d in diff.errors]},
        }
        for diff in diffs
    ]


def _fact(node: Node | None) -> Mapping[str, Any] | None:
    if node is None:
        return None
    return {
        "name": node.name,
        "op": node.op.op,
        "attributes": attributes(node.op),
        "reads": [read.name for read in node.inputs],
        "output_shape": list(node.output_shape),
        "params": analysis.params(node),
        "macs": node.macs,
    }
