"""mul: the product of several layers."""

from math import prod
from typing import ClassVar, Literal

from archspec.language.ops.base import Counts, Op, SavedTensors, Shape, ShapeError


class Mul(Op):
    """y = a b ..., elementwise. Inputs of one shape, but feature maps (C, 1, 1) hold for every place.

    (C, H, W) and (C, 1, 1) to (C, H, W), as squeeze-and-excitation needs (Hu et al. 2018); nothing else is broadcast.
    """

    channelwise: ClassVar[bool] = True
    inputs: ClassVar[tuple[int, int]] = (2, 2**31)
    combines: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["mul"]

    def output_shape(self, *shapes: Shape) -> Shape:
        largest = max(shapes, key=prod)
        if any(shape not in (largest, (largest[0], 1, 1)) for shape in shapes):
            raise ShapeError("shapes", "needs inputs of equal shape, or of one value a channel, (C, 1, 1)", "from")
        return largest

    def counts(self, *shapes: Shape) -> Counts:
        return {"mul": (len(shapes) - 1) * prod(self.output_shape(*shapes))}

    def grad_counts(self, *shapes: Shape) -> Counts:
        return {"mul": len(shapes) * prod(self.output_shape(*shapes))}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(input=True)
