"""channel_shuffle: channels in another order, so that groups mix."""

from typing import ClassVar, Literal

from archspec.language.ops.base import Op, Shape, ShapeError, Size, require_chw


class ChannelShuffle(Op):
    """Channel g + groups i of the output is channel i + (C / groups) g of the input, as torch.nn.ChannelShuffle.

    (C, H, W), unchanged: the channels as a matrix of `groups` rows, transposed (Zhang et al. 2018).
    """

    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["channel_shuffle"]
    groups: Size

    def output_shape(self, *shapes: Shape) -> Shape:
        channels = require_chw(shapes[0])[0]
        if channels % self.groups:
            raise ShapeError("groups", f"groups={self.groups} must divide its {channels} channels", "groups")
        return shapes[0]
