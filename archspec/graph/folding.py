"""A network by the rows of its text: blocks and repeated layers as one item each, unfolded to a depth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from archspec.graph.graph import Graph, Instance, Item, Node, nodes_of, output_of
from archspec.language.blocks import REQUIRED, Row


@dataclass(frozen=True, eq=False)
class Group:
    """The layers of one row: of a block, or of several that are repeated."""

    name: str  # the path, e.g. `layer2`
    row: Row
    items: tuple[Item, ...]
    nodes: tuple[Node, ...]

    @property
    def output(self) -> Node:
        """The layer whose output is its own."""
        return output_of(self.items[-1])

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of its output."""
        return self.output.output_shape

    @property
    def op(self) -> str:
        """The op or block, and how many there are of it."""
        op = self.row.use.op
        name = op if isinstance(op, str) else op.text
        return f"{name} x {len(self.items)}" if self.row.repeat is not None and len(self.items) > 1 else name

    @cached_property
    def inputs(self) -> tuple[Node, ...]:
        """The layers outside that it reads, in the order of the first use."""
        inside = set(self.nodes)
        return tuple(dict.fromkeys(read for node in self.nodes for read in node.inputs if read not in inside))

    @property
    def attributes(self) -> str:
        """The values of its row, e.g. `width 64, first stride 2`."""
        values = dict(self.row.use.values)
        words = [f"{key} {_text(value)}" for key, value in values.items() if key not in ("name", "op", "from", "allow")]
        if self.row.first:
            changed = self.row.first.values
            words += [f"first {key} {_text(v)}" for key, v in changed.items() if values.get(key, REQUIRED) != v]
        return ", ".join(words)


Folded = Node | Group


def folded(graph: Graph, depth: int | None = 0) -> list[Folded]:
    """Return the layers with each row that uses a block, or is repeated, as one group.

    `depth` unfolds that many levels: 1 has the rows of the blocks that the network uses, and each of several repeated
    ones. None unfolds all.
    """
    if depth is None or graph.root is None:
        return list(graph.nodes)
    present = set(graph.nodes)
    return list(_members(graph.root, depth, present))


def _members(instance: Instance, depth: int, present: set[Node]) -> Iterator[Folded]:
    for member in instance.members:
        name = f"{instance.path}.{member.row.name}" if instance.path else member.row.name
        nodes = tuple(node for node in nodes_of(member.items) if node in present)
        if not nodes:
            continue
        single = member.items[0] if member.row.repeat is None else None
        if isinstance(single, Node):
            yield single
        elif depth == 0:
            yield Group(name, member.row, member.items, nodes)
        elif single is not None:
            yield from _members(single, depth - 1, present)
        else:
            for i, item in enumerate(member.items):
                if isinstance(item, Node):
                    yield item
                elif depth == 1:
                    inside = tuple(node for node in nodes_of((item,)) if node in present)
                    yield Group(f"{name}.{i}", member.row, (item,), inside)
                else:
                    yield from _members(item, depth - 2, present)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return " x ".join(map(str, value)) if isinstance(value, list) else str(value)
