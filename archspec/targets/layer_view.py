"""A layer as the op templates read it: one row of the text, in all instances that share its code."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from archspec.graph import Instance, Node
from archspec.language.expressions import Expression
from archspec.language.initializers import BiasRule, Rule, fans
from archspec.language.ops import Shape
from archspec.language.ops.base import channels_of
from archspec.targets.literals import Code
from archspec.targets.symbols import NotPolynomialError, Poly, from_expression
from archspec.targets.windows import Window

if TYPE_CHECKING:
    from archspec.targets.bodies import Body, RowView
    from archspec.targets.view import ModelView


class SplitError(Exception):
    """Instances of a block that cannot share their code: `values` has what they differ in, one each of `instances`."""

    def __init__(self, values: list[Any], instances: list[Instance]) -> None:
        super().__init__()
        self.values, self.instances = values, instances


def uniform(values: list[Any], instances: list[Instance]) -> Any:
    """Return the value that all instances have; raise SplitError if they differ."""
    if any(value != values[0] for value in values):
        raise SplitError(values, instances)
    return values[0]


def said(value: Any, found: Mapping[tuple[str | int, ...], Expression]) -> Any:
    """Return an attribute's value as written, with the expressions in it as source text."""
    if () in found:
        return Code(found[()].text)
    if isinstance(value, list):
        return tuple(
            said(item, {place[1:]: e for place, e in found.items() if place[0] == i}) for i, item in enumerate(value)
        )
    return value


def _prefixed(value: Any, prefix: str) -> Any:
    """Return an attribute's value with `prefix` before the names in its source text."""
    if isinstance(value, tuple):
        return tuple(_prefixed(item, prefix) for item in value)
    return (
        Code(re.sub(r"(?<![\w.])(?!and\b|or\b|not\b)([A-Za-z_])", rf"{prefix}\1", value))
        if isinstance(value, Code)
        else value
    )


class OpView:
    """The attributes of an op: values or, where a block's row has an expression, source text."""

    def __init__(self, layer: LayerView, prefix: str = "") -> None:
        """`prefix` is put before the names of attributes in source text, e.g. `self.`."""
        self._layer = layer
        self._prefix = prefix

    def __getattr__(self, name: str) -> Any:
        layer = self._layer
        field = self._field(name)
        expressions = layer.expressions.get(field)
        if expressions and field != "init":
            value = said(layer.node.use.values[field], expressions)  # type: ignore[union-attr]
            return _prefixed(value, self._prefix) if self._prefix else value
        return layer.every(lambda node: getattr(node.op, name))

    def _field(self, name: str) -> str:
        """Return the attribute of the text that a value is of: a window without a stride moves by its own size."""
        if name != "strides":
            return name
        return "stride" if getattr(self._layer.node.op, "stride", None) is not None else "kernel_size"


