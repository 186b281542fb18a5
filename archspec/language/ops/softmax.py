"""softmax: scores to probabilities."""

from math import prod
from typing import ClassVar, Literal

from archspec.language.ops.base import Counts, Op, SavedTensors, Shape, positions_of


class Softmax(Op):
    """y[c] = exp(x[c]) / sum of exp(x), over the channels of feature maps, or the features of a vector or token.

    Trap: a cross-entropy on logits applies its own. A network that is trained ends in its logits.
    """

    nonnegative: ClassVar[bool] = True
    saturates: ClassVar[bool] = True
    probabilities: ClassVar[bool] = True

    op: Literal["softmax"]

    def counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        vectors = positions_of(shapes[0])
        return {"exp": n, "add": n - vectors, "div": n}

    def grad_counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"mul": 2 * n, "add": 2 * n - positions_of(shapes[0])}  # y (dy - sum of y dy)

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(output=True)
