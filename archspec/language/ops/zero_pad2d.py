"""zero_pad2d: rows and columns of zeros around feature maps."""

from typing import ClassVar, Literal

from archspec.language.ops.base import Op, Shape, Sides, require_chw


class ZeroPad2d(Op):
    """Rows and columns of zeros around feature maps, as torch.nn.ZeroPad2d.

    (C, H, W) to (C, top + H + bottom, left + W + right).

    For what a layer cannot pad itself: before a convolution write its `padding`. Trap: a max_pool2d pads with minus
    infinity, so that zeros before it are another network where its input can be negative, as in Keras' ResNet50V2.
    """

    keeps_nonnegative: ClassVar[bool] = True
    channelwise: ClassVar[bool] = True

    op: Literal["zero_pad2d"]
    padding: Sides

    def output_shape(self, *shapes: Shape) -> Shape:
        channels, height, width = require_chw(shapes[0])
        (top, bottom), (left, right) = self.padding
        return channels, top + height + bottom, left + width + right
