"""local_response_norm: each value divided by what its neighbours do."""

from math import prod
from typing import Annotated, Literal

from pydantic import Field

from archspec.ops.base import Counts, Kept, Op, Pair, Shape, ShapeError, Size, Weights, maps


class LocalResponseNorm(Op):
    """y = x / (k + alpha / n * sum of x^2 over a window of n values around it)^beta, as torch.nn.LocalResponseNorm.

    (C, H, W), unchanged. The window is `size` channels at the same place (n = size). With `groups` it stays within each
    of as many blocks of channels, as in the authors' code of 2012, which normalises within each of its two towers. With
    `norm_region: within_channel` (Caffe's words) it is size x size values of the same channel (n = size^2). Beyond the
    edges there are zeros.

    Trap: `alpha` is divided by n here, in Caffe, cuDNN, ONNX and the authors' code; it is not in the formula that the
    paper prints (Krizhevsky et al. 2012, section 3.3) nor in tf.nn.local_response_normalization, whose `depth_radius` r
    means a size of 2 r + 1. An even size has no middle: frameworks disagree, so it is refused.
    """

    op: Literal["local_response_norm"]
    size: Size
    alpha: Annotated[float, Field(ge=0, le=1e15)] = 1e-4
    beta: Annotated[float, Field(ge=0, le=100)] = 0.75
    k: Annotated[float, Field(ge=1e-15, le=1e15)] = 1.0
    groups: Size = 1
    norm_region: Literal["across_channels", "within_channel"] = "across_channels"

    def reach(self, *shapes: Shape) -> tuple[Pair, Pair]:
        side = self.size if self.norm_region == "within_channel" else 1
        return (side, side), (1, 1)

    def output_shape(self, *shapes: Shape) -> Shape:
        channels = maps(shapes[0])[0]
        if self.size % 2 == 0:
            raise ShapeError("even-size", f"size={self.size} has no middle: give an odd one", "size")
        if channels % self.groups:
            raise ShapeError("groups", f"groups={self.groups} must divide its {channels} channels", "groups")
        if self.groups > 1 and self.norm_region == "within_channel":
            raise ShapeError("groups", "within a channel there are no groups of channels", "groups")
        return shapes[0]

    def weights(self, *shapes: Shape) -> Weights:
        return {}

    def counts(self, *shapes: Shape) -> Counts:
        n, (channels, height, width) = prod(shapes[0]), maps(shapes[0])
        window = self.size if self.norm_region == "across_channels" else self.size**2
        padded = (channels + self.size - 1) * height * width if self.norm_region == "across_channels" else n
        # x^2, times alpha / n; the sum of the window, and k; the power; the division
        return {"mul": 2 * n, "add": window * n, "pow": n, "div": n, "padded": padded}

    def gradient_counts(self, *shapes: Shape) -> Counts:
        # dy s^-beta - 2 alpha beta / n x sum of (dy y / s), with s the forward's denominator before its power
        forward = self.counts(*shapes)
        n = prod(shapes[0])
        return {"pow": n, "mul": 4 * n, "div": n, "add": forward["add"]}

    def kept(self, *shapes: Shape) -> Kept:
        n = prod(shapes[0])
        # the denominator before its power and after; within a channel the squares too
        across = self.norm_region == "across_channels"
        return Kept(inputs=True, values=2 * n if across else 3 * n, passing=3 * n)