class LayerView:
    """A row as a target's op templates read it. `node` is one of its `nodes`, which are alike in all that matters."""

    def __init__(self, row: RowView, nodes: list[Node], number: int | None = None) -> None:
        """`number` is that of a layer that is repeated."""
        self.row, self.nodes, self.number = row, nodes, number
        self.node = nodes[0]

    @property
    def model(self) -> ModelView:
        return self.body.model

    @property
    def body(self) -> Body:
        """The class or function that it is in."""
        return self.row.body

    @property
    def expressions(self) -> Mapping[str, Mapping[tuple[str | int, ...], Expression]]:
        """The expressions of its attributes; none in the network's own rows."""
        if not self.node.use or not self.body.block:
            return {}
        values = self.node.use.values
        return {key: e for key, e in self.node.use.expressions.items() if not isinstance(values[key], dict)}

    @property
    def name(self) -> str | Code:
        """Its name in the code: a string."""
        return self.row.name_in_code(self.number)

    @property
    def attribute(self) -> str:
        """Its name as an attribute of the class."""
        return self.row.name

    @property
    def op(self) -> Any:
        return OpView(self)

    def is_pair(self, field: str) -> bool:
        """Return whether an attribute whose text is the name of a block's attribute is a pair there."""
        name = self.expressions[field][()].text if () in self.expressions.get(field, {}) else ""
        values = [isinstance(instance.values.get(name), tuple) for instance in self.row.instances]
        return bool(uniform(values, self.row.instances))

    def pair(self, field: str) -> Any:
        """Return an attribute that is a pair, (height, width), where the text may have one number for both."""
        value = getattr(self.op, field)
        if not isinstance(value, Code):
            return value
        return value if self.is_pair(self.op._field(field)) else (value, value)

    def every(self, value: Callable[[Node], Any]) -> Any:
        """Return what is the same for all its nodes; raise SplitError if it is not."""
        return uniform([value(node) for node in self.nodes], self.row.instances)

    @property
    def shape(self) -> Shape:
        """The shape of its first input."""
        shape: Shape = self.every(lambda node: node.input_shapes[0])
        return shape

    @property
    def rank(self) -> int:
        """The number of axes of its first input, without the batch."""
        rank: int = self.every(lambda node: len(node.input_shapes[0]))
        return rank

    @property
    def reads_maps(self) -> bool:
        """Whether its first input is feature maps."""
        return self.rank == 3

    @property
    def reads_tokens(self) -> bool:
        """Whether its first input is tokens."""
        return self.rank == 2

    @property
    def length(self) -> int:
        """The number of tokens that it reads."""
        length: int = self.every(lambda node: node.input_shapes[0][0])
        return length

    @property
    def channel_axis(self) -> int:
        """The axis of its first input's channels or features in PyTorch and NumPy."""
        return 2 if self.reads_tokens else 1

    @property
    def in_channels(self) -> int | Code:
        """The channels or features of its first input."""
        channels = self.row.input_channels(0, self.number)
        number = channels.number
        return Code(channels) if number is None else number

    @property
    def out(self) -> int | Code:
        """Its output channels or features; `num_classes` for the classifier."""
        if self.node is self.model.classifier:
            return Code("num_classes")
        field = "out_channels" if hasattr(self.node.op, "out_channels") else "out_features"
        if field in self.expressions:
            return Code(self.expressions[field][()].text)
        out: int = self.every(lambda node: channels_of(node.output_shape))
        return out

    @property
    def output_text(self) -> str:
        """Its output shape as text, for a comment; empty where instances differ."""
        shapes = [node.output_shape for node in self.nodes]
        if any(shape != shapes[0] for shape in shapes):
            return ""
        from archspec.targets.view import shape_text

        classifier = self.model.classifier
        is_classes = classifier is not None and self.node in (classifier, self.model.graph.output)
        return shape_text(shapes[0], self.model.channels_last, "num_classes" if is_classes else None)

    @property
    def comment(self) -> str:
        """Its output shape as a comment, or an empty string."""
        return f"  # {text}" if (text := self.output_text) else ""

    @property
    def flattened(self) -> Shape | None:
        """The (C, H, W) of the maps in its vector, if they are flattened: see `flattened_maps`."""
        shape: Shape | None = self.every(self.model.flattened.get)
        return shape

    @property
    def in_features(self) -> int | Code:
        """The input features of a linear layer, as the product C * H * W where maps were flattened."""
        if self.flattened and self.flattened[1:] != (1, 1):
            return Code(" * ".join(map(str, self.flattened)))
        return self.in_channels

    @property
    def kernel_shape(self) -> Shape:
        """The shape of its kernel, in PyTorch's layout."""
        assert self.node.kernel
        return self.node.kernel.shape

    @property
    def fan_in(self) -> Code:
        """The fan-in of its kernel."""
        sizes = [fans(node.kernel.shape)[0] for node in self.nodes if node.kernel]
        if all(size == sizes[0] for size in sizes):
            return Code(str(sizes[0]))
        field = self.kernel_shape[2:]
        channels = self.row.input_channels(0, self.number)
        groups = self.expressions.get("groups")
        try:
            divisor = (
                from_expression(groups[()]) if groups else Poly.of(self.every(lambda n: getattr(n.op, "groups", 1)))
            )
        except NotPolynomialError:
            raise SplitError(sizes, self.row.instances) from None
        product = channels // divisor
        for size in field:
            product = product * size
        if [product.evaluate(instance.values) for instance in self.row.instances] != sizes:
            raise SplitError(sizes, self.row.instances)
        return Code(f"({product})")

    @cached_property
    def initializers(self) -> dict[str, Rule | BiasRule]:
        """The initializers of its parameters, by name."""
        graph = self.model.graph
        return {
            name: uniform([graph.initializer(node, name) for node in self.nodes], self.row.instances)
            for name in self.node.trainable
        }

    @cached_property
    def window(self) -> Window | None:
        """Its sliding window, or None."""
        return Window(self) if getattr(self.node.op, "windowed", False) else None

    @property
    def dilated(self) -> bool:
        """Whether its windows have gaps."""
        return bool(self.window and self.every(lambda node: max(getattr(node.op, "dilation", (1, 1))) > 1))

    @property
    def pad_name(self) -> str | Code:
        """The name of a padding layer before it, as a string in the code."""
        return self.row.name_in_code(self.number, f"{self.pad_attribute[len(self.row.name) :]}")

    @property
    def pad_attribute(self) -> str:
        """The name of a padding layer before it, as an attribute of the class."""
        name = f"{self.row.name}_pad"
        while name in self.body.names:
            name += "_"
        return name

    @property
    def variable(self) -> str:
        """The variable of its result."""
        return self.row.variable

    @property
    def inputs(self) -> list[str]:
        """The variables of its inputs."""
        return self.row.inputs
