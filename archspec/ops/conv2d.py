"""conv2d: a cross-correlation with learned kernels."""

from typing import Literal

from archspec.inits import NO_INIT, Init
from archspec.ops.base import (
    Counts,
    Kept,
    Op,
    Padding,
    Pair,
    Shape,
    ShapeError,
    Sides,
    Size,
    Weights,
    maps,
    sides,
    slide,
)


class Conv2d(Op):
    """y[o] = bias[o] + sum over i of weight[o, i] cross-correlated with x[i], as torch.nn.Conv2d.

    (C, H, W) to (out_channels, H', W'). `weight` is (out_channels, C / groups, kernel height, kernel width), its group
    g reading the g-th block of C / groups input channels and giving the g-th block of outputs (Krizhevsky et al. 2012,
    figure 2, with groups 2). Padding is with zeros. Trap: strided `same` is TensorFlow's (PyTorch refuses it), and is
    not symmetric.
    """

    op: Literal["conv2d"]
    out_channels: Size
    kernel_size: Pair
    stride: Pair = (1, 1)
    padding: Padding = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: Size = 1
    bias: bool = True
    init: Init = NO_INIT

    def sides(self, shape: Shape) -> tuple[Sides, Sides]:
        """Return the zeros added to maps of `shape`: ((top, bottom), (left, right))."""
        return sides(self.padding, shape, self.kernel_size, self.stride, self.dilation)

    def reach(self, *shapes: Shape) -> tuple[Pair, Pair]:
        rows, columns = (d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel_size, strict=True))
        return (rows, columns), self.stride

    def output_shape(self, *shapes: Shape) -> Shape:
        channels = maps(shapes[0])[0]
        if channels % self.groups or self.out_channels % self.groups:
            raise ShapeError(
                "groups",
                f"groups={self.groups} must divide its {channels} input and {self.out_channels} output channels",
                "groups",
            )
        padding = self.sides(shapes[0])
        return (self.out_channels, *slide(shapes[0], self.kernel_size, self.stride, padding, self.dilation))

    def weights(self, *shapes: Shape) -> Weights:
        weight = (self.out_channels, shapes[0][0] // self.groups, *self.kernel_size)
        return {"weight": weight, "bias": (self.out_channels,)} if self.bias else {"weight": weight}

    def counts(self, *shapes: Shape) -> Counts:
        out, height, width = self.output_shape(*shapes)
        positions = out * height * width
        macs = positions * (shapes[0][0] // self.groups) * self.kernel_size[0] * self.kernel_size[1]
        return {"mac": macs, "bias_add": positions} if self.bias else {"mac": macs}

    def gradient_counts(self, *shapes: Shape) -> Counts:
        return {"mac": self.counts(*shapes)["mac"]}

    def kept(self, *shapes: Shape) -> Kept:
        return Kept(inputs=True)
