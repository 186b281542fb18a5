"""mul: the product of several layers."""

from math import prod
from typing import ClassVar, Literal

from archspec.language.ops.base import Counts, Op, SavedTensors, Shape, ShapeError


class Mul(Op):
    """y = a b ..., elementwise. Inputs of one shape, but (C, 1, 1) is for every place and (1, H, W) for every channel.

    (C, H, W) and (C, 1, 1) to (C, H, W), as squeeze-and-excitation needs (Hu et al. 2018), and (C, H, W) and (1, H, W)
    to (C, H, W), a gate for each place (Woo et al. 2018). The first input has all channels; nothing else is broadcast.
    """

    channelwise: ClassVar[bool] = True
    inputs: ClassVar[tuple[int, int]] = (2, 2**31)
    combines: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["mul"]

    def output_shape(self, *shapes: Shape) -> Shape:
        if len({len(shape) for shape in shapes}) == 1 and len(shapes[0]) == 3:
            channels, (height, width) = shapes[0][0], max((shape[1:] for shape in shapes), key=prod)
            largest: Shape = (channels, height, width)
            allowed = {largest, (channels, 1, 1), (1, height, width)}
        else:
            largest, allowed = shapes[0], {shapes[0]}
        if not allowed >= set(shapes):
            forms = "of one value a channel, (C, 1, 1), or a place, (1, H, W)"
            raise ShapeError("shapes", f"needs inputs of equal shape, or {forms}", "from")
        return largest

    def counts(self, *shapes: Shape) -> Counts:
        return {"mul": (len(shapes) - 1) * prod(self.output_shape(*shapes))}

    def grad_counts(self, *shapes: Shape) -> Counts:
        return {"mul": len(shapes) * prod(self.output_shape(*shapes))}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(input=True)
