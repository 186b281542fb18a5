"""A graph as the templates read it: plain data, with every decision made."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar

from archspec import analysis
from archspec.graph import Graph, Instance
from archspec.graph.layouts import channels_last, classifier, flattened_maps
from archspec.language.blocks import Block
from archspec.language.expressions import Expression
from archspec.language.names import class_name
from archspec.language.ops import Op, Shape
from archspec.language.source import Source
from archspec.language.spec import Multipliers
from archspec.targets.bodies import Body, RowView, make_bodies
from archspec.targets.literals import Code

if TYPE_CHECKING:
    from archspec.targets.layer_view import LayerView


class ModelView:
    """A graph as a target's model template reads it."""

    layer: ClassVar[type[LayerView]]
    channels_last: ClassVar[bool] = False
    resizable: ClassVar[bool] = False  # whether the generated model takes `num_classes`
    passes_channels: ClassVar[bool] = False  # whether the code of a block is given the channels of its input
    names_expressions: ClassVar[bool] = False  # whether the result of an expression has the layer's name
    separator: ClassVar[str] = "."  # in the names of layers

    def __init__(
        self,
        graph: Graph,
        taken: frozenset[str] = frozenset(),
        unused: frozenset[tuple[str, str]] = frozenset(),
    ) -> None:
        """`taken` are names that no variable of a layer may have, as they mean something else in the file.

        `unused` are attributes that the code of a block, which is first, does not depend on.
        """
        self.graph = graph
        self.unused = unused
        self.taken = taken | {"x", "inputs", "self", "name", "in_channels", "y", "w", "i"}
        self.name = graph.name
        self.class_name = class_name(graph.name)
        self.source = graph.spec.source
        self.totals = analysis.totals(graph)
        self.flattened = flattened_maps(graph)
        self.classifier = classifier(graph) if self.resizable else None
        if self.classifier and "." in self.classifier.name:  # the argument belongs to the network's own layers
            self.classifier = None
        self.present = set(graph.nodes)
        self.body_of: dict[Instance, Body] = {}
        self.bodies = make_bodies(self, graph.root or _flat(graph))
        self.top = self.bodies[-1]
        self.layers = [layer for body in self.bodies for layer in body.layers]

    # --- what a target decides ---

    def block_name(self, block: Block) -> str:
        """Return the name of a block's class or function."""
        return block.class_name

    def input_variable(self, body: Body, name: str) -> str:
        """Return the variable of an input."""
        if len(body.inputs) > 1:
            return body.local(name)
        return "x" if body.input_read_next(name) else "inputs"

    def variable(self, row: RowView) -> str:
        """Return the variable of a row's result."""
        return "x" if row.body.reuses(row) else row.body.local(row.name)

    def decisions(self, layer: LayerView) -> Iterator[Any]:
        """Yield all that the code of a layer depends on; raise SplitError where instances differ."""
        node = layer.node
        yield layer.every(lambda node: node.op.op)
        for field in type(node.op).model_fields:
            if field not in Op.model_fields and field not in ("init", "padding"):
                yield getattr(layer.op, field)
        yield layer.rank
        yield layer.every(lambda node: [p.shape[1:-1] for p in node.params.values() if p.role == "embedding"])
        yield layer.initializers
        yield layer.flattened

    def settle(self, body: Body) -> None:
        """Make all decisions about a body; raise SplitError where its instances cannot share them."""
        names: set[str] = set()
        for row in body.rows:
            for expression in (row.when, row.row.repeat):
                if isinstance(expression, Expression):
                    names |= expression.names
            for run in row.runs:
                values = list(self.decisions(run.layer)) if run.layer else list(run.arguments.values())
                for code in codes(values):
                    names |= set(re.findall(r"[A-Za-z_]\w*", code))
        body.used_names = {name for name in names & body.names_known if (body.name, name) not in self.unused}

    @property
    def variables(self) -> set[str]:
        """The variables of results."""
        return {row.variable for body in self.bodies for row in body.rows}

    @property
    def blocks(self) -> list[Body]:
        """The classes or functions of the blocks, each after those that it uses."""
        return self.bodies[:-1]

    @property
    def input_text(self) -> str:
        """The input shape as text, e.g. `(N, 3, 227, 227)`."""
        return shape_text(self.graph.input.output_shape, self.channels_last)

    @property
    def output_text(self) -> str:
        """The output shape as text."""
        return self.top.rows[-1].output_text

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
            found.setdefault(layer.node.op.op, []).append(layer)
        return found

    @property
    def windowed(self) -> bool:
        """Whether any layer slides a window."""
        return any(layer.window for layer in self.layers)

    @property
    def random(self) -> bool:
        """Whether any layer draws random numbers in training."""
        return any(getattr(layer.node.op, "random", False) for layer in self.layers)

    @property
    def multipliers(self) -> Multipliers | None:
        """The multipliers of learning rate and weight decay, or None if all are 1."""
        found = self.graph.spec.multipliers
        neutral = found is None or all((m.lr, m.decay) == (1, 1) for m in (found.weight, found.bias, found.norm))
        return None if neutral or not self.trainable else found

    @property
    def trainable(self) -> list[LayerView]:
        """The layers with trainable parameters."""
        return [layer for layer in self.layers if layer.node.trainable]

    @property
    def norms(self) -> list[LayerView]:
        """The layers with a scale or shift of each channel, or statistics."""
        return [
            layer for layer in self.layers if any(p.role not in ("kernel", "bias") for p in layer.node.params.values())
        ]

    @property
    def has_weights(self) -> bool:
        """Whether any layer has parameters or buffers."""
        return any(layer.node.params for layer in self.layers)

    @property
    def permuted(self) -> dict[str, Shape]:
        """The (C, H, W) of the flattened maps that a linear layer reads, by the name of the layer."""
        return {
            node.name: self.flattened[node] for node in self.graph.nodes if node.trainable and node in self.flattened
        }


