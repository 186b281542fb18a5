"""select: one token of a sequence."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archspec.language.ops.base import Op, Shape, ShapeError, require_tokens


class Select(Op):
    """y = x[index], the token at `index`, from 0: the class token of a vision transformer is number 0.

    (L, D) to (D,), as x[:, index] in PyTorch.
    """

    combines: ClassVar[bool] = True
    is_view: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["select"]
    index: Annotated[int, Field(ge=0, le=2**31 - 1)]

    def output_shape(self, *shapes: Shape) -> Shape:
        length, features = require_tokens(shapes[0])
        if self.index >= length:
            raise ShapeError("sections", f"index={self.index} is past the last of {length} tokens", "index")
        return (features,)
