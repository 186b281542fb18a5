"""sigmoid: the logistic function."""

from math import prod
from typing import ClassVar, Literal

from archspec.language.ops.base import Counts, Op, SavedTensors, Shape


class Sigmoid(Op):
    """y = 1 / (1 + exp(-x)). Any shape, unchanged."""

    elementwise: ClassVar[bool] = True
    channelwise: ClassVar[bool] = True
    nonnegative: ClassVar[bool] = True
    saturates: ClassVar[bool] = True
    probabilities: ClassVar[bool] = True

    op: Literal["sigmoid"]

    def counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"exp": n, "add": n, "div": n}

    def grad_counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"add": n, "mul": 2 * n}  # y (1 - y) dy

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(output=True)
