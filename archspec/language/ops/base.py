"""The interface of an op, and the arithmetic that several ops share."""

from __future__ import annotations

from abc import ABC
from fractions import Fraction
from math import prod
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from archspec.language.names import NAMES_SCHEMA, LayerName, Reason, one_or_more

Shape = tuple[int, ...]  # (C, H, W), (L, D) or (F,), without the batch
Padding2d = tuple[tuple[int, int], tuple[int, int]]  # ((top, bottom), (left, right))
Rational = int | Fraction
DTYPES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}  # bytes
Counts = dict[str, int]  # operations for one sample, by KINDS

# The kinds of operations that are counted. From `padded` on they are what some tools count.
KINDS = {
    "mac": "multiply-accumulates of weights with inputs",
    "matmul": "multiply-accumulates of activations with activations",
    "bias_add": "adds of biases",
    "compare": "comparisons",
    "add": "other adds",
    "mul": "other multiplies",
    "div": "divides",
    "pow": "powers",
    "exp": "exponentials",
    "random": "random draws, in training",
    "padded": "values of the feature maps after local_response_norm has padded their channels on both sides",
    "copied": "values that are repeated",
    "output_mac": "multiply-accumulates of a transposed convolution if each output read a kernel, as some tools count",
    "smaller_bias_add": "its adds of biases if it made feature maps smaller, as one tool counts",
    "stride_area": "positions of a window times the area of its stride",
}

# The warnings that a layer may `allow`: see archspec/analysis/lint.py.
Lint = Literal[
    "dropout-after-output",
    "opaque-layer",
    "relu-after-relu",
    "softmax-before-loss",
    "uncovered-rows",
    "unused-layer",
]

# Large enough for any network; small enough that the product of a few is still a readable number.
Size = Annotated[int, Field(ge=1, le=2**31 - 1)]

# The smallest epsilon is the square root of the smallest normal float32, so that it does not vanish there.
Epsilon = Annotated[float, Field(ge=1e-19, le=1.0)]

Role = Literal["kernel", "bias", "scale", "shift", "embedding", "unknown", "running_mean", "running_var"]
BUFFERS = ("running_mean", "running_var")


