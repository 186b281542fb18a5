"""A network drawn as its blocks: where each stands, and the SVG and PNG of that."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

from archspec import analysis
from archspec.graph import Graph, Node
from archspec.ops.base import times
from archspec.report.facts import attributes

MAX_BLOCKS = 400  # more than that is no drawing
MAX_ARROWS = 2000
MAX_PIXELS = 60_000_000  # of a PNG
_TALLEST, _WIDEST = 150.0, 72.0  # the largest map, and the most channels, in px; maps are to scale by both
_THIN = 2.5  # a single channel is still seen
_SLANT = 0.32, 0.2  # how far the rows go back, and up, for each px of their length
_LINE = 13.0
_LETTER = 6.1  # a letter of 11 px, about
_MARGIN = 14.0
_SLICES = 16  # more groups are not drawn one by one
_NAMES = 6  # more layers that come with a block are counted


@dataclass(eq=False)
class Block:
    """A layer that gives another shape, learns or merges, with those after it that do none of it; its place in px."""

    node: Node
    reads: list[Block]
    then: list[Node] = field(default_factory=list)
    rank: int = 0
    lane: int = 0
    x: float = 0.0
    y: float = 0.0  # of its middle
    below: float = 0.0  # where its words begin

    @property
    def kind(self) -> str:
        """What it is drawn as: input, conv, linear, pool, merge or other."""
        op = self.node.op.op
        if op == "input":
            return op
        if self.node.weights:
            return "linear" if len(self.node.output_shape) == 1 else "conv"
        return "pool" if "pool" in op else "merge" if len(self.reads) > 1 or op == "split" else "other"

    @property
    def groups(self) -> int:
        """Into how many blocks its channels are cut."""
        return int(getattr(self.node.op, "groups", 1))

    @property
    def words(self) -> list[str]:
        """What is written below: name, shape, groups, and the layers that come with it."""
        groups = [f"groups {self.groups}"] if self.groups > 1 else []
        return [self.node.name, times(self.node.output_shape), *groups, *self.names]

    @property
    def names(self) -> list[str]:
        """The layers that come with it."""
        more = len(self.then) - _NAMES
        return [*(node.name for node in self.then[:_NAMES]), *([f"and {more:,} more"] if more > 0 else [])]

    @property
    def title(self) -> str:
        """What is shown when it is pointed at."""
        if self.kind == "input":
            return f"input {times(self.node.output_shape)}"
        costs = [f"{analysis.params(self.node):,} parameters", f"{self.node.macs:,} MACs"] if self.node.weights else []
        return ", ".join([f"{self.node.name}: {self.node.op.op} {attributes(self.node.op)}".strip(), *costs])


@dataclass(frozen=True)
class Scale:
    """Pixels for a row or column, a channel, and a value of a vector."""

    place: float
    channel: float
    value: float

    def size(self, block: Block) -> tuple[float, float, float]:
        """Return the width (channels), height (rows) and depth (columns) of a block."""
        shape = block.node.output_shape
        if len(shape) == 1:
            return 7.0, max(_THIN, shape[0] * self.value), 0.0
        channels, height, width = shape
        return max(_THIN, channels * self.channel), max(_THIN, height * self.place), max(_THIN, width * self.place)


def blocks(graph: Graph) -> list[Block]:
    """Return the blocks of a network in its order, ranked and in lanes: what runs side by side stands side by side."""
    of: dict[Node, Block] = {graph.input: Block(graph.input, [])}
    made = [of[graph.input]]
    reads = Counter(read for node in graph.nodes for read in set(node.inputs))
    for node in graph.nodes:
        (first, *more) = node.inputs
        unlike = node.output_shape != first.output_shape and not node.op.is_view
        if node.weights or more or unlike or node.op.op == "split" or reads[first] > 1:
            of[node] = Block(node, [of[read] for read in node.inputs])
            made.append(of[node])
        else:
            of[node] = of[first]
            of[first].then.append(node)
    readers = Counter(read for block in made for read in set(block.reads))
    tails: list[Block] = []  # of each lane, the last block
    for block in made:
        block.rank = 1 + max((read.rank for read in block.reads), default=-1)
        free = (
            lane
            for lane, tail in enumerate(tails)
            if tail in block.reads or (not readers[tail] and tail.rank < block.rank)
        )
        on = (lane for lane, tail in enumerate(tails) if tail in block.reads)
        block.lane = next(on, next(free, len(tails)))
        tails[block.lane : block.lane + 1] = [block]
        readers.subtract(set(block.reads))
    return made


@dataclass(frozen=True)
class Drawing:
    """Blocks in their places, and what joins them."""

    name: str
    blocks: list[Block]
    scale: Scale
    width: float
    height: float

    @cached_property
    def ranks(self) -> list[list[Block]]:
        """The blocks that stand above each other, from left to right."""
        found: list[list[Block]] = [[] for _ in range(self.blocks[-1].rank + 1)]
        for block in self.blocks:
            found[block.rank].append(block)
        return found

    @property
    def shapes(self) -> list[tuple[Block, list[str], list[str], list[str]]]:
        """Of each block, the polygons of its front, its top and its side, one for each of its groups."""
        return [(block, *_faces(block, self.scale)) for block in self.blocks]

    def extent(self, block: Block) -> float:
        """Return how wide a block is drawn."""
        return _extent(block, self.scale)[0]

    @property
    def arrows(self) -> list[str]:
        """The paths from block to block."""
        return [self._arrow(read, block) for block in self.blocks for read in dict.fromkeys(block.reads)]

    def _arrow(self, a: Block, b: Block) -> str:
        width, _, depth = self.scale.size(a)
        x, y, end, to = a.x + width + depth * _SLANT[0] + 3, a.y, b.x - 4, b.y
        between = [c for rank in range(a.rank + 1, b.rank) for c in self.ranks[rank] if min(y, to) <= c.y <= max(y, to)]
        if between:  # over what stands in the way
            top = min(c.y - _extent(c, self.scale)[1] / 2 for c in [*between, a, b]) - 10
            top = (top - (y + to) / 8) * 4 / 3  # a curve comes three quarters of the way to what it is drawn to
            return f"M{x:.1f} {y:.1f}C{x + 20:.1f} {top:.1f} {end - 30:.1f} {top:.1f} {end:.1f} {to:.1f}"
        if abs(y - to) < 1:
            return f"M{x:.1f} {y:.1f}L{end:.1f} {to:.1f}"
        half = (x + end) / 2
        return f"M{x:.1f} {y:.1f}C{half:.1f} {y:.1f} {half:.1f} {to:.1f} {end:.1f} {to:.1f}"


def draw(graph: Graph) -> Drawing | None:
    """Return the drawing of a network, from left to right; None for more blocks than make one."""
    made = blocks(graph)
    if len(made) > MAX_BLOCKS or sum(len(block.reads) for block in made) > MAX_ARROWS:
        return None
    maps = [block.node.output_shape for block in made if len(block.node.output_shape) == 3]
    vectors = [block.node.output_shape[0] for block in made if len(block.node.output_shape) == 1]
    scale = Scale(
        place=_TALLEST / max(max(shape[1:]) for shape in maps),
        channel=min(4.0, _WIDEST / max(shape[0] for shape in maps)),
        value=_TALLEST / max(vectors, default=1),
    )
    height = _rows(made, scale)
    x = _MARGIN
    for rank in range(made[-1].rank + 1):
        here = [block for block in made if block.rank == rank]
        room = max((max(_extent(block, scale)[0], _text(block)) for block in here), default=0.0)
        for block in here:
            block.x = x + (room - _extent(block, scale)[0]) / 2
        x += room + 22
    return Drawing(graph.name, made, scale, x - 22 + _MARGIN, height)


def _rows(made: list[Block], scale: Scale) -> float:
    """Put each block at its height: alone in the middle, side by side in lanes; return the height of all."""
    together = Counter(block.rank for block in made)
    alone = [block for block in made if together[block.rank] == 1]
    lanes = [
        [b for b in made if b.lane == lane and together[b.rank] > 1] for lane in range(max(b.lane for b in made) + 1)
    ]
    sizes = [_height(lane, scale) for lane in lanes]
    drawn, written = _height(alone, scale)
    whole = max(drawn + written, sum(map(sum, sizes))) + 2 * _MARGIN + 12
    top = (whole - sum(map(sum, sizes))) / 2
    for lane, (tall, words) in zip(lanes, sizes, strict=True):
        for block in lane:
            block.y, block.below = top + tall / 2, top + tall
        top += tall + words
    for block in alone:
        block.y = (whole - written) / 2
        block.below = block.y + drawn / 2
    return whole


def _height(found: list[Block], scale: Scale) -> tuple[float, float]:
    """Return the height of the tallest of some blocks, and of the most words below one."""
    tall = max((_extent(block, scale)[1] for block in found), default=0.0)
    return tall, max((len(block.words) * _LINE + 14 for block in found), default=0.0)


def _extent(block: Block, scale: Scale) -> tuple[float, float]:
    """Return how wide and how high a block is drawn."""
    width, height, depth = scale.size(block)
    return width + depth * _SLANT[0], height + depth * _SLANT[1]


def _text(block: Block) -> float:
    return max(map(len, block.words)) * _LETTER


def _faces(block: Block, scale: Scale) -> tuple[list[str], list[str], list[str]]:
    """Return the polygons of a block's front, top and side, one for each group, as SVG has their points."""
    width, height, depth = scale.size(block)
    back, up = depth * _SLANT[0], depth * _SLANT[1]
    slices = block.groups if block.groups <= _SLICES else 1
    bottom, top = block.y + (height + up) / 2, block.y - (height - up) / 2
    gap = 1.5 if slices > 1 else 0.0
    each = (width - gap * (slices - 1)) / slices
    front, roof, side = [], [], []
    for i in range(slices):
        left = block.x + i * (each + gap)
        right = left + each
        front.append(_points((left, top), (right, top), (right, bottom), (left, bottom)))
        if depth:
            roof.append(_points((left, top), (left + back, top - up), (right + back, top - up), (right, top)))
            side.append(_points((right, top), (right + back, top - up), (right + back, bottom - up), (right, bottom)))
    return front, roof, side[-1:] if gap < 1 else side


def _points(*points: tuple[float, float]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def svg(drawing: Drawing) -> str:
    """Return a drawing as SVG."""
    from archspec.emit.words import pages

    return pages().get_template("network.svg.jinja").render(d=drawing)


def png(drawing: Drawing) -> bytes:
    """Return the same drawing as PNG, on white, two pixels for one.

    Raises ImportError without resvg_py, and ValueError for more than MAX_PIXELS.
    """
    import resvg_py

    if 4 * drawing.width * drawing.height > MAX_PIXELS:
        raise ValueError(
            f"{2 * drawing.width:.0f} x {2 * drawing.height:.0f} pixels are too many for a PNG: draw an SVG"
        )
    return bytes(
        resvg_py.svg_to_bytes(svg_string=svg(drawing), zoom=2, background="#ffffff", font_family="DejaVu Sans")
    )
