"""add: the sum of several layers."""

from math import prod
from typing import ClassVar, Literal

from archspec.ops.base import Counts, Kept, Op, Shape, ShapeError, Weights, times


class Add(Op):
    """y = a + b + ..., elementwise. Inputs of one shape, which is the output's; nothing is broadcast."""

    op: Literal["add"]
    inputs: ClassVar[tuple[int, int]] = (2, 2**31)

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(set(shapes)) != 1:
            raise ShapeError("shapes", f"adds equal shapes, not {', '.join(map(times, shapes))}", "from")
        return shapes[0]

    def weights(self, *shapes: Shape) -> Weights:
        return {}

    def counts(self, *shapes: Shape) -> Counts:
        return {"add": (len(shapes) - 1) * prod(shapes[0])}

    def gradient_counts(self, *shapes: Shape) -> Counts:
        return {}

    def kept(self, *shapes: Shape) -> Kept:
        return Kept()
