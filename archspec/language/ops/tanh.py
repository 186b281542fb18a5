"""tanh: the hyperbolic tangent."""

from math import prod
from typing import ClassVar, Literal

from archspec.language.ops.base import Counts, Op, SavedTensors, Shape


class Tanh(Op):
    """y = (exp(2 x) - 1) / (exp(2 x) + 1). Any shape, unchanged."""

    elementwise: ClassVar[bool] = True
    channelwise: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True
    saturates: ClassVar[bool] = True

    op: Literal["tanh"]

    def counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"exp": n, "add": 2 * n, "mul": n, "div": n}

    def grad_counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"add": n, "mul": 2 * n}  # (1 - y^2) dy

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(output=True)
