"""A graph as the templates read it: plain data, with every decision made."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any, ClassVar

from archspec import analysis
from archspec.graph import Graph, Node
from archspec.graph.layouts import channels_last, classifier, flattened_maps
from archspec.language.initializers import BiasRule, Rule, fans
from archspec.language.names import class_name
from archspec.language.ops import Shape
from archspec.language.source import Source
from archspec.language.spec import Multipliers
from archspec.targets.literals import Code
from archspec.targets.windows import Window


class ModelView:
    """A graph as a target's model template reads it."""

    layer: ClassVar[type[LayerView]]
    channels_last: ClassVar[bool] = False
    resizable: ClassVar[bool] = False  # whether the generated model takes `num_classes`

    def __init__(self, graph: Graph, taken: frozenset[str] = frozenset()) -> None:
        """`taken` are names that no variable of a layer may have, as they mean something else in the file."""
        self.graph = graph
        self._taken = taken | {"x", "inputs", "self"}
        self.name = graph.name
        self.class_name = class_name(graph.name)
        self.source = graph.spec.source
        self.totals = analysis.totals(graph)
        self.flattened = flattened_maps(graph)
        self.classifier = classifier(graph) if self.resizable else None
        readers = graph.readers()
        order = {node: i for i, node in enumerate((graph.input, *graph.nodes))}
        # The variable `x` is reused, as a person would, unless a layer other than the next reads a result.
        self.reusing = {node for node in order if [order[r] for r in readers[node]] == [order[node] + 1]} | {
            graph.output
        }
        self.names = {node.name for node in graph.nodes}
        self.layers = [self.layer(self, node) for node in graph.nodes]
        self.of = {layer.node: layer for layer in self.layers}

    @property
    def input_variable(self) -> str:
        """The variable of the network's input."""
        return "inputs"

    def local(self, name: str) -> str:
        """Return the variable of a layer's result: its name, with an underscore if that is taken."""
        while name in self._taken:
            name += "_"
        return name

    @property
    def input_text(self) -> str:
        """The input shape as text, e.g. `(N, 3, 227, 227)`."""
        return shape_text(self.graph.input.output_shape, self.channels_last)

    @property
    def output_text(self) -> str:
        """The output shape as text."""
        return self.layers[-1].output_text

    @property
    def example(self) -> tuple[int, ...]:
        """The shape of a batch of one, in the target's layout."""
        shape = self.graph.input.output_shape
        return (1, *(channels_last(shape) if self.channels_last else shape))

    @property
    def num_classes(self) -> int | None:
        """The default of the constructor's argument `num_classes`; None if the model has no such argument."""
        return self.classifier.output_shape[0] if self.classifier else None

    @cached_property
    def ops(self) -> dict[str, list[LayerView]]:
        """The layers by op, in the order of first use."""
        found: dict[str, list[LayerView]] = {}
        for layer in self.layers:
            found.setdefault(layer.op.op, []).append(layer)
        return found

    @property
    def windowed(self) -> bool:
        """Whether any layer slides a window."""
        return any(layer.window for layer in self.layers)

    @property
    def random(self) -> bool:
        """Whether any layer draws random numbers in training."""
        return any(layer.op.random for layer in self.layers)

    @property
    def multipliers(self) -> Multipliers | None:
        """The multipliers of learning rate and weight decay, or None if all are 1."""
        found = self.graph.spec.multipliers
        neutral = found is None or all((m.lr, m.decay) == (1, 1) for m in (found.weight, found.bias))
        return None if neutral or not self.trainable else found

    @property
    def trainable(self) -> list[LayerView]:
        """The layers with trainable parameters."""
        return [layer for layer in self.layers if layer.node.trainable]

    @property
    def permuted(self) -> dict[str, Shape]:
        """The (C, H, W) of the flattened maps that a linear layer reads, by the name of the layer."""
        return {layer.name: layer.flattened for layer in self.trainable if layer.flattened}


@dataclass(frozen=True, eq=False)
class LayerView:
    """A node as a target's op templates read it."""

    model: ModelView
    node: Node

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def op(self) -> Any:
        return self.node.op

    @property
    def shape(self) -> Shape:
        """The shape of its first input."""
        return self.node.input_shapes[0]

    @property
    def out(self) -> int | Code:
        """Its output channels or features; `num_classes` for the classifier."""
        return Code("num_classes") if self.node is self.model.classifier else self.node.output_shape[0]

    @property
    def output_text(self) -> str:
        """Its output shape as text, for a comment."""
        last = self.model.classifier and self.node is self.model.graph.output
        return shape_text(self.node.output_shape, self.model.channels_last, "num_classes" if last else self.out)

    @property
    def flattened(self) -> Shape | None:
        """The (C, H, W) of the maps in its vector, if they are flattened: see `flattened_maps`."""
        return self.model.flattened.get(self.node)

    @property
    def in_features(self) -> int | Code:
        """The input features of a linear layer, as the product C * H * W where maps were flattened."""
        return Code(" * ".join(map(str, self.flattened))) if self.flattened else self.shape[0]

    @property
    def kernel_shape(self) -> Shape:
        """The shape of its kernel, in PyTorch's layout."""
        assert self.node.kernel
        return self.node.kernel.shape

    @property
    def fan_in(self) -> int:
        """The fan-in of its kernel."""
        return fans(self.kernel_shape)[0]

    @cached_property
    def initializers(self) -> dict[str, Rule | BiasRule]:
        """The initializers of its parameters, by name."""
        return {name: self.model.graph.initializer(self.node, name) for name in self.node.trainable}

    @cached_property
    def window(self) -> Window | None:
        """Its sliding window, or None."""
        return Window(self.node) if self.op.windowed else None

    @property
    def pad_name(self) -> str:
        """The name of a padding layer before it."""
        name = f"{self.name}_pad"
        while name in self.model.names:
            name += "_"
        return name

    @property
    def variable(self) -> str:
        """The variable of its result."""
        return "x" if self.node in self.model.reusing else self.model.local(self.name)

    @property
    def inputs(self) -> list[str]:
        """The variables of its inputs."""
        of = self.model.of
        return [of[node].variable if node in of else self.model.input_variable for node in self.node.inputs]


def shape_text(shape: Shape, last: bool, channels: int | str | None = None) -> str:
    """Return a shape as text, `(N, C, H, W)` or, channels `last`, `(N, H, W, C)`; `channels` replaces the number C."""
    first, *rest = (str(shape[0] if channels is None else channels), *map(str, shape[1:]))
    return f"(N, {', '.join([*rest, first] if last else [first, *rest])})"


def spec_path(source: Source) -> str:
    """Return the path of a spec that does not depend on the working directory, e.g. `specs/alexnet.yaml`."""
    parts = PurePath(source.path).parts
    path = "/".join(parts[parts.index("specs") :] if "specs" in parts[:-1] else parts[-1:])
    return "".join(c if c.isprintable() else "?" for c in path)  # it stands in a comment of generated code


def spec_hash(source: Source) -> str:
    """Return the SHA-256 of a spec's content: comments, order of keys and line ends do not change it."""
    content = json.dumps(source.data, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()
