"""Faster implementations of layers, which change neither weights nor outputs."""

from typing import Any

import keras
from keras import ops

MAX_GROUPS = 8


def split_groups(model: keras.Model) -> None:
    """Compute grouped convolutions as one convolution a group, where that is faster.

    Without a GPU, Keras runs Conv2D's `groups` through XLA on TensorFlow and JAX, which
    takes 3 to 18 times as long (Keras 3.15, TensorFlow 2.21).
    """
    if keras.backend.backend() == "torch" or _has_gpu():
        return
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D) and 1 < layer.groups <= MAX_GROUPS:
            layer.convolution_op = _split(layer)


def _split(layer: Any) -> Any:
    whole = type(layer).convolution_op

    def convolution_op(inputs: Any, kernel: Any) -> Any:
        blocks = ops.split(inputs, layer.groups, axis=-1)
        kernels = ops.split(kernel, layer.groups, axis=-1)
        maps = [whole(layer, *pair) for pair in zip(blocks, kernels, strict=True)]
        return ops.concatenate(maps, axis=-1)

    return convolution_op


def _has_gpu() -> bool:
    return any("gpu" in str(device) for device in keras.distribution.list_devices())
