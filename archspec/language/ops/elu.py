"""elu: the exponential linear unit."""

from math import prod
from typing import ClassVar, Literal

from archspec.language.initializers import Positive
from archspec.language.ops.base import Counts, Op, SavedTensors, Shape


class Elu(Op):
    """y = x where x > 0, else alpha (exp(x) - 1), as torch.nn.ELU (Clevert et al. 2016). Any shape, unchanged."""

    elementwise: ClassVar[bool] = True
    channelwise: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True
    saturates: ClassVar[bool] = True

    op: Literal["elu"]
    alpha: Positive = 1.0

    def counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"compare": n, "exp": n, "add": n, "mul": n}

    def grad_counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"compare": n, "mul": n, "add": n}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(input=True)
