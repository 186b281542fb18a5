"""softplus: a smooth rectifier that is never 0."""

from math import prod
from typing import ClassVar, Literal

from archspec.language.ops.base import Counts, Op, SavedTensors, Shape


class Softplus(Op):
    """y = log(1 + exp(x)). Any shape, unchanged.

    Trap: torch.nn.Softplus returns x above its threshold, by default 20, and its derivative is then 2e-9 off; at 40,
    which the generated code has, no float64 differs.
    """

    elementwise: ClassVar[bool] = True
    channelwise: ClassVar[bool] = True
    nonnegative: ClassVar[bool] = True

    op: Literal["softplus"]

    def counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"exp": 2 * n, "add": n}  # the logarithm is one of the two

    def grad_counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"exp": n, "add": n, "div": n, "mul": n}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(input=True)
