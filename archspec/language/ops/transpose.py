"""transpose: tokens and features exchanged."""

from typing import Any, ClassVar, Literal

from archspec.language.ops.base import Op, Shape, require_tokens


class Transpose(Op):
    """y[d, l] = x[l, d]: tokens become features, as x.transpose(1, 2) in PyTorch.

    (L, D) to (D, L). Between two of them a linear layer mixes tokens (Tolstikhin et al. 2021, MLP-Mixer).
    """

    combines: ClassVar[bool] = True
    is_view: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["transpose"]

    def output_shape(self, *shapes: Shape) -> Shape:
        length, features = require_tokens(shapes[0])
        return features, length

    def channels(self, *channels: Any) -> Any:
        return None

    def receptive_window(self, *shapes: Shape) -> None:
        return None
