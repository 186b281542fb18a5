"""sigmoid: the logistic function."""

from math import prod
from typing import Literal

from archspec.ops.base import Counts, Kept, Op, Shape, Weights


class Sigmoid(Op):
    """y = 1 / (1 + exp(-x)). Any shape, unchanged."""

    op: Literal["sigmoid"]

    def output_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]

    def weights(self, *shapes: Shape) -> Weights:
        return {}

    def counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"exp": n, "add": n, "div": n}

    def gradient_counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"add": n, "mul": 2 * n}  # y (1 - y) dy

    def kept(self, *shapes: Shape) -> Kept:
        return Kept(output=True)
