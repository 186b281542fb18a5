"""The graph of a network: nodes with inferred shapes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from archspec.language.initializers import NO_INIT, BiasRule, Init, Rule
from archspec.language.ops import Input, Op, Param, Shape, ShapeError
from archspec.language.source import Loc, Source
from archspec.language.spec import Spec

MAX_ELEMENTS = 2**53  # of one tensor: more than any machine holds, and exact as a float64


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Node:
    """An op with its inputs and the shapes and parameters that follow from them."""

    op: Op | Input
    inputs: tuple[Node, ...]
    output_shape: Shape
    params: dict[str, Param]
    needs_input_grad: bool = False  # whether training needs the gradient with respect to its input

    @property
    def name(self) -> str:
        """The layer's name; `input` for the network's input."""
        return self.op.name

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """The shapes of its inputs, (C, H, W) or (F,) each."""
        return tuple(node.output_shape for node in self.inputs)

    @property
    def trainable(self) -> dict[str, Shape]:
        """The shapes of its trainable parameters, by name."""
        return {name: param.shape for name, param in self.params.items() if param.trainable} if self.params else {}

    @property
    def kernel(self) -> Param | None:
        """The parameter that multiplies its input, or None."""
        for param in self.params.values():
            if param.role == "kernel":
                return param
        return None

    @property
    def macs(self) -> int:
        """Multiply-accumulates of weights with inputs for one sample, without bias adds."""
        if not self.params or isinstance(self.op, Input):
            return 0
        return self.op.counts(*self.input_shapes).get("mac", 0)

    def __repr__(self) -> str:
        return f"Node({self.name}: {self.op.op} {self.output_shape})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Graph:
    """A network: its input, and its layers in topological order; the last layer's output is the network's.

    `source` is the text of the spec; `unused` are the layers in it on which the output does not depend: they are not
    part of the network.
    """

    spec: Spec
    source: Source
    input: Node
    nodes: tuple[Node, ...]
    unused: tuple[Node, ...] = ()

    @property
    def name(self) -> str:
        """The spec's name."""
        return self.spec.name

    @property
    def output(self) -> Node:
        """The layer whose output is the network's."""
        return self.nodes[-1]

    @property
    def trainable(self) -> bool:
        """Whether any layer has trainable parameters."""
        return any(node.trainable for node in self.nodes)

    def init(self, node: Node) -> Init:
        """Return the initializers of a layer: its own, or the spec's, or PyTorch's."""
        return getattr(node.op, "init", NO_INIT).over(self.spec.init)

    def initializer(self, node: Node, name: str) -> Rule | BiasRule:
        """Return the initializer of a kernel or bias by its name, e.g. `weight`."""
        init = self.init(node)
        rule = init.weight if node.params[name].role == "kernel" else init.bias
        assert rule is not None
        return rule

    def loc(self, node: Node) -> Loc:
        """Return the location of a layer in the source."""
        return "layers", next(i for i, op in enumerate(self.spec.layers) if op.name == node.name)

    def readers(self) -> dict[Node, list[Node]]:
        """Return, for the input and every layer, the layers that have it as an input."""
        found: dict[Node, list[Node]] = {node: [] for node in (self.input, *self.nodes)}
        for node in self.nodes:
            for read in dict.fromkeys(node.inputs):
                found[read].append(node)
        return found

    def __repr__(self) -> str:
        return f"<Graph {self.name}: {len(self.nodes)} layers, {self.input.output_shape} to {self.output.output_shape}>"


def make_node(op: Op, inputs: tuple[Node, ...]) -> Node:
    """Return the node of an op; raise ShapeError if the op does not accept the shapes of `inputs`."""
    shapes = tuple(node.output_shape for node in inputs)
    shape = op.output_shape(*shapes)
    params = op.params(*shapes)
    if prod(shape) > MAX_ELEMENTS or any(prod(param.shape) > MAX_ELEMENTS for param in params.values()):
        raise ShapeError("too-large", f"has a tensor of more than {MAX_ELEMENTS:,} elements")
    needs_input_grad = any(node.needs_input_grad or node.trainable for node in inputs)
    return Node(op, inputs, shape, params, needs_input_grad)
