"""maps: the tokens of a sequence as places of feature maps."""

from typing import ClassVar, Literal

from archspec.language.ops.base import Op, Shape, ShapeError, Size, require_tokens


class Maps(Op):
    """y[c, i, j] = x[i W + j, c], as x.transpose(1, 2).unflatten(2, (height, -1)) in PyTorch.

    (L, D) to (D, height, W), where W is L / height: the inverse of `tokens`, row by row.
    """

    combines: ClassVar[bool] = True
    is_view: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["maps"]
    height: Size

    def output_shape(self, *shapes: Shape) -> Shape:
        length, features = require_tokens(shapes[0])
        if length % self.height:
            raise ShapeError("sections", f"height={self.height} must divide its {length} tokens", "height")
        return features, self.height, length // self.height

    def receptive_window(self, *shapes: Shape) -> None:
        return None  # rows of other lengths than those of the maps that the tokens were
