"""split: one of several equal blocks of channels."""

from typing import Annotated, Literal

from pydantic import Field

from archspec.ops.base import Counts, Kept, Op, Shape, ShapeError, Size, Weights


class Split(Op):
    """The `index`-th, from 0, of `sections` equal blocks of channels or features: x.chunk(sections, dim=1)[index].

    (C, H, W) to (C / sections, H, W), or (F,) to (F / sections,). What a tower of its own reads.
    """

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

    def weights(self, *shapes: Shape) -> Weights:
        return {}

    def counts(self, *shapes: Shape) -> Counts:
        return {}

    def gradient_counts(self, *shapes: Shape) -> Counts:
        return {}

    def kept(self, *shapes: Shape) -> Kept:
        return Kept()
