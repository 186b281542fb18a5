"""relu6: a rectifier with a ceiling of 6."""

from math import prod
from typing import ClassVar, Literal

from archspec.language.ops.base import Counts, Op, SavedTensors, Shape


class Relu6(Op):
    """y = min(max(x, 0), 6), as torch.nn.ReLU6 and keras.layers.ReLU(6) (Sandler et al. 2018). Any shape, unchanged."""

    elementwise: ClassVar[bool] = True
    channelwise: ClassVar[bool] = True
    nonnegative: ClassVar[bool] = True

    op: Literal["relu6"]

    def counts(self, *shapes: Shape) -> Counts:
        return {"compare": 2 * prod(shapes[0])}

    def grad_counts(self, *shapes: Shape) -> Counts:
        return {"compare": 2 * prod(shapes[0])}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(input=True)
