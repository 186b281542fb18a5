"""A network as nodes that know their shapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

from archspec.inits import NO_INIT, Init
from archspec.ops import Input, Op, Shape, ShapeError
from archspec.ops.base import Weights
from archspec.source import Diagnostic, Loc, Source, SpecError
from archspec.spec import Spec, parse
from archspec.training import Normalize, PcaNoise, Training

MAX_VALUES = 2**53  # in one tensor: more than any machine holds, and still a number to read


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Node:
    """An op in its place: what it reads, and the shapes that follow."""

    op: Op | Input
    inputs: tuple[Node, ...]
    output_shape: Shape
    weights: Weights
    learns_before: bool = False  # whether a weight is before it, so that training needs the gradient of its input

    @property
    def name(self) -> str:
        """The layer's name; the network's input is called `input`."""
        return self.op.name

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """The shapes of what it reads, (C, H, W) or (F,) each."""
        return tuple(node.output_shape for node in self.inputs)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of weights with inputs for one sample, without bias adds."""
        return self.op.counts(*self.input_shapes).get("mac", 0) if self.weights else 0

    def __repr__(self) -> str:
        return f"Node({self.name}: {self.op.op} {self.output_shape})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Graph:
    """A network: its input, and its layers in an order in which each reads only what is before it.

    The last layer's output is the network's. `source` is the text it was read from; `unread` are the layers in it on
    which the output does not depend: no part of the network.
    """

    spec: Spec
    source: Source
    input: Node
    nodes: tuple[Node, ...]
    unread: tuple[Node, ...] = ()

    @property
    def name(self) -> str:
        """The spec's name."""
        return self.spec.name

    @property
    def output(self) -> Node:
        """The layer whose output is the network's."""
        return self.nodes[-1]

    def init(self, node: Node) -> Init:
        """Return the rules that hold for a layer: its own, or the spec's."""
        return getattr(node.op, "init", NO_INIT).over(self.spec.init)

    def loc(self, node: Node) -> Loc:
        """Return where in the source a layer stands."""
        return "layers", next(i for i, op in enumerate(self.spec.layers) if op.name == node.name)


def load(path: Path | str) -> Graph:
    """Return the network that the spec at `path` describes.

    Raises SpecError for the spec's faults, all of wording at once, of shape the first; OSError for an unreadable file.
    """
    return build(Source.read(path))


def build(source: Source) -> Graph:
    """Return the network that `source` describes; raise SpecError as `load` does."""
    spec = parse(source)
    first = Node(spec.input, (), spec.input.output_shape(), {})
    made = {"input": first}
    last = first
    nodes = []
    for i, op in enumerate(spec.layers):
        names = op.from_ or (last.name,)
        inputs = tuple(made[name] for name in names)
        last = made[op.name] = _node(op, inputs, source, i)
        nodes.append(last)
    read = {last}
    for node in reversed(nodes):
        if node in read:
            read.update(node.inputs)
    unread = tuple(node for node in nodes if node not in read)
    nodes = [node for node in nodes if node in read] if unread else nodes
    if spec.training and not any(node.weights for node in nodes):
        raise SpecError([source.error("nothing-to-train", "no layer of this network learns", ("training",), key=True)])
    if spec.training and (faults := list(_images(spec.training, spec.input, source))):
        raise SpecError(faults)
    return Graph(spec, source, first, tuple(nodes), unread)


IMAGES = ("preprocessing", "augmentation", "evaluation")  # what a recipe does to images: all, of training, the others


def _images(recipe: Training, given: Input, source: Source) -> Iterator[Diagnostic]:
    """Yield what in a recipe does not make the images that the network reads."""

    parts = [(section, i, part) for section in IMAGES for i, part in enumerate(getattr(recipe, section))]
    crop = any(part.transform.endswith("crop") for _, _, part in parts)
    told = set()
    paths = IMAGES[1:] if recipe.evaluation else IMAGES[1:2]  # without one, evaluation crops as training does
    for path in paths if crop else ():
        sized = [at for at in parts if at[0] in (IMAGES[0], path) and hasattr(at[2], "size")]
        if not any(part.transform.endswith("crop") for _, _, part in sized):
            whose = "training" if path == "augmentation" else "evaluation"
            section_loc = ("training", path) if getattr(recipe, path) else ("training",)
            yield source.error("images", f"nothing crops the images of {whose}, which may be of any size", section_loc)
        elif {sized[-1][2].size} != {given.height, given.width} and sized[-1][:2] not in told:
            section, i, part = sized[-1]
            told.add((section, i))
            message = f"gives images of {part.size} x {part.size}, and the network reads {given.height} x {given.width}"
            yield source.error("images", message, ("training", section, i))
    for section, i, part in parts:
        where = ("training", section, i)
        if isinstance(part, Normalize) and {len(part.mean), len(part.std)} != {given.channels}:
            message = f"normalize needs a mean and a std for each of the {given.channels} channels"
            yield source.error("images", message, where)
        if isinstance(part, Normalize) and 0 in part.std:
            yield source.error("images", "normalize divides by std, which is 0", where)
        if isinstance(part, PcaNoise) and given.channels != 3:
            message = f"pca_noise is of three colours, and the network reads {given.channels}"
            yield source.error("images", message, where)
        if part.transform == "ten_crop" and i + 1 < len(recipe.evaluation):
            yield source.error("images", "ten_crop comes last: it makes ten images of one", where)


def altered(graph: Graph, node: Node, op: Op | None) -> Graph | None:
    """Return the network with another op in a node's place, or with the node left out; None if that is no network."""
    if op is None and (len(node.inputs) != 1 or node.output_shape != node.inputs[0].output_shape):
        return None
    made = {graph.input: graph.input}
    nodes = []
    for old in graph.nodes:
        inputs = tuple(made[read] for read in old.inputs)
        if old is node and op is None:
            made[old] = inputs[0]
            continue
        new = op if old is node and op else old.op
        assert not isinstance(new, Input)
        try:
            made[old] = place(new, inputs)
        except ShapeError:
            return None
        nodes.append(made[old])
    if not nodes or nodes[-1] is not made[graph.output]:
        return None
    return Graph(graph.spec, graph.source, graph.input, tuple(nodes))


def place(op: Op, inputs: tuple[Node, ...]) -> Node:
    """Return an op in its place; raise ShapeError where what it reads does not fit it."""
    shapes = tuple(node.output_shape for node in inputs)
    shape = op.output_shape(*shapes)
    weights = op.weights(*shapes)
    if max(map(prod, (shape, *weights.values()))) > MAX_VALUES:
        raise ShapeError("too-large", f"gives or learns more than {MAX_VALUES:,} values")
    return Node(op, inputs, shape, weights, any(node.learns_before or node.weights for node in inputs))


def _node(op: Op, inputs: tuple[Node, ...], source: Source, i: int) -> Node:
    least, most = op.inputs
    if not least <= len(inputs) <= most:
        count = f"{least} layers or more" if most > least else "one layer"
        hint = ": name them in from: [...]" if len(inputs) < least else ""
        message = f"{op.name}: {op.op} reads {count}, not {len(inputs)}{hint}"
        raise SpecError([source.error("inputs", message, ("layers", i, "from" if op.from_ else "op"))])
    try:
        return place(op, inputs)
    except ShapeError as fault:
        field = fault.field if fault.field and fault.field in source.data["layers"][i] else "op"
        raise SpecError([source.error(fault.code, f"{op.name}: {fault}", ("layers", i, field))]) from None
