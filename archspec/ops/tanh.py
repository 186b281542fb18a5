"""tanh: the hyperbolic tangent."""

from math import prod
from typing import Literal

from archspec.ops.base import Counts, Kept, Op, Shape, Weights


class Tanh(Op):
    """y = (exp(2 x) - 1) / (exp(2 x) + 1). Any shape, unchanged."""

    op: Literal["tanh"]

    def output_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]

    def weights(self, *shapes: Shape) -> Weights:
        return {}

    def counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"exp": n, "add": 2 * n, "mul": n, "div": n}

    def gradient_counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"add": n, "mul": 2 * n}  # (1 - y^2) dy

    def kept(self, *shapes: Shape) -> Kept:
        return Kept(output=True)
