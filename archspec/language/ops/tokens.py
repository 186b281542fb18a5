"""tokens: the places of feature maps as a sequence."""

from math import prod
from typing import ClassVar, Literal

from archspec.language.ops.base import Op, Shape, require_chw


class Tokens(Op):
    """y[i W + j, c] = x[c, i, j], as x.flatten(2).transpose(1, 2) in PyTorch.

    (C, H, W) to (H * W, C): a token for each place, row by row. The patches of a vision transformer are a convolution
    whose stride is its kernel size, and then this (Dosovitskiy et al. 2021).
    """

    combines: ClassVar[bool] = True
    is_view: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["tokens"]

    def output_shape(self, *shapes: Shape) -> Shape:
        channels, *places = require_chw(shapes[0])
        return prod(places), channels
