"""opaque: a layer of which only the shape and the number of parameters are known."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from archspec.language.ops.base import Op, Param, SavedTensors, Shape, Size


class Opaque(Op):
    """A layer that is counted and not computed: part of an imported model that no op is.

    Any inputs to `shape`, (C, H, W), (L, D) or (F,), by default that of the first input. `kind` says what it is, e.g.
    the class of the module.

    `check`, `report`, `compare` and `draw` work with it; no target has code for it, so `generate` and `verify` refuse.
    Trap: its operations are not counted, and the totals are too small by them.
    """

    inputs: ClassVar[tuple[int, int]] = (1, 2**31)
    is_opaque: ClassVar[bool] = True

    op: Literal["opaque"]
    kind: Annotated[str, Field(min_length=1, max_length=100)]
    shape: Annotated[tuple[Size, ...], Field(min_length=1, max_length=3, strict=False)] | None = None
    parameters: Annotated[int, Field(ge=0, le=2**40)] = 0

    def output_shape(self, *shapes: Shape) -> Shape:
        return self.shape or shapes[0]

    def channels(self, *channels: Any) -> Any:
        if self.shape is None:
            return channels[0]
        return self.shape[1] if len(self.shape) == 2 else self.shape[0]

    def params(self, *shapes: Shape) -> dict[str, Param]:
        return {"weight": Param((self.parameters,), "unknown")} if self.parameters else {}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(input=True, output=True)

    def receptive_window(self, *shapes: Shape) -> None:
        return None
