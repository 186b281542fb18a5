"""split: one of several blocks of channels."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from archspec.language.ops.base import Op, Shape, ShapeError, Size, channels_of, with_channels


class Split(Op):
    """The `index`-th, from 0, of several blocks of channels or features: the input of one of parallel branches.

    (C, H, W) to (C / sections, H, W) for `sections` equal blocks, as x.chunk(sections, dim=1)[index]; to
    (sizes[index], H, W) for blocks of given `sizes`, whose sum is C, as x.split(sizes, dim=1)[index]. Vectors likewise,
    and tokens by their features.
    """

    combines: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True

    op: Literal["split"]
    sections: Size | None = None
    sizes: Annotated[list[Size], Field(min_length=1, max_length=1000)] | None = None
    index: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _one(self) -> "Split":
        if (self.sections is None) == (self.sizes is None):
            raise PydanticCustomError("wrong-value", "split needs either sections or sizes")
        return self

    def output_shape(self, *shapes: Shape) -> Shape:
        channels = channels_of(shapes[0])
        if self.sections and channels % self.sections:
            raise ShapeError("sections", f"sections={self.sections} must divide its {channels} channels", "sections")
        if self.sizes and sum(self.sizes) != channels:
            message = f"the sum of sizes, {sum(self.sizes)}, must be its {channels} channels"
            raise ShapeError("sections", message, "sizes")
        count = self.sections or len(self.sizes or [])
        if self.index >= count:
            raise ShapeError("sections", f"index={self.index} is past the last of {count} sections", "index")
        return with_channels(shapes[0], self.sizes[self.index] if self.sizes else channels // count)

    def channels(self, *channels: Any) -> Any:
        return self.sizes[self.index] if self.sizes else channels[0] // self.sections
