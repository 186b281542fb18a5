"""avg_pool2d: the mean of each window."""

from math import prod
from typing import Literal

from archspec.ops.base import Counts, Op, Padding, Pair, Shape, ShapeError, Sides, Weights, maps, sides, slide, times


class AvgPool2d(Op):
    """y[c] = the mean of x[c] over a window, as torch.nn.AvgPool2d; `stride` is the window's own size unless given.

    (C, H, W) to (C, H', W'). Traps: the zeros of the padding count unless `count_include_pad` is false (PyTorch; Keras'
    `same` never counts them); what a window of `ceil_mode` hangs over the padding by never counts.
    """

    op: Literal["avg_pool2d"]
    kernel_size: Pair
    stride: Pair | None = None
    padding: Padding = ((0, 0), (0, 0))
    ceil_mode: bool = False
    count_include_pad: bool = True

    @property
    def strides(self) -> Pair:
        """The stride that holds: the one given, or the window's size."""
        return self.stride or self.kernel_size

    def sides(self, shape: Shape) -> tuple[Sides, Sides]:
        """Return the zeros around maps of `shape`: ((top, bottom), (left, right))."""
        return sides(self.padding, shape, self.kernel_size, self.strides)

    def output_shape(self, *shapes: Shape) -> Shape:
        channels = maps(shapes[0])[0]
        padding = self.sides(shapes[0])
        if any(max(pad) > k // 2 for pad, k in zip(padding, self.kernel_size, strict=True)):
            raise ShapeError("padding", f"padding is at most half its window of {times(self.kernel_size)}", "padding")
        return (channels, *slide(shapes[0], self.kernel_size, self.strides, padding, ceil_mode=self.ceil_mode))

    def weights(self, *shapes: Shape) -> Weights:
        return {}

    def counts(self, *shapes: Shape) -> Counts:
        out = prod(self.output_shape(*shapes))
        return {"add": out * (prod(self.kernel_size) - 1), "div": out, "stride_area": out * prod(self.strides)}

    def gradient_counts(self, *shapes: Shape) -> Counts:
        out = prod(self.output_shape(*shapes))
        return {"add": out * prod(self.kernel_size), "div": out}
