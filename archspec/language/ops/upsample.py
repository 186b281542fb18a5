"""upsample: feature maps enlarged by whole factors."""

from fractions import Fraction
from math import prod
from typing import ClassVar, Literal

from archspec.language.ops.base import Counts, Op, Pair, Rational, Shape, ShapeError, require_chw


class Upsample(Op):
    """(C, H, W) to (C, H scale_factor, W scale_factor), as torch.nn.Upsample.

    `nearest` repeats values. `bilinear` interpolates between the centers of the places: y[i] is at (i + 0.5) /
    scale_factor - 0.5 of x, cut at the first and last; with `align_corners`, at i (H - 1) / (H' - 1), so that corners
    stay. Trap: tf.image.resize computes in float32, whatever the dtype (8e-8 off).
    """

    channelwise: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["upsample"]
    scale_factor: Pair
    mode: Literal["nearest", "bilinear"] = "nearest"
    align_corners: bool = False

    def output_shape(self, *shapes: Shape) -> Shape:
        channels, height, width = require_chw(shapes[0])
        if self.align_corners and self.mode == "nearest":
            raise ShapeError("wrong-value", "align_corners is for mode: bilinear", "align_corners")
        return channels, height * self.scale_factor[0], width * self.scale_factor[1]

    def counts(self, *shapes: Shape) -> Counts:
        out = prod(self.output_shape(*shapes))
        return {"copied": out} if self.mode == "nearest" else {"mul": 4 * out, "add": 3 * out}

    def grad_counts(self, *shapes: Shape) -> Counts:
        out = prod(self.output_shape(*shapes))
        return {"add": out} if self.mode == "nearest" else {"mul": 4 * out, "add": 4 * out}

    def receptive_window(self, *shapes: Shape) -> tuple[Pair, tuple[Rational, Rational]]:
        size = 1 if self.mode == "nearest" else 2
        return (size, size), (Fraction(1, self.scale_factor[0]), Fraction(1, self.scale_factor[1]))
