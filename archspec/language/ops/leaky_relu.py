"""leaky_relu: a rectifier with a slope below 0."""

from math import prod
from typing import ClassVar, Literal

from archspec.language.initializers import Finite
from archspec.language.ops.base import Counts, Op, SavedTensors, Shape


class LeakyRelu(Op):
    """y = max(x, 0) + negative_slope min(x, 0), as torch.nn.LeakyReLU (Maas et al. 2013). Any shape, unchanged.

    Trap: Keras' default slope is 0.3, and on TensorFlow its LeakyReLU rounds the slope to float32: 1.2e-8 off.
    """

    elementwise: ClassVar[bool] = True
    channelwise: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["leaky_relu"]
    negative_slope: Finite = 0.01

    def counts(self, *shapes: Shape) -> Counts:
        return {"compare": prod(shapes[0]), "mul": prod(shapes[0])}

    def grad_counts(self, *shapes: Shape) -> Counts:
        return {"compare": prod(shapes[0]), "mul": prod(shapes[0])}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(input=True)
