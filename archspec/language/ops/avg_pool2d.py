"""avg_pool2d: the mean of each window."""

from math import prod
from typing import Literal

from archspec.language.ops.base import Counts, Pool2d, SavedTensors, Shape


class AvgPool2d(Pool2d):
    """y[c] = the mean of x[c] over a window, as torch.nn.AvgPool2d; `stride` is the window's own size unless given.

    (C, H, W) to (C, H', W'). Traps: the zeros of the padding count unless `count_include_pad` is false (PyTorch; Keras'
    `same` never counts them); what a window of `ceil_mode` hangs over the padding by never counts.
    """

    op: Literal["avg_pool2d"]
    count_include_pad: bool = True

    def counts(self, *shapes: Shape) -> Counts:
        out = prod(self.output_shape(*shapes))
        return {"add": out * (prod(self.kernel_size) - 1), "div": out, "stride_area": out * prod(self.strides)}

    def grad_counts(self, *shapes: Shape) -> Counts:
        out = prod(self.output_shape(*shapes))
        return {"add": out * prod(self.kernel_size), "div": out}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(input=True)
