"""linear: a matrix product with learned weights."""

from typing import Any, Literal

from archspec.language.initializers import NO_INIT, Init
from archspec.language.ops.base import (
    Counts,
    Op,
    Param,
    SavedTensors,
    Shape,
    ShapeError,
    Size,
    channels_of,
    format_shape,
    positions_of,
    with_channels,
)


class Linear(Op):
    """y = weight x + bias, as torch.nn.Linear (Keras: Dense, whose kernel is the transpose).

    (F,) to (out_features,), or (L, D) to (L, out_features), each token by itself. `weight` is (out_features, F). Trap:
    a vector that was flattened from feature maps is in (C, H, W) order here, and in (H, W, C) order in a channels-last
    framework.
    """

    op: Literal["linear"]
    out_features: Size
    bias: bool = True
    init: Init = NO_INIT

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(shapes[0]) == 3:
            raise ShapeError(
                "not-flat", f"reads a vector, not feature maps of {format_shape(shapes[0])}: put a flatten before it"
            )
        return with_channels(shapes[0], self.out_features)

    def channels(self, *channels: Any) -> Any:
        return self.out_features

    def params(self, *shapes: Shape) -> dict[str, Param]:
        weight = Param((self.out_features, channels_of(shapes[0])), "kernel")
        return {"weight": weight, "bias": Param((self.out_features,), "bias")} if self.bias else {"weight": weight}

    def counts(self, *shapes: Shape) -> Counts:
        out = self.out_features * positions_of(shapes[0])
        macs = out * channels_of(shapes[0])
        return {"mac": macs, "bias_add": out} if self.bias else {"mac": macs}

    def grad_counts(self, *shapes: Shape) -> Counts:
        return {"mac": self.counts(*shapes)["mac"]}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        return SavedTensors(input=True)
