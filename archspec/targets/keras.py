"""Keras: what only its templates need."""

from __future__ import annotations

import json
import os

from archspec.language.ops import Shape
from archspec.targets.base import Target
from archspec.targets.recipe_view import RecipeView
from archspec.targets.view import LayerView, ModelView
from archspec.targets.windows import NO_PADDING


class KerasLayer(LayerView):
    """A node as the op templates read it for Keras."""

    @property
    def arguments(self) -> str:
        """The arguments of its layer's call."""
        if self.pads:
            return "x"
        return self.inputs[0] if len(self.inputs) == 1 else f"[{', '.join(self.inputs)}]"

    @property
    def pads(self) -> bool:
        """Whether another layer comes before it: a padding that no argument gives, or a transposition."""
        return self.zero_pads or self.transposes

    @property
    def zero_pads(self) -> bool:
        """Whether a ZeroPadding2D comes before it. Pools have a class of their own instead: see `pads_itself`."""
        return self.window is not None and not self.op.pools and self.window.is_padded and not self.window.is_same

    @property
    def transposes(self) -> bool:
        """Whether it flattens feature maps in an order that matters: they are transposed to (C, H, W) before."""
        flattens = self.op.is_view and len(self.shape) == 3 and len(self.node.output_shape) == 1
        return bool(flattens and not self.flattened)

    @property
    def padding(self) -> str:
        """The argument `padding`."""
        window = self.window
        assert window is not None
        return "same" if window.overhangs and window.is_same and not self.pads_itself else "valid"

    @property
    def pads_itself(self) -> bool:
        """Whether a pool's windows, or what an average counts, are neither those of `valid` nor of `same`."""
        window = self.window
        if window is None or not self.op.pools or not window.overhangs:
            return False
        counts_padding = hasattr(self.op, "count_include_pad") and window.counted_padding != NO_PADDING
        return bool(not window.is_same or counts_padding)

    @property
    def strided_and_dilated(self) -> bool:
        """Whether a convolution has both a stride and a dilation, which Keras does not allow."""
        return bool(max(self.op.strides) > 1 and max(self.op.dilation) > 1)

    @property
    def equal_windows(self) -> tuple[int, int] | None:
        """The window of an adaptive pooling if all its windows are of one size and do not overlap."""
        (height, width), (rows, columns) = self.shape[1:], self.node.output_shape[1:]
        return None if height % rows or width % columns else (height // rows, width // columns)

    @property
    def transposition(self) -> Shape:
        """The permutation from (H, W, C) to (C, H, W), counted from 1 as in layers.Permute."""
        return 3, 1, 2


class KerasModel(ModelView):
    """A graph as the Keras template reads it."""

    layer = KerasLayer
    channels_last = True
    resizable = True


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
