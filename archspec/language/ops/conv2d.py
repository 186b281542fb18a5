"""conv2d: a cross-correlation with learned kernels."""

from typing import Any, ClassVar, Literal

from archspec.language.initializers import NO_INIT, Init
from archspec.language.ops.base import (
    Counts,
    Op,
    Padding,
    Padding2d,
    Pair,
    Param,
    SavedTensors,
    Shape,
    ShapeError,
    Size,
    conv_output_hw,
    explicit_padding,
    require_chw,
)


class Conv2d(Op):
    """y[o] = bias[o] + sum over i of weight[o, i] cross-correlated with x[i], as torch.nn.Conv2d.

    (C, H, W) to (out_channels, H', W'). `weight` is (out_channels, C / groups, kernel height, kernel width), its group
    g reading the g-th block of C / groups input channels and giving the g-th block of outputs (Krizhevsky et al. 2012,
    figure 2, with groups 2). Padding is with zeros. Trap: strided `same` is TensorFlow's (PyTorch refuses it), and is
    not symmetric.
    """

    windowed: ClassVar[bool] = True

    op: Literal["conv2d"]
    out_channels: Size
    kernel_size: Pair
    stride: Pair = (1, 1)
    padding: Padding = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: Size = 1
    bias: bool = True
    init: Init = NO_INIT

    @property
    def strides(self) -> Pair:
        """The stride in effect."""
        return self.stride

    def explicit_padding(self, shape: Shape) -> Padding2d:
        """Return ((top, bottom), (left, right)) for an input of `shape`."""
        return explicit_padding(self.padding, shape, self.kernel_size, self.stride, self.dilation)

    def receptive_window(self, *shapes: Shape) -> tuple[Pair, Pair]:
        rows, columns = (d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel_size, strict=True))
        return (rows, columns), self.stride

    def output_shape(self, *shapes: Shape) -> Shape:
        channels = require_chw(shapes[0])[0]
        if channels % self.groups or self.out_channels % self.groups:
            raise ShapeError(
                "groups",
                f"groups={self.groups} must divide its {channels} input and {self.out_channels} output channels",
                "groups",
            )
        padding = self.explicit_padding(shapes[0])
        return (self.out_channels, *conv_output_hw(shapes[0], self.kernel_size, self.stride, padding, self.dilation))

    def channels(self, *channels: Any) -> Any:
        return self.out_channels

    def params(self, *shapes: Shape) -> dict[str, Param]:
        weight = Param((self.out_channels, shapes[0][0] // self.groups, *self.kernel_size), "kernel")
        return {"weight": weight, "bias": Param((self.out_channels,), "bias")} if self.bias else {"weight": weight}

    def counts(self, *shapes: Shape) -> Counts:
        out, height, width = self.output_shape(*shapes)
        positions = out * height * width
        macs = positions * (shapes[0][0] // self.groups) * self.kernel_size[0] * self.kernel_size[1]
        return {"mac": macs, "bias_add": positions} if self.bias else {"mac": macs}

    def grad_counts(self, *shapes: Shape) -> Counts:
        return {"mac": self.counts(*shapes)["mac"]}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(input=True)
