"""conv_transpose2d: the transpose of a convolution, which enlarges feature maps."""

from fractions import Fraction
from math import prod
from typing import Any, Literal

from archspec.language.initializers import NO_INIT, Init
from archspec.language.ops.base import (
    Counts,
    Margin,
    Op,
    Pair,
    Param,
    Rational,
    SavedTensors,
    Shape,
    ShapeError,
    Size,
    format_shape,
    require_chw,
)


class ConvTranspose2d(Op):
    """Adds weight[i, o] x[i, r, c] to y[o] at (r, c) stride - padding, for every place, as torch.nn.ConvTranspose2d.

    (C, H, W) to (out_channels, H', W') with H' = (H - 1) stride - 2 padding + dilation (kernel_size - 1) +
    output_padding + 1. `weight` is (C, out_channels / groups, kernel height, kernel width). Trap: Keras' `same` is
    another padding (for a kernel of 3, a stride of 2 and output_padding 1 it is more than 100 % off), and its
    output_padding has another meaning.
    """

    op: Literal["conv_transpose2d"]
    out_channels: Size
    kernel_size: Pair
    stride: Pair = (1, 1)
    padding: Margin = (0, 0)
    output_padding: Margin = (0, 0)
    dilation: Pair = (1, 1)
    groups: Size = 1
    bias: bool = True
    init: Init = NO_INIT

    @property
    def extent(self) -> Pair:
        """The rows and columns that one input value reaches."""
        rows, columns = (d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel_size, strict=True))
        return rows, columns

    def output_shape(self, *shapes: Shape) -> Shape:
        channels, *sizes = require_chw(shapes[0])
        if channels % self.groups or self.out_channels % self.groups:
            raise ShapeError(
                "groups",
                f"groups={self.groups} must divide its {channels} input and {self.out_channels} output channels",
                "groups",
            )
        if any(o >= max(s, d) for o, s, d in zip(self.output_padding, self.stride, self.dilation, strict=True)):
            message = "output_padding must be less than the stride or the dilation"
            raise ShapeError("padding", message, "output_padding")
        axes = zip(sizes, self.stride, self.padding, self.extent, self.output_padding, strict=True)
        out = [(n - 1) * s - 2 * p + k + o for n, s, p, k, o in axes]
        if min(out) < 1:
            message = f"padding={format_shape(self.padding)} leaves nothing of {format_shape(tuple(sizes))} places"
            raise ShapeError("padding", message, "padding")
        return (self.out_channels, *out)

    def channels(self, *channels: Any) -> Any:
        return self.out_channels

    def params(self, *shapes: Shape) -> dict[str, Param]:
        weight = Param((shapes[0][0], self.out_channels // self.groups, *self.kernel_size), "kernel")
        return {"weight": weight, "bias": Param((self.out_channels,), "bias")} if self.bias else {"weight": weight}

    def counts(self, *shapes: Shape) -> Counts:
        channels, height, width = shapes[0]
        rows, columns = self.kernel_size
        found = {"mac": channels * height * width * (self.out_channels // self.groups) * rows * columns}
        outputs = prod(self.output_shape(*shapes))
        found["output_mac"] = outputs * (channels // self.groups) * rows * columns
        if self.bias:
            axes = zip((height, width), self.padding, self.extent, self.stride, strict=True)
            smaller = prod((n + 2 * p - k) // s + 1 for n, p, k, s in axes)
            found |= {"bias_add": outputs, "smaller_bias_add": self.out_channels * smaller}
        return found

    def grad_counts(self, *shapes: Shape) -> Counts:
        return {"mac": self.counts(*shapes)["mac"]}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(input=True)

    def receptive_window(self, *shapes: Shape) -> tuple[Pair, tuple[Rational, Rational]]:
        rows, columns = (-(-k // s) for k, s in zip(self.extent, self.stride, strict=True))
        return (rows, columns), (Fraction(1, self.stride[0]), Fraction(1, self.stride[1]))