class ShapeError(ValueError):
    """Shapes that an op does not accept; `field` is the attribute to change, if one is at fault."""

    def __init__(self, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.field = field


class Param(NamedTuple):
    """A parameter or buffer of a layer, in PyTorch's layout.

    `role` selects its initialization, multipliers and layout: a `kernel` multiplies the layer's input.
    """

    shape: Shape
    role: Role

    @property
    def trainable(self) -> bool:
        """Whether gradients change it; buffers are not trainable."""
        return self.role not in BUFFERS


class SavedTensors(NamedTuple):
    """Tensors that autograd saves for the backward pass, besides parameters, for one sample."""

    input: bool = False
    output: bool = False
    elements: int = 0  # of other tensors, in the network's dtype
    bytes: int = 0  # of other tensors of a fixed dtype, e.g. int64 indices
    workspace: int = 0  # elements that the backward pass allocates and frees


class Op(BaseModel, ABC):
    """A layer as the spec writes it and, unchanged, the payload of a graph node.

    The fields here are common to all layers; a subclass adds its attributes and overrides the methods and traits whose
    defaults do not hold for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    op: str
    name: LayerName
    from_: Annotated[
        tuple[str, ...] | None,
        PlainValidator(lambda value: tuple(one_or_more(value, "a layer above"))),
        WithJsonSchema(NAMES_SCHEMA),
    ] = Field(None, alias="from")
    allow: dict[Lint, Reason] = {}

    inputs: ClassVar[tuple[int, int]] = (1, 1)  # minimum and maximum number of inputs

    # Traits. Code outside this package asks for these instead of listing ops by name.
    elementwise: ClassVar[bool] = False  # maps every value by the same function, wherever it is
    channelwise: ClassVar[bool] = False  # each output channel depends on the same channel of the inputs only
    is_view: ClassVar[bool] = False  # the output shares its input's memory
    random: ClassVar[bool] = False  # draws random numbers in training
    draws_samples: ClassVar[bool] = False  # one number for each sample, not for each value
    windowed: ClassVar[bool] = False  # slides a window: kernel_size, strides, dilation, explicit_padding
    pools: ClassVar[bool] = False  # reduces feature maps without parameters
    sizes_only: ClassVar[tuple[int, ...]] = ()  # inputs whose height and width it reads, not their values
    combines: ClassVar[bool] = False  # combines or selects tensors: an expression in code, not a layer
    in_line: ClassVar[bool] = False  # another op that PyTorch code computes in `forward`, without a module
    called_specially: ClassVar[bool] = False  # PyTorch's module takes more than one tensor, or does not return one
    rectifies: ClassVar[bool] = False  # changes negative values only
    nonnegative: ClassVar[bool] = False  # the output is never negative
    keeps_nonnegative: ClassVar[bool] = False  # the output of inputs that are never negative is never negative
    saturates: ClassVar[bool] = False  # the gradient vanishes for large inputs
    probabilities: ClassVar[bool] = False  # the output is between 0 and 1
    normalizes: ClassVar[bool] = False  # subtracts a mean and divides by a deviation of its input
    acts_in_training: ClassVar[tuple[str, ...]] = ()  # attributes that change nothing in evaluation
    is_opaque: ClassVar[bool] = False  # counted, not computed: no target has code for it
    depends_on_batch: ClassVar[bool] = False  # in training, a sample's output depends on the others of its batch

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the output shape, by default that of the input; raise ShapeError if `shapes` do not fit."""
        return shapes[0]

    def channels(self, *channels: Any) -> Any:
        """Return the channels of its output for those of its inputs; None if other sizes decide.

        In generated code of a block, where both the attributes and `channels` may be polynomials.
        """
        return channels[0]

    def params(self, *shapes: Shape) -> dict[str, Param]:
        """Return its parameters and buffers by name, e.g. `weight` and `bias`; by default none."""
        return {}

    def torch_default(self, param: str) -> Any:
        """Return the initializer that `torch_default` is for a parameter; None for that of most of PyTorch's layers."""
        return None

    def counts(self, *shapes: Shape) -> Counts:
        """Return the operations of the forward pass for one sample, by KINDS; by default none."""
        return {}

    def grad_counts(self, *shapes: Shape) -> Counts:
        """Return the operations of the gradient with respect to its inputs, by KINDS; by default none."""
        return {}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        """Return the tensors that PyTorch's autograd saves for the backward pass, for one sample."""
        return SavedTensors()

    def receptive_window(self, *shapes: Shape) -> tuple[Pair, tuple[Rational, Rational]] | None:
        """Return ((kh, kw), (sh, sw)): effective kernel size and stride, for receptive fields.

        The stride of an upsampling is a fraction. None if each position depends on all of its input.
        """
        return (1, 1), (1, 1)


def require_chw(shape: Shape) -> tuple[int, int, int]:
    """Return (C, H, W) of feature maps; raise ShapeError for a vector or tokens."""
    if len(shape) != 3:
        raise ShapeError("not-maps", f"reads feature maps (C, H, W), not {describe_shape(shape)}")
    c, h, w = shape
    return c, h, w


def require_tokens(shape: Shape) -> tuple[int, int]:
    """Return (L, D) of tokens; raise ShapeError for feature maps or a vector."""
    if len(shape) != 2:
        hint = ": put a tokens layer before it" if len(shape) == 3 else ""
        raise ShapeError("not-tokens", f"reads tokens (L, D), not {describe_shape(shape)}{hint}")
    length, features = shape
    return length, features


def describe_shape(shape: Shape) -> str:
    """Return a shape in words, e.g. `a vector of 9,216`."""
    if len(shape) == 1:
        return f"a vector of {shape[0]:,}"
    return f"{'tokens' if len(shape) == 2 else 'feature maps'} of {format_shape(shape)}"


def channels_of(shape: Shape) -> int:
    """Return C of (C, H, W), D of (L, D) or F of (F,)."""
    return shape[1] if len(shape) == 2 else shape[0]


def positions_of(shape: Shape) -> int:
    """Return H * W of (C, H, W), L of (L, D), 1 of (F,)."""
    return shape[0] if len(shape) == 2 else prod(shape[1:])


def with_channels(shape: Shape, channels: int) -> Shape:
    """Return `shape` with another number of channels."""
    return (shape[0], channels) if len(shape) == 2 else (channels, *shape[1:])


def format_shape(shape: Shape) -> str:
    """Return `shape` as text, e.g. `3 x 227 x 227`."""
    return " x ".join(map(str, shape))


# --- sliding windows -------------------------------------------------------------------------------------------------


def _pair(value: Any) -> tuple[int, int]:
    one = [value, value] if type(value) is int else value
    if not isinstance(one, list) or len(one) != 2 or not all(type(n) is int and 1 <= n < 2**31 for n in one):
        raise PydanticCustomError("wrong-value", "must be a positive whole number or [height, width]")
    return one[0], one[1]


def _margin(value: Any) -> tuple[int, int]:
    one = [value, value] if type(value) is int else value
    if not isinstance(one, list) or len(one) != 2 or not all(type(n) is int and 0 <= n < 2**31 for n in one):
        raise PydanticCustomError("wrong-value", "must be a whole number or [height, width]")
    return one[0], one[1]


def _padding(value: Any) -> Padding2d | Literal["same"]:
    return "same" if value == "same" else _sides(value, " or same")


def _sides(value: Any, others: str = "") -> Padding2d:
    sides: list[Any] = []
    if isinstance(value, dict) and set(value) <= {"top", "bottom", "left", "right"}:
        sides = [value.get(side, 0) for side in ("top", "bottom", "left", "right")]
    elif isinstance(value, list) and len(value) == 2:
        sides = [value[0], value[0], value[1], value[1]]
    elif type(value) is int:
        sides = [value] * 4
    if not sides or not all(type(n) is int and 0 <= n < 2**31 for n in sides):
        hint = {"valid": "; write 0", "same": "; write same"}.get(str(value)[:9].lower(), "") if others else ""
        either = "," if others else " or"
        message = f"must be a whole number, [height, width]{either} {{top, bottom, left, right}}{others}"
        raise PydanticCustomError("wrong-value", message, {"hint": hint})
    return (sides[0], sides[1]), (sides[2], sides[3])


def written_sides(top: int, bottom: int, left: int, right: int) -> Any:
    """Return a padding as a spec has it: a number, [height, width], or the sides that are not 0."""
    if top == bottom and left == right:
        return top if top == left else [top, left]
    sides = {"top": top, "bottom": bottom, "left": left, "right": right}
    return {side: size for side, size in sides.items() if size}


_POSITIVE = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
_ADDED = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}

