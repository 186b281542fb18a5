"""local_response_norm: normalization by the squares of neighbouring values."""

from math import prod
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archspec.language.ops.base import Counts, Op, Pair, SavedTensors, Shape, ShapeError, Size, require_chw


class LocalResponseNorm(Op):
    """y = x / (k + alpha / n * sum of x^2 over a window of n values around it)^beta, as torch.nn.LocalResponseNorm.

    (C, H, W), unchanged. The window is `size` channels at the same place (n = size). With `groups` it stays within each
    of as many blocks of channels, as in the authors' code of 2012, which normalises within each of its two towers. With
    `norm_region: within_channel` (Caffe's words) it is size x size values of the same channel (n = size^2). Beyond the
    edges there are zeros.

    Trap: `alpha` is divided by n here, in Caffe, cuDNN, ONNX and the authors' code; it is not in the formula that the
    paper prints (Krizhevsky et al. 2012, section 3.3) nor in tf.nn.local_response_normalization, whose `depth_radius` r
    is (size - 1) / 2. An even size has no center and frameworks disagree, so it is an error.
    """

    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["local_response_norm"]
    size: Size
    alpha: Annotated[float, Field(ge=0, le=1e15)] = 1e-4
    beta: Annotated[float, Field(ge=0, le=100)] = 0.75
    k: Annotated[float, Field(ge=1e-15, le=1e15)] = 1.0
    groups: Size = 1
    norm_region: Literal["across_channels", "within_channel"] = "across_channels"

    def receptive_window(self, *shapes: Shape) -> tuple[Pair, Pair]:
        side = self.size if self.norm_region == "within_channel" else 1
        return (side, side), (1, 1)

    def output_shape(self, *shapes: Shape) -> Shape:
        channels = require_chw(shapes[0])[0]
        if self.size % 2 == 0:
            raise ShapeError("even-size", f"size={self.size} must be odd: an even window has no center", "size")
        if channels % self.groups:
            raise ShapeError("groups", f"groups={self.groups} must divide its {channels} channels", "groups")
        if self.groups > 1 and self.norm_region == "within_channel":
            raise ShapeError("groups", "groups needs norm_region: across_channels", "groups")
        return shapes[0]

    def counts(self, *shapes: Shape) -> Counts:
        n, (channels, height, width) = prod(shapes[0]), require_chw(shapes[0])
        window = self.size if self.norm_region == "across_channels" else self.size**2
        padded = (channels + self.size - 1) * height * width if self.norm_region == "across_channels" else n
        # x^2, times alpha / n; the sum of the window, and k; the power; the division
        return {"mul": 2 * n, "add": window * n, "pow": n, "div": n, "padded": padded}

    def grad_counts(self, *shapes: Shape) -> Counts:
        # dy s^-beta - 2 alpha beta / n x sum of (dy y / s), with s the forward's denominator before its power
        forward = self.counts(*shapes)
        n = prod(shapes[0])
        return {"pow": n, "mul": 4 * n, "div": n, "add": forward["add"]}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        # the squares (padded along the channels by avg_pool3d), the denominator before its power and after
        n = prod(shapes[0])
        return SavedTensors(input=True, elements=2 * n + self.counts(*shapes)["padded"], workspace=3 * n)
