"""center_crop: the middle of feature maps, as large as others."""

from math import prod
from typing import Any, ClassVar, Literal

from archspec.language.ops.base import Counts, Op, Shape, ShapeError, format_shape, require_chw


class CenterCrop(Op):
    """The middle of the first input, as high and wide as the second, whose values it does not read.

    (C, H, W) and (C', H', W') to (C, H', W'), from row (H - H') // 2 and column (W - W') // 2 on, as U-Net crops the
    maps that it concatenates (Ronneberger et al. 2015). Trap: torchvision's center_crop rounds (H - H') / 2 to even.
    """

    inputs: ClassVar[tuple[int, int]] = (2, 2)
    sizes_only: ClassVar[tuple[int, ...]] = (1,)
    combines: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["center_crop"]

    def output_shape(self, *shapes: Shape) -> Shape:
        (channels, *sizes), (_, *smaller) = map(require_chw, shapes)
        if any(a < b for a, b in zip(sizes, smaller, strict=True)):
            message = f"{format_shape(tuple(sizes))} places are fewer than the second input's"
            raise ShapeError("shapes", f"{message} {format_shape(tuple(smaller))}", "from")
        return (channels, *smaller)

    def channels(self, *channels: Any) -> Any:
        return channels[0]

    def grad_counts(self, *shapes: Shape) -> Counts:
        return {"add": prod(self.output_shape(*shapes))}
