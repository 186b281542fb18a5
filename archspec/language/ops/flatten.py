"""flatten: feature maps, or tokens, as one vector."""

from math import prod
from typing import Any, ClassVar, Literal

from archspec.language.ops.base import Op, Pair, Shape


class Flatten(Op):
    """(C, H, W) to (C * H * W,), or (L, D) to (L * D,), the last index fastest, as torch.nn.Flatten.

    Trap: a channels-last framework flattens in H, W, C order; what reads the vector has to have its weights permuted.
    """

    is_view: ClassVar[bool] = True
    channelwise: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["flatten"]

    def channels(self, *channels: Any) -> Any:
        return None

    def receptive_window(self, *shapes: Shape) -> tuple[Pair, Pair] | None:
        if len(shapes[0]) == 1:
            return (1, 1), (1, 1)
        return ((shapes[0][1], shapes[0][2]), (1, 1)) if len(shapes[0]) == 3 else None

    def output_shape(self, *shapes: Shape) -> Shape:
        return (prod(shapes[0]),)
