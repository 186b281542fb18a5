"""silu: a smooth rectifier."""

from math import prod
from typing import ClassVar, Literal

from archspec.language.ops.base import Counts, Op, SavedTensors, Shape


class Silu(Op):
    """y = x sigmoid(x) = x / (1 + exp(-x)), as torch.nn.SiLU (Elfwing et al. 2017; swish). Any shape, unchanged.

    Keras calls it `silu` as well.
    """

    elementwise: ClassVar[bool] = True
    channelwise: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["silu"]

    def counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"exp": n, "add": n, "div": n}

    def grad_counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"add": 2 * n, "mul": 3 * n}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(input=True)
