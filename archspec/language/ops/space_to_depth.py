"""space_to_depth: blocks of places as channels."""

from typing import Any, ClassVar, Literal

from archspec.language.ops.base import Op, Pair, Shape, ShapeError, Size, format_shape, require_chw


class SpaceToDepth(Op):
    """y[(b + a n) C + c, i, j] = x[c, i n + b, j n + a] with n = block_size: each block's places become channels.

    (C, H, W) to (n n C, H / n, W / n). The order is that of Swin's patch merging (Liu et al. 2021): all channels of a
    place together, the places of a block by columns. Trap: tf.nn.space_to_depth has the places by rows, and
    torch.nn.PixelUnshuffle all places of a channel together.
    """

    combines: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["space_to_depth"]
    block_size: Size

    def output_shape(self, *shapes: Shape) -> Shape:
        channels, height, width = require_chw(shapes[0])
        n = self.block_size
        if height % n or width % n:
            message = f"block_size={n} must divide its {format_shape((height, width))} places"
            raise ShapeError("groups", message, "block_size")
        return n * n * channels, height // n, width // n

    def channels(self, *channels: Any) -> Any:
        return self.block_size * self.block_size * channels[0]

    def receptive_window(self, *shapes: Shape) -> tuple[Pair, Pair]:
        return (self.block_size, self.block_size), (self.block_size, self.block_size)
