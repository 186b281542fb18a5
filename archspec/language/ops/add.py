"""add: the sum of several layers."""

from math import prod
from typing import ClassVar, Literal

from archspec.language.ops.base import Counts, Op, Shape, ShapeError


class Add(Op):
    """y = a + b + ..., elementwise. Inputs of one shape, which is the output's; nothing is broadcast.

    Of one input it is the identity, so that a block can add however many branches it has.
    """

    channelwise: ClassVar[bool] = True
    inputs: ClassVar[tuple[int, int]] = (1, 2**31)
    combines: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["add"]

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(set(shapes)) != 1:
            raise ShapeError("shapes", "needs inputs of equal shape", "from")
        return shapes[0]

    def counts(self, *shapes: Shape) -> Counts:
        return {"add": (len(shapes) - 1) * prod(shapes[0])}
