"""mish: a smooth rectifier."""

from math import prod
from typing import ClassVar, Literal

from archspec.language.ops.base import Counts, Op, SavedTensors, Shape


class Mish(Op):
    """y = x tanh(log(1 + exp(x))), as torch.nn.Mish (Misra 2019). Any shape, unchanged."""

    elementwise: ClassVar[bool] = True
    channelwise: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["mish"]

    def counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"exp": 4 * n, "add": 3 * n, "div": n, "mul": n}  # softplus, tanh and a product

    def grad_counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"exp": 2 * n, "add": 3 * n, "div": n, "mul": 4 * n}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(input=True)
