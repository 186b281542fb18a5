"""A drawing of a network: boxes to scale for the layers, their positions, and the SVG and PNG."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

from archspec import analysis
from archspec.graph import Graph, Node
from archspec.graph.folding import Group, folded
from archspec.language.ops.base import channels_of, format_shape
from archspec.report.facts import attributes

MAX_BOXES = 400  # a larger drawing cannot be read
MAX_ARROWS = 2000
MAX_PIXELS = 60_000_000  # of a PNG
_TALLEST, _WIDEST = 150.0, 72.0  # the largest map and the most channels, in px; every map is drawn to both scales
_THIN = 2.5  # the least width or height, so that a single channel is visible
_SLANT = 0.32, 0.2  # the oblique projection: px to the right and up for each px of depth
_LINE = 13.0  # the height of a line of text
_LETTER = 6.1  # the mean width of a character of 11 px
_MARGIN = 14.0
_SLICES = 16  # more groups are drawn as one box
_NAMES = 6  # more layers below a box are counted, not named


@dataclass(eq=False)
class Box:
    """A layer that changes the shape, has weights or merges, and the layers after it that do not; positions in px."""

    node: Node  # of a group, the layer whose output is its own
    reads: list[Box]
    group: Group | None = None  # a block that is not unfolded
    then: list[Node] = field(default_factory=list)
    rank: int = 0
    lane: int = 0
    x: float = 0.0
    y: float = 0.0  # of its center
    below: float = 0.0  # the top of its text

    @property
    def kind(self) -> str:
        """The CSS class: input, conv, linear, pool, merge or other."""
        op = self.node.op.op
        if op == "input":
            return op
        if self.group:
            return "block"
        if self.node.kernel:
            return "conv" if len(self.node.output_shape) == 3 else "linear"
        if getattr(self.node.op, "pools", False):
            return "pool"
        return "merge" if len(self.reads) > 1 or getattr(self.node.op, "combines", False) else "other"

    @property
    def groups(self) -> int:
        """The number of groups of channels, each drawn as a box of its own."""
        return 1 if self.group else int(getattr(self.node.op, "groups", 1))

    @property
    def words(self) -> list[str]:
        """The lines of text below the box: name, shape, groups and the layers that follow."""
        groups = [f"groups {self.groups}"] if self.groups > 1 else []
        name = [self.group.name, self.group.op] if self.group else [self.node.name]
        return [*name, format_shape(self.node.output_shape), *groups, *self.names]

    @property
    def names(self) -> list[str]:
        """The names of the layers that follow."""
        more = len(self.then) - _NAMES
        return [*(node.name for node in self.then[:_NAMES]), *([f"and {more:,} more"] if more > 0 else [])]

    @property
    def title(self) -> str:
        """The tooltip."""
        if self.kind == "input":
            return f"input {format_shape(self.node.output_shape)}"
        if self.group:
            params, macs = sum(map(analysis.params, self.group.nodes)), sum(node.macs for node in self.group.nodes)
            head = f"{self.group.name}: {self.group.op} {self.group.attributes}".strip()
            return f"{head}, {params:,} parameters, {macs:,} MACs"
        costs = (
            [f"{analysis.params(self.node):,} parameters", f"{self.node.macs:,} MACs"] if self.node.trainable else []
        )
        return ", ".join([f"{self.node.name}: {self.node.op.op} {attributes(self.node.op)}".strip(), *costs])


@dataclass(frozen=True)
class Scale:
    """Pixels per row or column of a map, per channel, and per value of a vector."""

    place: float
    channel: float
    value: float

    def size(self, box: Box) -> tuple[float, float, float]:
        """Return the width (channels), height (rows) and depth (columns) of a box."""
        shape = box.node.output_shape
        if len(shape) == 1:
            return 7.0, max(_THIN, shape[0] * self.value), 0.0
        if len(shape) == 2:  # a column of tokens, as wide as their features
            return max(_THIN, shape[1] * self.channel), max(_THIN, shape[0] * self.value), 0.0
        channels, height, width = shape
        return max(_THIN, channels * self.channel), max(_THIN, height * self.place), max(_THIN, width * self.place)


def boxes(graph: Graph, depth: int = 0) -> list[Box]:
    """Return the boxes of a network in its order, with rank (column) and lane (row): parallel branches get lanes.

    A row of the text that uses a block is one box, unless `depth` unfolds it.
    """
    made = _unplaced(graph, depth)
    _place(made)
    return made


def _unplaced(graph: Graph, depth: int) -> list[Box]:
    """Return the boxes of a network without rank and lane."""
    of: dict[Node, Box] = {graph.input: Box(graph.input, [])}
    made = [of[graph.input]]
    items = folded(graph, depth)
    reads = Counter(read for item in items for read in set(item.inputs))
    for item in items:
        if isinstance(item, Group):
            box = Box(item.output, [of[read] for read in item.inputs], item)
            of.update(dict.fromkeys(item.nodes, box))
            made.append(box)
            continue
        node = item
        (first, *more) = node.inputs
        unlike = node.output_shape != first.output_shape and not node.op.is_view
        if node.kernel or more or unlike or reads[first] > 1:
            of[node] = Box(node, [of[read] for read in node.inputs])
            made.append(of[node])
        else:
            of[node] = of[first]
            of[first].then.append(node)
    return made


def _place(made: list[Box]) -> None:
    """Set the rank and lane of each box."""
    readers = Counter(read for box in made for read in set(box.reads))
    tails: list[Box] = []  # the last box of each lane
    for box in made:
        box.rank = 1 + max((read.rank for read in box.reads), default=-1)
        free = (
            lane for lane, tail in enumerate(tails) if tail in box.reads or (not readers[tail] and tail.rank < box.rank)
        )
        on = (lane for lane, tail in enumerate(tails) if tail in box.reads)
        box.lane = next(on, next(free, len(tails)))
        tails[box.lane : box.lane + 1] = [box]
        readers.subtract(set(box.reads))


@dataclass(frozen=True)
class Drawing:
    """Boxes with positions, and the arrows between them."""

    name: str
    boxes: list[Box]
    scale: Scale
    width: float
    height: float

    @cached_property
    def ranks(self) -> list[list[Box]]:
        """The boxes of each column, from left to right."""
        found: list[list[Box]] = [[] for _ in range(self.boxes[-1].rank + 1)]
        for box in self.boxes:
            found[box.rank].append(box)
        return found

    @property
    def shapes(self) -> list[tuple[Box, list[str], list[str], list[str]]]:
        """Each box with the polygons of its front, top and side, one per group."""
        return [(box, *_faces(box, self.scale)) for box in self.boxes]

    @property
    def has_blocks(self) -> bool:
        """Whether any box is a block that is not unfolded."""
        return any(box.group for box in self.boxes)

    def extent(self, box: Box) -> float:
        """Return the width of a box, its depth included."""
        return _extent(box, self.scale)[0]

    @property
    def arrows(self) -> list[str]:
        """The SVG paths of the arrows."""
        return [self._arrow(read, box) for box in self.boxes for read in dict.fromkeys(box.reads)]

    def _arrow(self, a: Box, b: Box) -> str:
        width, _, depth = self.scale.size(a)
        x, y, end, to = a.x + width + depth * _SLANT[0] + 3, a.y, b.x - 4, b.y
        between = [c for rank in range(a.rank + 1, b.rank) for c in self.ranks[rank] if min(y, to) <= c.y <= max(y, to)]
        if between:  # arch over the boxes in between
            top = min(c.y - _extent(c, self.scale)[1] / 2 for c in [*between, a, b]) - 10
            top = (top - (y + to) / 8) * 4 / 3  # a Bezier curve reaches three quarters of its control points
            return f"M{x:.1f} {y:.1f}C{x + 20:.1f} {top:.1f} {end - 30:.1f} {top:.1f} {end:.1f} {to:.1f}"
        if abs(y - to) < 1:
            return f"M{x:.1f} {y:.1f}L{end:.1f} {to:.1f}"
        half = (x + end) / 2
        return f"M{x:.1f} {y:.1f}C{half:.1f} {y:.1f} {half:.1f} {to:.1f} {end:.1f} {to:.1f}"


def draw(graph: Graph, depth: int = 0) -> Drawing | None:
    """Return the drawing of a network, from left to right; None above MAX_BOXES boxes or MAX_ARROWS arrows."""
    made = _unplaced(graph, depth)
    if len(made) > MAX_BOXES or sum(len(box.reads) for box in made) > MAX_ARROWS:
        return None
    _place(made)
    maps = [box.node.output_shape for box in made if len(box.node.output_shape) == 3]
    vectors = [box.node.output_shape[0] for box in made if len(box.node.output_shape) < 3]  # or tokens
    scale = Scale(
        place=_TALLEST / max((max(shape[1:]) for shape in maps), default=1),
        channel=min(
            4.0,
            _WIDEST
            / max((channels_of(box.node.output_shape) for box in made if len(box.node.output_shape) > 1), default=1),
        ),
        value=_TALLEST / max(vectors, default=1),
    )
    height = _rows(made, scale)
    x = _MARGIN
    for rank in range(made[-1].rank + 1):
        here = [box for box in made if box.rank == rank]
        room = max((max(_extent(box, scale)[0], _text(box)) for box in here), default=0.0)
        for box in here:
            box.x = x + (room - _extent(box, scale)[0]) / 2
        x += room + 22
    return Drawing(graph.name, made, scale, x - 22 + _MARGIN, height)


def _rows(made: list[Box], scale: Scale) -> float:
    """Set each box's y: a column's only box in the middle, others in lanes; return the height of the drawing."""
    together = Counter(box.rank for box in made)
    alone = [box for box in made if together[box.rank] == 1]
    lanes = [
        [b for b in made if b.lane == lane and together[b.rank] > 1] for lane in range(max(b.lane for b in made) + 1)
    ]
    sizes = [_height(lane, scale) for lane in lanes]
    drawn, written = _height(alone, scale)
    whole = max(drawn + written, sum(map(sum, sizes))) + 2 * _MARGIN + 12
    top = (whole - sum(map(sum, sizes))) / 2
    for lane, (tall, words) in zip(lanes, sizes, strict=True):
        for box in lane:
            box.y, box.below = top + tall / 2, top + tall
        top += tall + words
    for box in alone:
        box.y = (whole - written) / 2
        box.below = box.y + drawn / 2
    return whole


def _height(found: list[Box], scale: Scale) -> tuple[float, float]:
    """Return the height of the tallest of some boxes, and of the longest text below one."""
    tall = max((_extent(box, scale)[1] for box in found), default=0.0)
    return tall, max((len(box.words) * _LINE + 14 for box in found), default=0.0)


def _extent(box: Box, scale: Scale) -> tuple[float, float]:
    """Return the width and height of a box, its depth included."""
    width, height, depth = scale.size(box)
    return width + depth * _SLANT[0], height + depth * _SLANT[1]


def _text(box: Box) -> float:
    return max(map(len, box.words)) * _LETTER


def _faces(box: Box, scale: Scale) -> tuple[list[str], list[str], list[str]]:
    """Return the polygons of a box's front, top and side, one per group, as values of SVG's `points`."""
    width, height, depth = scale.size(box)
    back, up = depth * _SLANT[0], depth * _SLANT[1]
    slices = box.groups if box.groups <= _SLICES else 1
    bottom, top = box.y + (height + up) / 2, box.y - (height - up) / 2
    gap = 1.5 if slices > 1 else 0.0
    each = (width - gap * (slices - 1)) / slices
    front, roof, side = [], [], []
    for i in range(slices):
        left = box.x + i * (each + gap)
        right = left + each
        front.append(_points((left, top), (right, top), (right, bottom), (left, bottom)))
        if depth:
            roof.append(_points((left, top), (left + back, top - up), (right + back, top - up), (right, top)))
            side.append(_points((right, top), (right + back, top - up), (right + back, bottom - up), (right, bottom)))
    return front, roof, side[-1:] if gap < 1 else side


def _points(*points: tuple[float, float]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def svg(drawing: Drawing, *, styled: bool = True) -> str:
    """Return a drawing as SVG; one that is not `styled` is for a page with the rules of `css`."""
    from archspec.targets.render import html_environment

    return html_environment().get_template("html/network.svg.jinja").render(d=drawing, styled=styled)


def css() -> str:
    """Return the CSS rules of all drawings."""
    from archspec.targets.render import html_environment

    return html_environment().get_template("html/network.css.jinja").render(d={"has_blocks": True})


def png(drawing: Drawing) -> bytes:
    """Return a drawing as PNG on a white background, at twice its size.

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
