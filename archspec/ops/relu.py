"""relu: the rectifier."""

from math import prod
from typing import Literal

from archspec.ops.base import Counts, Kept, Op, Shape, Weights


class Relu(Op):
    """y = max(x, 0) (Krizhevsky et al. 2012, section 3.1). Any shape, unchanged."""

    op: Literal["relu"]

    def output_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]

    def weights(self, *shapes: Shape) -> Weights:
        return {}

    def counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"compare": n}

    def gradient_counts(self, *shapes: Shape) -> Counts:
        n = prod(shapes[0])
        return {"compare": n}

    def kept(self, *shapes: Shape) -> Kept:
        return Kept(output=True)
