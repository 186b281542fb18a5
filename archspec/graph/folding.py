"""A network by the rows of its text: blocks and repeated layers as one item each, unfolded to a depth."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from functools import cached_property

from archspec.graph.graph import Graph, Instance, Item, Node, nodes_of, output_of
from archspec.language.blocks import REQUIRED, Row, Use


@dataclass(frozen=True, eq=False)
class Group:
    """The layers of one row: of a block, or of several that are repeated, or those of the number `index` of them."""

    name: str  # the path, e.g. `layer2`
    row: Row
    items: tuple[Item, ...]
    nodes: tuple[Node, ...]
    index: int | None = None

    @property
    def output(self) -> Node:
        """The layer whose output is its own."""
        return output_of(self.items[-1])

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of its output."""
        return self.output.output_shape

    @property
    def kind(self) -> str:
        """The op or block."""
        op = self._use.op
        return op if isinstance(op, str) else op.text

    @property
    def op(self) -> str:
        """The op or block, and how many there are of it."""
        repeated = self.row.repeat is not None and len(self.items) > 1
        return f"{self.kind} x {len(self.items)}" if repeated else self.kind

    @cached_property
    def inputs(self) -> tuple[Node, ...]:
        """The layers outside that it reads, in the order of the first use."""
        inside = set(self.nodes)
        return tuple(dict.fromkeys(read for node in self.nodes for read in node.inputs if read not in inside))

    @property
    def attributes(self) -> str:
        """The values of its row, e.g. `width 64, first stride 2`."""
        values = self._use.values
        words = [f"{key} {_text(value)}" for key, value in values.items() if key not in ("name", "op", "from", "allow")]
        if self.row.first and self.index is None:
            changed = self.row.first.values
            words += [f"first {key} {_text(v)}" for key, v in changed.items() if values.get(key, REQUIRED) != v]
        return ", ".join(words)

    def unfolded(self) -> list[Folded]:
        """Return its instances if it is repeated, or else the rows of its block."""
        present = set(self.nodes)
        if self.row.repeat is None or self.index is not None:
            (block,) = self.items
            assert isinstance(block, Instance)
            return list(_rows(block, present))
        found: list[Folded] = []
        for i, item in enumerate(self.items):
            inside = tuple(node for node in nodes_of((item,)) if node in present)
            found.append(item if isinstance(item, Node) else Group(f"{self.name}.{i}", self.row, (item,), inside, i))
        return found

    @property
    def _use(self) -> Use:
        return self.row.first if self.row.first and self.index == 0 else self.row.use


Folded = Node | Group


def folded(graph: Graph, depth: int | None = 0) -> list[Folded]:
    """Return the layers with each row that uses a block, or is repeated, as one group.

    `depth` unfolds that many levels: 1 has the rows of the blocks that the network uses, and each of several repeated
    ones. None unfolds all.
    """
    if depth is None or graph.root is None:
        return list(graph.nodes)
    items = list(_rows(graph.root, set(graph.nodes)))
    for _ in range(depth):
        if all(isinstance(item, Node) for item in items):
            break
        items = [inner for item in items for inner in ([item] if isinstance(item, Node) else item.unfolded())]
    return items


def _rows(instance: Instance, present: Container[Node]) -> Iterator[Folded]:
    """Yield the rows of a block or of the network; layers that are not in `present` are no part of it."""
    for member in instance.members:
        nodes = tuple(node for node in nodes_of(member.items) if node in present)
        if not nodes:
            continue
        single = member.items[0] if member.row.repeat is None else None
        if isinstance(single, Node):
            yield single
        else:
            name = f"{instance.path}.{member.row.name}" if instance.path else member.row.name
            yield Group(name, member.row, member.items, nodes)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return " x ".join(map(str, value)) if isinstance(value, list) else str(value)
