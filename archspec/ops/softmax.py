"""softmax: scores to probabilities."""

from math import prod
from typing import Literal

from archspec.ops.base import Counts, Kept, Op, Shape, Weights


class Softmax(Op):
    """y[c] = exp(x[c]) / sum of exp(x), over the channels of maps or the features of a vector. Any shape, unchanged.

    Trap: a cross-entropy on logits applies its own. A network that is trained ends in its logits.
    """

    op: Literal["softmax"]

    def output_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]

    def weights(self, *shapes: Shape) -> Weights:
        return {}

    def counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        vectors = prod(shapes[0][1:])
        return {"exp": n, "add": n - vectors, "div": n}

    def gradient_counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"mul": 2 * n, "add": 2 * n - prod(shapes[0][1:])}  # y (dy - sum of y dy)

    def kept(self, *shapes: Shape) -> Kept:
        return Kept(output=True)
