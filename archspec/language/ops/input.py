"""input: the network's input."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from archspec.language.ops.base import Shape, Size


class Input(BaseModel):
    """The network's input: feature maps (C, H, W) or, with `features`, vectors (F,); batch first in both."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        defer_build=True,
        json_schema_extra={
            "oneOf": [{"required": ["features"], "maxProperties": 1}, {"required": ["channels", "height", "width"]}]
        },
    )

    op: ClassVar[str] = "input"
    name: ClassVar[str] = "input"
    is_view: ClassVar[bool] = True

    channels: Size | None = None
    height: Size | None = None
    width: Size | None = None
    features: Size | None = None

    @model_validator(mode="after")
    def _one(self) -> "Input":
        maps = (self.channels, self.height, self.width)
        if self.features is None and None in maps:
            missing = next(name for name in ("channels", "height", "width") if getattr(self, name) is None)
            raise PydanticCustomError("missing-key", "needs {missing}", {"missing": missing})
        if self.features is not None and maps != (None, None, None):
            raise PydanticCustomError("wrong-value", "has either features or channels, height and width")
        return self

    def output_shape(self) -> Shape:
        """Return (C, H, W), or (F,)."""
        if self.features is not None:
            return (self.features,)
        assert self.channels
        assert self.height
        assert self.width
        return self.channels, self.height, self.width
