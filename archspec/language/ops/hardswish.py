"""hardswish: silu in pieces of parabolas and lines."""

from math import prod
from typing import ClassVar, Literal

from archspec.language.ops.base import Counts, Op, SavedTensors, Shape


class Hardswish(Op):
    """y = x min(max(x + 3, 0), 6) / 6, as torch.nn.Hardswish (Howard et al. 2019). Any shape, unchanged.

    Keras calls it `hard_silu`.
    """

    elementwise: ClassVar[bool] = True
    channelwise: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["hardswish"]

    def counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"add": n, "compare": 2 * n, "mul": 2 * n}

    def grad_counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"compare": 2 * n, "add": n, "mul": 2 * n}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(input=True)
