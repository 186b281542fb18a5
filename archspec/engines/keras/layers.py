"""Faster implementations of layers, with the same weights and outputs; and crops."""

import math
from typing import Any

import keras
from keras import ops

from .distributed import gpu_count

MAX_GROUPS = 8


def split_groups(model: keras.Model) -> None:
    """Compute grouped convolutions as one convolution a group, where that is faster.

    Without a GPU, Keras runs Conv2D's `groups` through XLA on TensorFlow and JAX, which
    takes 3 to 18 times as long (Keras 3.15, TensorFlow 2.21).
    """
    if keras.backend.backend() == "torch" or gpu_count():
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


class CropModel(keras.Model):
    """A network on several crops of each image, (N, crops, H, W, C).

    Its logits are the logarithm of the crops' mean probability.
    """

    def __init__(self, network: keras.Model) -> None:
        super().__init__()
        self.network = network

    def call(self, images: Any) -> Any:
        def logits(crop: Any) -> Any:
            return ops.log_softmax(ops.cast(self.network(crop, training=False), dtype))

        dtype = keras.config.floatx()
        each = ops.map(logits, ops.swapaxes(images, 0, 1))  # one crop at a time
        return ops.logsumexp(each, axis=0) - math.log(images.shape[1])
