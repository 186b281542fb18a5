"""max_pool2d: the largest value in each window."""

from math import prod
from typing import Literal

from archspec.ops.base import Counts, Op, Padding, Pair, Shape, ShapeError, Sides, Weights, maps, sides, slide, times


class MaxPool2d(Op):
    """y[c] = the maximum of x[c] over a window, as torch.nn.MaxPool2d; `stride` is the window's own size unless given.

    (C, H, W) to (C, H', W'). With a stride below the window's size the windows overlap (Krizhevsky et al. 2012, section
    3.4). Traps: padding never wins (it is minus infinity, not zero); `ceil_mode` (Caffe's rule) lets the last window
    hang over the edge.
    """

    op: Literal["max_pool2d"]
    kernel_size: Pair
    stride: Pair | None = None
    padding: Padding = ((0, 0), (0, 0))
    ceil_mode: bool = False

    @property
    def strides(self) -> Pair:
        """The stride that holds: the one given, or the window's size."""
        return self.stride or self.kernel_size

    def sides(self, shape: Shape) -> tuple[Sides, Sides]:
        """Return what surrounds maps of `shape`: ((top, bottom), (left, right))."""
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
        return {"compare": out * prod(self.kernel_size), "stride_area": out * prod(self.strides)}

    def gradient_counts(self, *shapes: Shape) -> Counts:
        return {"add": prod(self.output_shape(*shapes))}
