"""concat: several layers side by side."""

from typing import Any, ClassVar, Literal

from archspec.language.ops.base import Op, Shape, ShapeError


class Concat(Op):
    """The channels of feature maps, or the features of vectors, one input's after another's, as torch.cat with dim=1.

    (C1, H, W), (C2, H, W), ... to (C1 + C2 + ..., H, W), or (F1,), (F2,), ... to (F1 + F2 + ...,).
    """

    inputs: ClassVar[tuple[int, int]] = (1, 2**31)
    combines: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["concat"]

    def output_shape(self, *shapes: Shape) -> Shape:
        if len({shape[1:] for shape in shapes}) != 1:
            raise ShapeError("shapes", "needs feature maps of equal height and width", "from")
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])

    def channels(self, *channels: Any) -> Any:
        return sum(channels[1:], start=channels[0])
