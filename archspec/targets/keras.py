"""Keras: what only its templates need."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from archspec.graph import Graph, Node
from archspec.graph.layouts import flattens_maps
from archspec.language.blocks import Block
from archspec.language.initializers import TorchDefault
from archspec.language.ops import Param, Shape
from archspec.language.ops.base import Padding2d
from archspec.language.source import SpecError
from archspec.language.spec import Multiplier
from archspec.targets.base import Target
from archspec.targets.bodies import Body
from archspec.targets.layer_view import LayerView, uniform
from archspec.targets.recipe_view import RecipeView
from archspec.targets.view import ModelView


class KerasLayer(LayerView):
    """A layer as the op templates read it for Keras."""

    @property
    def arguments(self) -> str:
        """The arguments of its layer's call."""
        if self.pads:
            return self.variable
        one = self.node.op.inputs[1] == 1  # type: ignore[union-attr]
        return self.inputs[0] if one else f"[{', '.join(self.inputs)}]"

    @property
    def pads(self) -> bool:
        """Whether another layer comes before it: a padding that no argument gives, or a transposition."""
        return self.zero_pads or self.transposes

    @property
    def zero_pads(self) -> bool:
        """Whether a ZeroPadding2D comes before it. Pools have a class of their own instead: see `pads_itself`."""
        if self.window is None or self._pools or not self.window.is_padded:
            return False
        return not self.window.is_same or self.strided_and_dilated

    @property
    def _pools(self) -> bool:
        return bool(getattr(self.node.op, "pools", False))

    @property
    def transposes(self) -> bool:
        """Whether it flattens feature maps in an order that matters: they are transposed to (C, H, W) before."""
        return any(flattens_maps(node) and node not in self.model.flattened for node in self.nodes)

    @property
    def padding(self) -> str:
        """The argument `padding`."""
        window = self.window
        assert window is not None
        pads = self.pads_itself or self.zero_pads
        return "same" if window.overhangs and window.is_same and not pads else "valid"

    @property
    def pads_itself(self) -> bool:
        """Whether a pool's windows, or what an average counts, are neither those of `valid` nor of `same`."""
        window = self.window
        if window is None or not self._pools or not window.overhangs:
            return False
        return not window.is_same or window.counts_padding

    @property
    def strided_and_dilated(self) -> bool:
        """Whether a convolution has both a stride and a dilation, for which Keras needs a class."""
        return not self._pools and any(map(_is_strided_and_dilated, self.nodes))

    @property
    def depth_multiplier(self) -> int | None:
        """The outputs of each input channel if it is a depthwise convolution; None for any other.

        On TensorFlow, DepthwiseConv2D takes strides that are equal only.
        """
        found = {_multiplier(node) for node in self.nodes}
        return found.pop() if len(found) == 1 and not self.strided_and_dilated else None

    @property
    def enlarges(self) -> bool:
        """Whether an adaptive pooling has several positions of one row or column: Keras' fails there on TensorFlow."""
        return any(
            out > size == 1
            for node in self.nodes
            for out, size in zip(node.output_shape[1:], node.input_shapes[0][1:], strict=True)
        )

    @property
    def equal_windows(self) -> tuple[int, int] | None:
        """The window of an adaptive pooling if all its windows are of one size and do not overlap."""
        (height, width), (rows, columns) = self.shape[1:], self.node.output_shape[1:]
        return None if height % rows or width % columns else (height // rows, width // columns)

    @property
    def crop(self) -> Padding2d | None:
        """The rows and columns that a transposed convolution is cropped by; None if some would have to be added.

        A valid one of Keras has n * stride + max(kernel - stride, 0) rows, PyTorch's begin at `padding`.
        """
        found: Padding2d | None = self.every(_crop)
        return found

    @property
    def crops(self) -> bool:
        """Whether a transposed convolution is cropped."""
        return self.crop not in (None, ((0, 0), (0, 0)))

    @property
    def transposes_itself(self) -> bool:
        """Whether a transposed convolution is none of Keras': with groups, a dilation, or rows that would be added."""
        found = [
            node.op.groups > 1 or max(node.op.dilation) > 1 or _crop(node) is None  # type: ignore[union-attr]
            for node in self.nodes
        ]
        return bool(uniform(found, self.row.instances))

    @property
    def transposition(self) -> Shape:
        """The permutation from (H, W, C) to (C, H, W), counted from 1 as in layers.Permute."""
        return 3, 1, 2


def _crop(node: Node) -> Padding2d | None:
    op: Any = node.op
    found = []
    for n, out, stride, extent, before in zip(
        node.input_shapes[0][1:], node.output_shape[1:], op.stride, op.extent, op.padding, strict=True
    ):
        rows = n * stride + max(extent - stride, 0)
        found.append((before, rows - before - out))
    first, second = found
    return (first, second) if min(*first, *second) >= 0 else None


def _is_strided_and_dilated(node: Node) -> bool:
    op: Any = node.op
    return bool(max(op.strides) > 1 and max(op.dilation) > 1)


def _multiplier(node: Node) -> int | None:
    """Return the depth multiplier of a depthwise convolution that Keras' layer computes on every backend."""
    op: Any = node.op
    channels = node.input_shapes[0][0]
    depthwise = channels > 1 and op.groups == channels and op.strides[0] == op.strides[1]
    return op.out_channels // channels if depthwise else None


class KerasModel(ModelView):
    """A graph as the Keras template reads it."""

    layer = KerasLayer
    channels_last = True
    resizable = True
    separator = "_"

    def __init__(
        self,
        graph: Graph,
        taken: frozenset[str] = frozenset(),
        unused: frozenset[tuple[str, str]] = frozenset(),
    ) -> None:
        super().__init__(graph, taken, unused)
        names: dict[str, Node] = {}
        for node in graph.nodes:
            other = names.setdefault(node.name.replace(".", "_"), node)
            if other is not node:
                message = (
                    f"{other.name} and {node.name} would both be {node.name.replace('.', '_')} in Keras: rename one"
                )
                raise SpecError([graph.source.error("duplicate-name", message, node.loc)])

    @property
    def depthwise(self) -> bool:
        """Whether any layer is a DepthwiseConv2D."""
        return any(
            layer.depth_multiplier
            for layer in self.trainable
            if isinstance(layer, KerasLayer) and hasattr(layer.node.op, "groups") and layer.window
        )

    @property
    def multiplier_variables(self) -> list[tuple[Multiplier, list[str]]]:
        """The multipliers, each with the names of the variables that it is for."""
        found = self.multipliers
        assert found
        norm = [(found.norm, ["gamma", "beta"])] if self.channel_norms else []
        return [(found.weight, ["kernel"]), (found.bias, ["bias"]), *norm]

    @property
    def channel_norms(self) -> bool:
        """Whether any layer has a gamma or beta."""
        return any(param.role in ("scale", "shift") for param in self.all_params.values())

    @property
    def has_statistics(self) -> bool:
        """Whether any layer has a moving mean and variance."""
        return any(not param.trainable for param in self.all_params.values())

    @property
    def own_variables(self) -> bool:
        """Whether any layer has variables with names of its own: an embedding, or projections."""
        usual = ("weight", "bias", "running_mean", "running_var")
        return self.embeds or any(name not in usual for _, name in self.all_params)

    @property
    def embeds(self) -> bool:
        """Whether any layer has an embedding."""
        return any(param.role == "embedding" for param in self.all_params.values())

    @property
    def flat_names(self) -> bool:
        """Whether the names of layers and parameters are joined by `_`, as some contain dots."""
        return bool(self.blocks) or any("." in name for _, name in self.all_params)

    @property
    def dotted_names(self) -> tuple[str, dict[str, str]]:
        """How Keras' names become canonical ones: a pattern of the words between dots, and the exceptions."""
        names = [node.name for node in self.graph.nodes if node.params]
        words = {word for name in names for word in name.split(".") if "_" in word}
        pattern = "|".join([*sorted(words, key=lambda word: (-len(word), word)), "[^_]+"])
        flat = {name.replace(".", "_"): name for name in names}
        return pattern, {key: name for key, name in flat.items() if ".".join(re.findall(pattern, key)) != name}

    @cached_property
    def all_params(self) -> dict[tuple[LayerView, str], Param]:
        """The parameters and buffers of all layers."""
        return {(layer, name): param for layer in self.layers for name, param in layer.node.params.items()}

    def input_variable(self, body: Body, name: str) -> str:
        return super().input_variable(body, name) if body.block else "inputs"

    def block_name(self, block: Block) -> str:
        return block.name

    def decisions(self, layer: LayerView) -> Iterator[Any]:
        assert isinstance(layer, KerasLayer)
        yield from super().decisions(layer)
        if layer.window:
            yield layer.window.floor_padding if layer.zero_pads or layer.pads_itself or layer.dilated else None
        if any(isinstance(rule, TorchDefault) and name == "bias" for name, rule in layer.initializers.items()):
            yield layer.fan_in
        if hasattr(layer.node.op, "output_padding"):
            yield layer.transposes_itself or layer.crop
        elif layer.node.kernel and hasattr(layer.node.op, "dilation"):
            yield layer.every(_multiplier)
            yield layer.strided_and_dilated
        if getattr(layer.node.op, "pools", False) and not layer.window and layer.op.output_size != (1, 1):
            yield layer.shape


def _environment(backend: str) -> dict[str, str]:
    """Return the environment of a process on a backend, by default the user's."""
    backend = backend or os.environ.get("KERAS_BACKEND", "tensorflow")
    return {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_ENABLE_X64": "1"}


def _launch(backend: str, rank: int, ports: list[int]) -> tuple[dict[str, str], list[str]]:
    """Return what tf.distribute or, on JAX, keras.distribution needs in one of several processes."""
    addresses = [f"127.0.0.1:{port}" for port in ports]
    if backend == "jax":
        values = {"JOB_ADDRESSES": ",".join(addresses), "NUM_PROCESSES": str(len(ports)), "PROCESS_ID": str(rank)}
        return {f"KERAS_DISTRIBUTION_{key}": value for key, value in values.items()}, ["--distribute"]
    cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
    return {"TF_CONFIG": json.dumps(cluster)}, ["--distribute"]


KERAS = Target(
    name="keras",
    title="Keras",
    folder="keras",
    extra="keras",
    worker="keras_worker.py",
    model=KerasModel,
    recipe=RecipeView,
    backends=("tensorflow", "jax", "torch"),
    environment=_environment,
    launch=_launch,
    launched=("", "tensorflow", "jax"),
)
