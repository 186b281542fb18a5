"""input: what the network reads."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from archspec.ops.base import Counts, Shape, Size, Weights


class Input(BaseModel):
    """Maps of (channels, height, width), batch first: (N, C, H, W). Not a layer, but what the first one reads."""

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

    def weights(self) -> Weights:
        """Return no weights."""
        return {}

    def counts(self) -> Counts:
        """Return nothing: it is given."""
        return {}
