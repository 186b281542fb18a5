"""input: the network's input."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from archspec.language.ops.base import Shape, Size


class Input(BaseModel):
    """The network's input: feature maps (C, H, W), batch first: (N, C, H, W)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    op: ClassVar[str] = "input"
    name: ClassVar[str] = "input"
    is_view: ClassVar[bool] = True

    channels: Size
    height: Size
    width: Size

    def output_shape(self) -> Shape:
        """Return (C, H, W)."""
        return self.channels, self.height, self.width
