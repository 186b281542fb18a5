"""The graph of a network: nodes with inferred shapes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from archspec.language.blocks import Block, Row, Use
from archspec.language.initializers import (
    NO_INIT,
    NO_NORM_INIT,
    BiasRule,
    Distribution,
    Init,
    Ones,
    Rule,
    TorchDefault,
    Zeros,
)
from archspec.language.ops import Input, Op, Param, Shape, ShapeError
from archspec.language.source import Loc, Source
from archspec.language.spec import Spec

MAX_ELEMENTS = 2**53  # of one tensor: more than any machine holds, and exact as a float64


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Node:
    """An op with its inputs and the shapes and parameters that follow from them.

    `name` is its path, e.g. `layer2.0.conv1`, or `input` for the network's input; `loc` is its row in the source.
    """

    op: Op | Input
    inputs: tuple[Node, ...]
    output_shape: Shape
    params: dict[str, Param]
    name: str
    loc: Loc
    needs_input_grad: bool = False  # whether training needs the gradient with respect to its input
    use: Use | None = None  # its row, with the expressions of its attributes

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """The shapes of its inputs, (C, H, W), (L, D) or (F,) each."""
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
        """Multiply-accumulates for one sample, without bias adds: of weights with inputs, and in attention."""
        if isinstance(self.op, Input):
            return 0
        counts = self.op.counts(*self.input_shapes)
        return counts.get("mac", 0) + counts.get("matmul", 0)

    def __repr__(self) -> str:
        return f"Node({self.name}: {self.op.op} {self.output_shape})"


@dataclass(frozen=True, eq=False, repr=False)
class Member:
    """A row of the network or of a block in one instance: a layer or a block, several where it is repeated.

    `reads` are the names of the rows that it reads. It has no `items` where its `when` is false: `output` is then that
    of what it reads first.
    """

    row: Row
    reads: tuple[str, ...]
    items: tuple[Item, ...]
    output: Node


@dataclass(frozen=True, eq=False, repr=False)
class Instance:
    """A block with values for its attributes, or the network itself, whose `block` is None."""

    path: str  # e.g. `layer2.0`
    block: Block | None
    values: Mapping[str, Any]  # of the block's attributes, and `in_channels`
    inputs: tuple[Node, ...]
    members: tuple[Member, ...]
    output: Node


Item = Node | Instance


def output_of(item: Item) -> Node:
    """Return the layer whose output is that of a layer, or of an instance of a block."""
    return item if isinstance(item, Node) else item.output


def nodes_of(items: Iterable[Item]) -> Iterator[Node]:
    """Yield layers, and those in instances of blocks, in their order."""
    for item in items:
        if isinstance(item, Node):
            yield item
        else:
            for member in item.members:
                yield from nodes_of(member.items)


@dataclass(frozen=True, eq=False, repr=False)
class Graph:
    """A network: its input, and its layers in topological order; the last layer's output is the network's.

    `source` is the text of the spec; `unused` are the layers in it on which the output does not depend: they are not
    part of the network. `root` has the layers by the rows of the text.
    """

    spec: Spec
    source: Source
    input: Node
    nodes: tuple[Node, ...]
    unused: tuple[Node, ...] = ()
    root: Instance | None = None

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

    def initializer(self, node: Node, name: str) -> Rule | BiasRule:
        """Return the initializer of a parameter by its name, e.g. `weight`.

        Kernels and biases: the layer's own, or the spec's, or PyTorch's. A norm's scale and shift: its own, or 1 and 0.
        An embedding: its own, or 0.
        """
        role = node.params[name].role
        if role not in ("kernel", "bias"):
            own = getattr(node.op, "init", NO_NORM_INIT)
            rule = getattr(own, name, None) or (isinstance(node.op, Op) and node.op.torch_default(name))
            return rule or (Ones() if role == "scale" else Zeros())
        init: Init = getattr(node.op, "init", NO_INIT).over(self.spec.init)
        rule = init.weight if role == "kernel" else init.bias
        assert rule is not None
        if isinstance(rule, TorchDefault) and not isinstance(node.op, Input):
            return node.op.torch_default(name) or rule
        return rule

    def distribution(self, node: Node, name: str) -> Distribution:
        """Return the distribution of a parameter before training."""
        param = node.params[name]
        kernel = param if param.role == "kernel" else node.kernel
        shape = kernel.shape if kernel else (1, 1)  # a norm's rules depend on no fan
        return self.initializer(node, name).distribution(shape)

    @cached_property
    def named(self) -> dict[str, list[Node]]:
        """The layers by name, unused ones too; a block's name, such as `layer2.0`, is that of all layers in it."""
        found: dict[str, list[Node]] = {}
        for node in (*self.nodes, *self.unused):
            found.setdefault(node.name, []).append(node)
            for i, c in enumerate(node.name):
                if c == ".":
                    found.setdefault(node.name[:i], []).append(node)
        return found

    @property
    def batch_dependent(self) -> list[Node]:
        """The layers in which, in training, a sample's output depends on the others of its batch."""
        return [node for node in self.nodes if getattr(node.op, "depends_on_batch", False)]

    def readers(self) -> dict[Node, list[Node]]:
        """Return, for the input and every layer, the layers that have it as an input."""
        found: dict[Node, list[Node]] = {node: [] for node in (self.input, *self.nodes)}
        for node in self.nodes:
            for read in dict.fromkeys(node.inputs):
                found[read].append(node)
        return found

    def __repr__(self) -> str:
        return f"<Graph {self.name}: {len(self.nodes)} layers, {self.input.output_shape} to {self.output.output_shape}>"


def make_node(op: Op, inputs: tuple[Node, ...], name: str, loc: Loc, use: Use | None = None) -> Node:
    """Return the node of an op; raise ShapeError if the op does not accept the shapes of `inputs`."""
    shapes = tuple(node.output_shape for node in inputs)
    shape = op.output_shape(*shapes)
    params = op.params(*shapes)
    if prod(shape) > MAX_ELEMENTS or any(prod(param.shape) > MAX_ELEMENTS for param in params.values()):
        raise ShapeError("too-large", f"has a tensor of more than {MAX_ELEMENTS:,} elements")
    needs_input_grad = any(node.needs_input_grad or node.trainable for node in inputs)
    return Node(op, inputs, shape, params, name, loc, needs_input_grad, use)
