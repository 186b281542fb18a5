"""flatten: maps as one vector."""

from math import prod
from typing import ClassVar, Literal

from archspec.ops.base import Counts, Kept, Op, Pair, Shape, Weights


class Flatten(Op):
    """(C, H, W) to (C * H * W,), the last index fastest, as torch.nn.Flatten.

    Trap: a channels-last framework flattens in H, W, C order; what reads the vector has to have its weights permuted.
    """

    op: Literal["flatten"]
    is_view: ClassVar[bool] = True

    def reach(self, *shapes: Shape) -> tuple[Pair, Pair]:
        return (shapes[0][1], shapes[0][2]) if len(shapes[0]) == 3 else (1, 1), (1, 1)

    def output_shape(self, *shapes: Shape) -> Shape:
        return (prod(shapes[0]),)

    def weights(self, *shapes: Shape) -> Weights:
        return {}

    def counts(self, *shapes: Shape) -> Counts:
        return {}

    def gradient_counts(self, *shapes: Shape) -> Counts:
        return {}

    def kept(self, *shapes: Shape) -> Kept:
        return Kept()
