"""The padding of a sliding window, as the targets need it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from archspec.graph import Node
from archspec.language.ops.base import Padding2d, same_padding
from archspec.targets.literals import Code

if TYPE_CHECKING:
    from archspec.targets.layer_view import LayerView

NO_PADDING = ((0, 0), (0, 0))


class Window:
    """The window of a convolution or a pool, with its padding: ((top, bottom), (left, right)).

    Of a row of a block it is that of all instances: what they must have in common is, and what one of them needs holds.
    """

    def __init__(self, layer: LayerView) -> None:
        self._layer = layer
        self._ones = [_Window(node) for node in layer.nodes]

    @property
    def padding(self) -> Any:
        """The padding; source text where it is an expression."""
        if "padding" in self._layer.expressions:
            return _sides(self._layer.op.padding, self._layer.is_pair("padding"))
        return self._layer.every(lambda node: _Window(node).padding)

    @property
    def symmetric(self) -> Any:
        """The padding of height and width if it is the same on both sides, else None."""
        if "padding" in self._layer.expressions:
            return self._layer.op.padding
        return self._layer.every(lambda node: _Window(node).symmetric)

    @property
    def floor_padding(self) -> Any:
        """The padding with which rounding down gives the same windows, as `ceil_mode` may need more at the end."""
        if all(one.floor_padding == one.padding for one in self._ones):
            return self.padding
        return self._layer.every(lambda node: _Window(node).floor_padding)

    @property
    def is_padded(self) -> bool:
        """Whether there is any padding."""
        return any(one.padding != NO_PADDING for one in self._ones)

    @property
    def is_same(self) -> bool:
        """Whether `padding="same"` of TensorFlow and Keras gives exactly these windows."""
        return all(one.is_same for one in self._ones)

    @property
    def overhangs(self) -> bool:
        """Whether any window reaches beyond the feature maps."""
        return any(one.floor_padding != NO_PADDING for one in self._ones)

    @property
    def counted_padding(self) -> Any:
        """The padding that an average includes: not what `ceil_mode` adds, and none without `count_include_pad`."""
        return self.padding if self._layer.op.count_include_pad else NO_PADDING

    @property
    def counts_padding(self) -> bool:
        """Whether an average includes any padding."""
        return any(getattr(one.op, "count_include_pad", False) and one.padding != NO_PADDING for one in self._ones)


class _Window:
    """The window of one node."""

    def __init__(self, node: Node) -> None:
        op: Any = node.op
        self.op, self._node = op, node
        self.padding: Padding2d = op.explicit_padding(node.input_shapes[0])

    @property
    def symmetric(self) -> tuple[int, int] | None:
        (top, bottom), (left, right) = self.padding
        if getattr(self.op, "pools", False) and any(
            pad > size // 2 for pad, size in zip((top, left), self.op.kernel_size, strict=True)
        ):
            return None  # PyTorch pads pools by half of the kernel at most, however far it is dilated
        return (top, left) if (top, left) == (bottom, right) else None

    def _axes(self) -> Iterator[tuple[tuple[int, int], int, int, int, int, int]]:
        sizes, outs = self._node.input_shapes[0][1:], self._node.output_shape[1:]
        dilation = getattr(self.op, "dilation", (1, 1))
        return zip(self.padding, sizes, outs, self.op.kernel_size, self.op.strides, dilation, strict=True)

    @property
    def floor_padding(self) -> Padding2d:
        rows, columns = (
            (before, max(after, (out - 1) * s + d * (k - 1) + 1 - size - before))
            for (before, after), size, out, k, s, d in self._axes()
        )
        return rows, columns

    @property
    def is_same(self) -> bool:
        return all(
            same_padding(size, k, s, d)[0] == before and -(-size // s) == out
            for (before, _), size, out, k, s, d in self._axes()
        )


def _sides(written: Any, is_pair: bool) -> Any:
    """Return padding as ((top, bottom), (left, right)), with its expressions as source text."""
    if isinstance(written, Code):
        rows, columns = (Code(f"{written}[0]"), Code(f"{written}[1]")) if is_pair else (written, written)
        return (rows, rows), (columns, columns)
    rows, columns = written
    return (rows, rows), (columns, columns)
