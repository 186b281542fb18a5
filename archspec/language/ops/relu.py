"""relu: the rectifier."""

from math import prod
from typing import ClassVar, Literal

from archspec.language.ops.base import Counts, Op, SavedTensors, Shape


class Relu(Op):
    """y = max(x, 0) (Krizhevsky et al. 2012, section 3.1). Any shape, unchanged."""

    elementwise: ClassVar[bool] = True
    channelwise: ClassVar[bool] = True
    rectifies: ClassVar[bool] = True
    nonnegative: ClassVar[bool] = True

    op: Literal["relu"]

    def counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"compare": n}

    def grad_counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"compare": n}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(output=True)
