"""shifted_window_attention: self-attention within windows of feature maps."""

from math import prod
from typing import Any, ClassVar, Literal

from archspec.language.initializers import NO_INIT, Init, Normal, Zeros
from archspec.language.ops.base import (
    Counts,
    Margin,
    Op,
    Pair,
    Param,
    SavedTensors,
    Shape,
    ShapeError,
    Size,
    format_shape,
    require_chw,
)


class ShiftedWindowAttention(Op):
    """softmax(q k^T / sqrt(C / num_heads) + B) v of each head, within windows of the maps (Liu et al. 2021, Swin).

    (C, H, W), unchanged; zeros are added below and right until windows fit. The maps are first rolled up and left by
    `shift_size`, but not along an axis that one window covers, and 100 is subtracted from the scores of places that
    were no neighbours. B is `relative_position_bias_table`, ((2 h - 1) (2 w - 1), num_heads) for windows of h x w, at
    the distance between two places. `qkv_weight` is (3 C, C), `proj_weight` (C, C). As torchvision's module of that
    name, which has (N, H, W, C). By default biases are 0 and the table is N(0, 0.02^2), whatever `init` says.
    """

    saturates: ClassVar[bool] = True

    op: Literal["shifted_window_attention"]
    num_heads: Size
    window_size: Pair
    shift_size: Margin = (0, 0)
    bias: bool = True
    init: Init = NO_INIT

    def output_shape(self, *shapes: Shape) -> Shape:
        channels, *_ = require_chw(shapes[0])
        if channels % self.num_heads:
            message = f"num_heads={self.num_heads} must divide its {channels} channels"
            raise ShapeError("groups", message, "num_heads")
        if any(s >= w for s, w in zip(self.shift_size, self.window_size, strict=True)):
            message = f"shift_size must be less than window_size, {format_shape(self.window_size)}"
            raise ShapeError("padding", message, "shift_size")
        return shapes[0]

    def windows(self, shape: Shape) -> int:
        """Return how many windows cover maps of `shape`."""
        return prod(-(-n // w) for n, w in zip(shape[1:], self.window_size, strict=True))

    def params(self, *shapes: Shape) -> dict[str, Param]:
        c = shapes[0][0]
        height, width = self.window_size
        table = Param(((2 * height - 1) * (2 * width - 1), self.num_heads), "embedding")
        found = {"relative_position_bias_table": table, "qkv_weight": Param((3 * c, c), "kernel")}
        if self.bias:
            found["qkv_bias"] = Param((3 * c,), "bias")
        found["proj_weight"] = Param((c, c), "kernel")
        if self.bias:
            found["proj_bias"] = Param((c,), "bias")
        return found

    def torch_default(self, param: str) -> Any:
        if param == "relative_position_bias_table":
            return Normal.model_construct(mean=0.0, std=0.02)
        return Zeros.model_construct() if param.endswith("bias") else None

    def counts(self, *shapes: Shape) -> Counts:
        c, windows, length = shapes[0][0], self.windows(shapes[0]), prod(self.window_size)
        places = windows * length
        scores = self.num_heads * places * length
        found = {"mac": 4 * places * c * c, "matmul": 2 * places * length * c, "mul": places * c}
        found |= {"exp": scores, "add": 2 * scores - self.num_heads * places, "div": scores}
        return {**found, "bias_add": 4 * places * c} if self.bias else found

    def grad_counts(self, *shapes: Shape) -> Counts:
        c, windows, length = shapes[0][0], self.windows(shapes[0]), prod(self.window_size)
        places = windows * length
        scores = self.num_heads * places * length
        found = {"mac": 4 * places * c * c, "matmul": 4 * places * length * c, "mul": places * c + 2 * scores}
        return {**found, "add": 3 * scores - self.num_heads * places}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        c, length = shapes[0][0], prod(self.window_size)
        places = self.windows(shapes[0]) * length
        return SavedTensors(elements=5 * places * c + 2 * self.num_heads * places * length)

    def receptive_window(self, *shapes: Shape) -> tuple[Pair, Pair]:
        rows, columns = (
            min(2 * w - 1, 2 * n - 1) for n, w in zip(shapes[0][1:], self.window_size, strict=True)
        )  # at most one window's places, as far as they are away
        return (rows, columns), (1, 1)