# (height, width)
Pair = Annotated[
    tuple[int, int],
    PlainValidator(_pair),
    WithJsonSchema(
        {
            "description": "a positive whole number, or [height, width]",
            "oneOf": [_POSITIVE, {"type": "array", "items": _POSITIVE, "minItems": 2, "maxItems": 2}],
        }
    ),
]
# (height, width), 0 included
Margin = Annotated[
    tuple[int, int],
    PlainValidator(_margin),
    WithJsonSchema(
        {
            "description": "a whole number, or [height, width]",
            "oneOf": [_ADDED, {"type": "array", "items": _ADDED, "minItems": 2, "maxItems": 2}],
        }
    ),
]
_SIDES = [
    _ADDED,
    {"type": "array", "items": _ADDED, "minItems": 2, "maxItems": 2},
    {
        "type": "object",
        "properties": dict.fromkeys(("top", "bottom", "left", "right"), _ADDED),
        "additionalProperties": False,
    },
]
# ((top, bottom), (left, right))
Sides = Annotated[
    Padding2d,
    PlainValidator(_sides),
    WithJsonSchema(
        {"description": "zeros added on all sides, [height, width], or {top, bottom, left, right}", "oneOf": _SIDES}
    ),
]
Padding = Annotated[
    Padding2d | Literal["same"],
    PlainValidator(_padding),
    WithJsonSchema(
        {
            "description": "zeros added on all sides, [height, width], {top, bottom, left, right}, or same",
            "oneOf": [*_SIDES, {"const": "same"}],
        }
    ),
]


