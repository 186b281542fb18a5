"""A target's arrays in canonical order, how far two are apart, and what their difference looks like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archspec.graph import Node
from archspec.ops import Shape
from archspec.verify.workers import kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]


class Layout:
    """How a target lays its arrays out; `turned` are the vectors of channels-last targets: see emit.flattened_maps."""

    def __init__(self, target: str, turned: dict[Node, Shape]) -> None:
        self._last = kind(target) == "keras"
        self._turned = turned

    def output(self, array: Array, node: Node) -> Array:
        """Return a layer's output, (N, H, W, C) in Keras, as (N, C, H, W)."""
        if not self._last:
            return array
        if array.ndim == 4:
            return array.transpose(0, 3, 1, 2)
        if node in self._turned and node.op.op != "linear":
            c, h, w = self._turned[node]
            return array.reshape(-1, h, w, c).transpose(0, 3, 1, 2).reshape(array.shape)
        return array

    def given(self, array: Array, node: Node) -> Array:
        """Return a canonical array of the shape of a layer's output as the target lays it out."""
        if not self._last:
            return array
        if array.ndim == 4:
            return array.transpose(0, 2, 3, 1)
        if node in self._turned and node.op.op != "linear":
            return array.reshape(-1, *self._turned[node]).transpose(0, 2, 3, 1).reshape(array.shape)
        return array

    def weight(self, array: Array, node: Node) -> Array:
        """Return a weight, or what has its shape, as PyTorch lays it out."""
        if not self._last or array.ndim < 2:
            return array
        if array.ndim == 4:
            return array.transpose(3, 2, 0, 1)
        if node in self._turned:
            c, h, w = self._turned[node]
            return array.T.reshape(-1, h, w, c).transpose(0, 3, 1, 2).reshape(array.T.shape)
        return array.T

    def weight_shape(self, shape: Shape) -> Shape:
        """Return the shape of a canonical weight as the target has it."""
        if not self._last or len(shape) < 2:
            return shape
        return (*shape[2:], shape[1], shape[0])

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of a canonical output, without the batch, as the target has it."""
        return (*shape[1:], shape[0]) if self._last else shape


def distance(a: Array, b: Array, scale: float | None = None) -> float:
    """Return the largest absolute difference, relative to `scale`, or to the largest magnitude of `a`."""
    scale = float(abs(a).max()) if scale is None else scale
    apart = float(abs(a - b).max())
    return apart / scale if scale else float("inf") if apart else 0.0


def looks_like(a: Array, b: Array, read: Array | None) -> str:
    """Return what the difference of `b` from `a` looks like, or nothing; `read` is what the layer reads.

    A hint for a reader. Nothing that it finds makes two arrays agree.
    """
    import numpy as np

    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return ""
    scale = float(abs(a).max()) or 1.0
    near = 1e-6 * scale

    def close(x: Array, y: Array) -> bool:
        return x.shape == y.shape and bool(abs(x - y).max() <= near)

    if not b.any():
        return "missing: all zeros"
    if read is not None and close(b, read) and not close(a, read):
        return "missing: the layer gives what it reads"
    factor = float((a * b).sum() / max(float((a * a).sum()), 1e-300))
    if factor and close(factor * a, b):
        return f"scale: all values are {factor:.6g} times as large"
    if a.ndim > 1 and close((offset := (b - a).mean(axis=(0, *range(2, a.ndim)), keepdims=True)) + a, b):
        return "offset: a constant a channel" if offset.size > 1 else "offset: a constant"
    if close(np.sort(a, axis=None), np.sort(b, axis=None)):
        return "permutation: the same values in another order"
    if a.ndim == 4:
        apart = abs(a - b).max(axis=(0, 1)) > near
        if apart.any() and not apart[1:-1, 1:-1].any() and min(apart.shape) > 2:
            return "padding: only values at the edges differ"
        for axis, way in ((2, "vertically"), (3, "horizontally")):
            ahead = np.take(b, range(1, b.shape[axis]), axis), np.take(a, range(a.shape[axis] - 1), axis)
            behind = np.take(a, range(1, a.shape[axis]), axis), np.take(b, range(b.shape[axis] - 1), axis)
            if a.shape[axis] > 2 and (close(*ahead) or close(*behind)):
                return f"padding: the maps are shifted {way} by one"
    share = float((abs(a - b) > near).mean())
    return f"{share:.0%} of the values differ" if share < 0.9 else ""
