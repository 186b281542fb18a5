"""max_pool2d: the largest value in each window."""

from math import prod
from typing import Literal

from archspec.language.ops.base import Counts, Pair, Pool2d, SavedTensors, Shape


class MaxPool2d(Pool2d):
    """y[c] = the maximum of x[c] over a window, as torch.nn.MaxPool2d; `stride` is the window's own size unless given.

    (C, H, W) to (C, H', W'). With a stride below the window's size the windows overlap (Krizhevsky et al. 2012, section
    3.4). Traps: padding never wins (it is minus infinity, not zero); `ceil_mode` (Caffe's rule) lets the last window
    hang over the edge.
    """

    op: Literal["max_pool2d"]
    dilation: Pair = (1, 1)

    def counts(self, *shapes: Shape) -> Counts:
        out = prod(self.output_shape(*shapes))
        return {"compare": out * prod(self.kernel_size), "stride_area": out * prod(self.strides)}

    def grad_counts(self, *shapes: Shape) -> Counts:
        return {"add": prod(self.output_shape(*shapes))}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(input=True, bytes=8 * prod(self.output_shape(*shapes)))  # whose maxima, as int64