def conv_output_size(
    size: int, kernel: int, stride: int, padding: tuple[int, int], dilation: int = 1, *, ceil_mode: bool = False
) -> int:
    """Return the number of positions of a sliding window along an axis of `size`; 0 or less if not one fits.

    floor((size + before + after - dilation * (kernel - 1) - 1) / stride) + 1. With `ceil_mode`, rounded up, but the
    last window must not start in the padding after the input: PyTorch's rule (torch.nn.MaxPool2d).
    """
    span = size + sum(padding) - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return span // stride + 1 if span >= 0 else 0
    positions = -(-span // stride) + 1
    return positions - 1 if (positions - 1) * stride >= size + padding[0] else positions


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Return (before, after) of `padding: same`: ceil(size / stride) positions, an odd element after.

    TensorFlow's SAME. PyTorch has `same` for stride 1 only, where the two are equal.
    """
    positions = -(-size // stride)
    total = max((positions - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    return total // 2, total - total // 2


def explicit_padding(
    padding: Padding2d | Literal["same"], shape: Shape, kernel: Pair, stride: Pair, dilation: Pair = (1, 1)
) -> Padding2d:
    """Return ((top, bottom), (left, right)) that `padding` adds to feature maps of `shape`."""
    if padding != "same":
        return padding
    _, height, width = require_chw(shape)
    return (
        same_padding(height, kernel[0], stride[0], dilation[0]),
        same_padding(width, kernel[1], stride[1], dilation[1]),
    )


def conv_output_hw(
    shape: Shape,
    kernel: Pair,
    stride: Pair,
    padding: Padding2d,
    dilation: Pair = (1, 1),
    *,
    ceil_mode: bool = False,
) -> tuple[int, int]:
    """Return the output (height, width) of a sliding window; raise ShapeError if it does not fit into `shape`."""
    _, height, width = require_chw(shape)
    out = tuple(
        conv_output_size(n, k, s, p, d, ceil_mode=ceil_mode)
        for n, k, s, p, d in zip((height, width), kernel, stride, padding, dilation, strict=True)
    )
    if min(out) < 1:
        dilated = f" dilated by {format_shape(dilation)}" if dilation != (1, 1) else ""
        padded = (height + sum(padding[0]), width + sum(padding[1]))
        extra = f", {format_shape(padded)} with its padding" if padded != (height, width) else ""
        raise ShapeError(
            "window",
            f"a window of {format_shape(kernel)}{dilated} does not fit into {format_shape((height, width))}{extra}",
            "kernel_size",
        )
    return out[0], out[1]


class Pool2d(Op):
    """The attributes that pools share: a window whose stride is its own size by default."""

    channelwise: ClassVar[bool] = True
    windowed: ClassVar[bool] = True
    pools: ClassVar[bool] = True
    keeps_nonnegative: ClassVar[bool] = True

    kernel_size: Pair
    stride: Pair | None = None
    padding: Padding = ((0, 0), (0, 0))
    ceil_mode: bool = False

    @property
    def strides(self) -> Pair:
        """The stride in effect: the one given, or the window's size."""
        return self.stride or self.kernel_size

    def explicit_padding(self, shape: Shape) -> Padding2d:
        """Return ((top, bottom), (left, right)) for an input of `shape`."""
        return explicit_padding(self.padding, shape, self.kernel_size, self.strides, self._dilation)

    @property
    def _dilation(self) -> Pair:
        return getattr(self, "dilation", (1, 1))

    def receptive_window(self, *shapes: Shape) -> tuple[Pair, Pair]:
        rows, columns = (d * (k - 1) + 1 for d, k in zip(self._dilation, self.kernel_size, strict=True))
        return (rows, columns), self.strides

    def output_shape(self, *shapes: Shape) -> Shape:
        channels = require_chw(shapes[0])[0]
        padding = self.explicit_padding(shapes[0])
        extent = self.receptive_window(shapes[0])[0]
        if any(max(pad) > k // 2 for pad, k in zip(padding, extent, strict=True)):
            limit = f"padding must be at most half the window of {format_shape(self.kernel_size)}"
            raise ShapeError("padding", limit, "padding")
        size = conv_output_hw(
            shapes[0], self.kernel_size, self.strides, padding, self._dilation, ceil_mode=self.ceil_mode
        )
        return (channels, *size)
