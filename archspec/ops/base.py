"""What every op says of itself, and the arithmetic that several share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from archspec.names import NAMES_SCHEMA, LayerName, Reason, one_or_more

Shape = tuple[int, ...]  # (C, H, W) of maps or (F,) of a vector, without the batch
Weights = dict[str, Shape]  # "weight" and "bias", laid out as PyTorch lays them out
Sides = tuple[int, int]  # what is added before and after, along one axis
Counts = dict[str, int]  # how often an op does a thing for one sample, by kind: see KINDS

# What is counted. The last two are no work but sizes, of which some tools make work.
KINDS = {
    "mac": "multiply-accumulates of weights with inputs",
    "bias_add": "adds of biases",
    "compare": "comparisons",
    "add": "other adds",
    "mul": "other multiplies",
    "div": "divides",
    "pow": "powers",
    "exp": "exponentials",
    "random": "random draws, in training",
    "padded": "values of maps with the channels that local_response_norm pads on both sides",
    "stride_area": "positions of a window times the area of its stride",
}

# What `check` warns of, and what a layer may therefore `allow`: see archspec/lint.py.
Lint = Literal["dropout-after-output", "relu-after-relu", "softmax-before-loss", "uncovered-rows", "unread-layer"]

# Large enough for any network; small enough that the product of a few is still a number one can read.
Size = Annotated[int, Field(ge=1, le=2**31 - 1)]


class ShapeError(ValueError):
    """Shapes that do not fit an op; `field` names the attribute to mend, if it is one's fault."""

    def __init__(self, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.field = field


class Kept(NamedTuple):
    """What an op keeps until its gradients are taken, its weights aside."""

    inputs: bool = False
    output: bool = False
    values: int = 0  # of its own, in the network's dtype
    bytes: int = 0  # of its own, whatever that is
    passing: int = 0  # values that it needs besides while its gradients are taken


class Op(BaseModel, ABC):
    """A layer as the spec writes it and, unchanged, what a node of the graph holds.

    The fields here are every layer's; a subclass's own are its attributes, and the questions below are its meaning.
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

    inputs: ClassVar[tuple[int, int]] = (1, 1)  # the fewest and the most it reads
    is_view: ClassVar[bool] = False  # its output is its input's memory under another shape

    @abstractmethod
    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape for inputs of `shapes`; raise ShapeError where they do not fit."""

    @abstractmethod
    def weights(self, *shapes: Shape) -> Weights:
        """Return the shapes of the weights it learns, by name; empty if it learns none."""

    @abstractmethod
    def counts(self, *shapes: Shape) -> Counts:
        """Return what it does for one sample, forward, by KINDS."""

    @abstractmethod
    def gradient_counts(self, *shapes: Shape) -> Counts:
        """Return what the gradient of its inputs takes for one sample, by KINDS; that of its weights is not in it."""

    @abstractmethod
    def kept(self, *shapes: Shape) -> Kept:
        """Return what it keeps of one sample for its gradients, as PyTorch's autograd does."""

    def reach(self, *shapes: Shape) -> tuple[Pair, Pair]:
        """Return the rows and columns that one position of its output reads, and how far the next one's are from them.

        Of maps only; one position reads one unless an op says otherwise.
        """
        return (1, 1), (1, 1)


def maps(shape: Shape) -> tuple[int, int, int]:
    """Return (C, H, W) of maps; raise ShapeError for a vector."""
    if len(shape) != 3:
        raise ShapeError("not-maps", f"reads maps (C, H, W), not a vector of {shape[0]:,}")
    c, h, w = shape
    return c, h, w


def times(shape: Shape) -> str:
    """Return a shape as a table shows it."""
    return " x ".join(map(str, shape))


# --- sliding windows -------------------------------------------------------------------------------------------------


def _pair(value: Any) -> tuple[int, int]:
    one = [value, value] if type(value) is int else value
    if not isinstance(one, list) or len(one) != 2 or not all(type(n) is int and 1 <= n < 2**31 for n in one):
        raise PydanticCustomError("wrong-value", "must be a positive whole number or [height, width]")
    return one[0], one[1]


def _padding(value: Any) -> tuple[Sides, Sides] | Literal["same"]:
    if value == "same":
        return "same"
    sides: list[Any] = []
    if isinstance(value, dict) and set(value) <= {"top", "bottom", "left", "right"}:
        sides = [value.get(side, 0) for side in ("top", "bottom", "left", "right")]
    elif isinstance(value, list) and len(value) == 2:
        sides = [value[0], value[0], value[1], value[1]]
    elif type(value) is int:
        sides = [value] * 4
    if not sides or not all(type(n) is int and 0 <= n < 2**31 for n in sides):
        raise PydanticCustomError(
            "wrong-value", "must be a whole number, [height, width], {top, bottom, left, right} or same"
        )
    return (sides[0], sides[1]), (sides[2], sides[3])


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
# ((top, bottom), (left, right))
Padding = Annotated[
    tuple[Sides, Sides] | Literal["same"],
    PlainValidator(_padding),
    WithJsonSchema(
        {
            "description": "what is added on all sides, [height, width], {top, bottom, left, right}, or same",
            "oneOf": [
                _ADDED,
                {"type": "array", "items": _ADDED, "minItems": 2, "maxItems": 2},
                {
                    "type": "object",
                    "properties": dict.fromkeys(("top", "bottom", "left", "right"), _ADDED),
                    "additionalProperties": False,
                },
                {"const": "same"},
            ],
        }
    ),
]


def window(size: int, kernel: int, stride: int, sides: Sides, dilation: int = 1, *, ceil_mode: bool = False) -> int:
    """Return how many positions a window takes along an axis of `size`, rounding down unless `ceil_mode`.

    floor((size + before + after - dilation * (kernel - 1) - 1) / stride) + 1. With `ceil_mode` a last window may hang
    over the end, unless it would start in the padding after it: PyTorch's rule (torch.nn.MaxPool2d). 0 or less where
    not one window fits.
    """
    room = size + sum(sides) - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return room // stride + 1 if room >= 0 else 0
    positions = -(-room // stride) + 1
    return positions - 1 if (positions - 1) * stride >= size + sides[0] else positions


def same(size: int, kernel: int, stride: int, dilation: int = 1) -> Sides:
    """Return what `padding: same` adds: as much as gives ceil(size / stride) positions, an odd one after.

    TensorFlow's SAME; PyTorch's own `same`, which it has for stride 1 only, is this one there.
    """
    positions = -(-size // stride)
    total = max((positions - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    return total // 2, total - total // 2


def sides(
    padding: tuple[Sides, Sides] | Literal["same"], shape: Shape, kernel: Pair, stride: Pair, dilation: Pair = (1, 1)
) -> tuple[Sides, Sides]:
    """Return ((top, bottom), (left, right)) that `padding` adds to maps of `shape`."""
    if padding != "same":
        return padding
    _, height, width = maps(shape)
    return (
        same(height, kernel[0], stride[0], dilation[0]),
        same(width, kernel[1], stride[1], dilation[1]),
    )


def slide(
    shape: Shape,
    kernel: Pair,
    stride: Pair,
    padding: tuple[Sides, Sides],
    dilation: Pair = (1, 1),
    *,
    ceil_mode: bool = False,
) -> tuple[int, int]:
    """Return (height, width) of what a window gives on maps of `shape`; raise ShapeError if it does not fit."""
    _, height, width = maps(shape)
    out = tuple(
        window(n, k, s, p, d, ceil_mode=ceil_mode)
        for n, k, s, p, d in zip((height, width), kernel, stride, padding, dilation, strict=True)
    )
    if min(out) < 1:
        spread = f" dilated by {times(dilation)}" if dilation != (1, 1) else ""
        padded = (height + sum(padding[0]), width + sum(padding[1]))
        extra = f", {times(padded)} with its padding" if padded != (height, width) else ""
        raise ShapeError(
            "window",
            f"a window of {times(kernel)}{spread} does not fit into {times((height, width))}{extra}",
            "kernel_size",
        )
    return out[0], out[1]


class Pool2d(Op):
    """What the pools share: a window, whose stride is its own size unless given, and where it stands on maps."""

    kernel_size: Pair
    stride: Pair | None = None
    padding: Padding = ((0, 0), (0, 0))
    ceil_mode: bool = False

    @property
    def strides(self) -> Pair:
        """The stride that holds: the one given, or the window's size."""
        return self.stride or self.kernel_size

    def sides(self, shape: Shape) -> tuple[Sides, Sides]:
        """Return what surrounds maps of `shape`: ((top, bottom), (left, right))."""
        return sides(self.padding, shape, self.kernel_size, self.strides)

    def reach(self, *shapes: Shape) -> tuple[Pair, Pair]:
        return self.kernel_size, self.strides

    def output_shape(self, *shapes: Shape) -> Shape:
        channels = maps(shapes[0])[0]
        padding = self.sides(shapes[0])
        if any(max(pad) > k // 2 for pad, k in zip(padding, self.kernel_size, strict=True)):
            raise ShapeError("padding", f"padding is at most half its window of {times(self.kernel_size)}", "padding")
        return (channels, *slide(shapes[0], self.kernel_size, self.strides, padding, ceil_mode=self.ceil_mode))

    def weights(self, *shapes: Shape) -> Weights:
        return {}
