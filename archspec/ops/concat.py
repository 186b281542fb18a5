"""concat: several layers side by side."""

from typing import ClassVar, Literal

from archspec.ops.base import Counts, Kept, Op, Shape, ShapeError, Weights, times


class Concat(Op):
    """The channels of maps, or the features of vectors, one input's after another's, as torch.cat with dim=1.

    (C1, H, W), (C2, H, W), ... to (C1 + C2 + ..., H, W), or (F1,), (F2,), ... to (F1 + F2 + ...,).
    """

    op: Literal["concat"]
    inputs: ClassVar[tuple[int, int]] = (2, 2**31)

    def output_shape(self, *shapes: Shape) -> Shape:
        if len({shape[1:] for shape in shapes}) != 1:
            raise ShapeError("shapes", f"joins maps of one size, not {', '.join(map(times, shapes))}", "from")
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])

    def weights(self, *shapes: Shape) -> Weights:
        return {}

    def counts(self, *shapes: Shape) -> Counts:
        return {}

    def gradient_counts(self, *shapes: Shape) -> Counts:
        return {}

    def kept(self, *shapes: Shape) -> Kept:
        return Kept()