def codes(value: Any) -> Iterator[Code]:
    """Yield the source texts in a value."""
    if isinstance(value, Code):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from codes(item)


def _flat(graph: Graph) -> Instance:
    """Return the layers of a graph that no spec describes, e.g. one rank's part, as a network without blocks."""
    from archspec.graph import Member
    from archspec.language.blocks import Row, Use

    members = []
    for node in graph.nodes:
        use = node.use or Use(node.op.op, {}, {}, {}, None)
        reads = tuple(read.name for read in node.inputs)
        members.append(Member(Row(node.name, node.loc, reads, use), reads, (node,), node))
    return Instance("", None, {}, (graph.input,), tuple(members), graph.output)


def shape_text(shape: Shape, last: bool, channels: int | str | None = None) -> str:
    """Return a shape as text, `(N, C, H, W)` or, channels `last`, `(N, H, W, C)`; `channels` replaces the number C."""
    sizes = [*map(str, shape)]
    if channels is not None:
        sizes[len(shape) == 2] = str(channels)
    if last and len(shape) == 3:
        sizes = [*sizes[1:], sizes[0]]
    return f"(N, {', '.join(sizes)})"


def spec_path(source: Source) -> str:
    """Return the path of a spec that does not depend on the working directory, e.g. `specs/alexnet.yaml`."""
    parts = PurePath(source.path).parts
    path = "/".join(parts[parts.index("specs") :] if "specs" in parts[:-1] else parts[-1:])
    return "".join(c if c.isprintable() else "?" for c in path)  # for a comment of generated code


def spec_hash(source: Source) -> str:
    """Return the SHA-256 of a spec's network and recipe.

    Claims, the budget, comments, the order of keys and line ends do not change it.
    """
    network = {key: value for key, value in source.data.items() if key not in ("claims", "budget")}
    content = json.dumps(network, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()
