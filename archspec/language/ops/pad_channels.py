"""pad_channels: channels of zeros."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from archspec.language.ops.base import Op, Shape, require_chw

Count = Annotated[int, Field(ge=0, le=2**31 - 1)]


class PadChannels(Op):
    """`before` and `after` channels of zeros around its own: (C, H, W) to (before + C + after, H, W).

    The shortcut without parameters where a residual network widens (He et al. 2016, option A).
    """

    combines: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["pad_channels"]
    before: Count = 0
    after: Count = 0

    def output_shape(self, *shapes: Shape) -> Shape:
        channels, height, width = require_chw(shapes[0])
        return self.before + channels + self.after, height, width

    def channels(self, *channels: Any) -> Any:
        return self.before + channels[0] + self.after
