"""The padding of a sliding window, as the targets need it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from archspec.graph import Node
from archspec.language.ops.base import Padding2d, same_padding

NO_PADDING = ((0, 0), (0, 0))


class Window:
    """The window of a convolution or a pool, with its padding: ((top, bottom), (left, right))."""

    def __init__(self, node: Node) -> None:
        op: Any = node.op
        self._node, self._op = node, op
        self.padding: Padding2d = op.explicit_padding(node.input_shapes[0])

    @property
    def symmetric(self) -> tuple[int, int] | None:
        """The padding of height and width if it is the same on both sides, else None."""
        (top, bottom), (left, right) = self.padding
        return (top, left) if (top, left) == (bottom, right) else None

    @property
    def is_padded(self) -> bool:
        """Whether there is any padding."""
        return self.padding != NO_PADDING

    def _axes(self) -> Iterator[tuple[tuple[int, int], int, int, int, int, int]]:
        sizes, outs = self._node.input_shapes[0][1:], self._node.output_shape[1:]
        dilation = getattr(self._op, "dilation", (1, 1))
        return zip(self.padding, sizes, outs, self._op.kernel_size, self._op.strides, dilation, strict=True)

    @property
    def floor_padding(self) -> Padding2d:
        """The padding with which rounding down gives the same windows, as `ceil_mode` may need more at the end."""
        rows, columns = (
            (before, max(after, (out - 1) * s + d * (k - 1) + 1 - size - before))
            for (before, after), size, out, k, s, d in self._axes()
        )
        return rows, columns

    @property
    def is_same(self) -> bool:
        """Whether `padding="same"` of TensorFlow and Keras gives exactly these windows."""
        return all(
            same_padding(size, k, s, d)[0] == before and -(-size // s) == out
            for (before, _), size, out, k, s, d in self._axes()
        )

    @property
    def overhangs(self) -> bool:
        """Whether any window reaches beyond the feature maps."""
        return self.floor_padding != NO_PADDING

    @property
    def counted_padding(self) -> Padding2d:
        """The padding that an average includes: not what `ceil_mode` adds, and none without `count_include_pad`."""
        return self.padding if self._op.count_include_pad else NO_PADDING
