"""split: one of several equal blocks of channels."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archspec.language.ops.base import Op, Shape, ShapeError, Size


class Split(Op):
    """The `index`-th, from 0, of `sections` equal blocks of channels or features: x.chunk(sections, dim=1)[index].

    (C, H, W) to (C / sections, H, W), or (F,) to (F / sections,). The input of one of several parallel branches.
    """

    combines: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["split"]
    sections: Size
    index: Annotated[int, Field(ge=0)]

    def output_shape(self, *shapes: Shape) -> Shape:
        if shapes[0][0] % self.sections:
            raise ShapeError(
                "sections", f"sections={self.sections} must divide its {shapes[0][0]} channels", "sections"
            )
        if self.index >= self.sections:
            raise ShapeError("sections", f"index={self.index} is past the last of {self.sections} sections", "index")
        return (shapes[0][0] // self.sections, *shapes[0][1:])
