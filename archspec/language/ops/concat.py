"""concat: several layers side by side."""

from typing import Any, ClassVar, Literal

from archspec.language.ops.base import Op, Shape, ShapeError, channels_of, with_channels


class Concat(Op):
    """The channels of feature maps, or the features of vectors, one input's after another's, as torch.cat with dim=1.

    (C1, H, W), (C2, H, W), ... to (C1 + C2 + ..., H, W), or (F1,), (F2,), ... to (F1 + F2 + ...,); of tokens the
    features: (L, D1), (L, D2), ... to (L, D1 + D2 + ...).
    """

    inputs: ClassVar[tuple[int, int]] = (1, 2**31)
    combines: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["concat"]

    def output_shape(self, *shapes: Shape) -> Shape:
        if len({with_channels(shape, 1) for shape in shapes}) != 1:
            equal = "as many tokens each" if len(shapes[0]) == 2 else "feature maps of equal height and width"
            raise ShapeError("shapes", f"needs {equal}", "from")
        return with_channels(shapes[0], sum(map(channels_of, shapes)))

    def channels(self, *channels: Any) -> Any:
        return sum(channels[1:], start=channels[0])
