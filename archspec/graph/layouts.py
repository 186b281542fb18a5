"""Memory layouts: channels first (canonical, PyTorch's) and channels last, of tensors, weights and flattened maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archspec.graph.graph import Graph, Node
from archspec.language.ops import Shape

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]


def channels_last(shape: Shape) -> Shape:
    """Return (C, H, W) as (H, W, C); the shape of tokens or a vector is unchanged."""
    return (*shape[1:], shape[0]) if len(shape) == 3 else shape


def flattened_maps(graph: Graph) -> dict[Node, Shape]:
    """Return the vectors that a channels-last target holds in (H, W, C) order, with the (C, H, W) that was flattened.

    The order of a flattened vector is free where only linear layers read it, directly or through elementwise layers:
    the target permutes their weights when it loads them. The flatten, the layers between and the linear layers are all
    in the result. Before any other flatten the target has to transpose the feature maps, unless they are 1 x 1.
    """
    readers = graph.readers()
    free: dict[Node, bool] = {}  # whether the order of a layer's output does not matter, or it is a linear layer
    for node in reversed(graph.nodes):
        passes = (node.op.is_view or _is_elementwise(node)) and node is not graph.output
        free[node] = _is_linear(node) or (passes and all(free[reader] for reader in readers[node]))
    found: dict[Node, Shape] = {}
    for node in graph.nodes:
        if free[node] and flattens_maps(node):
            found[node] = node.input_shapes[0]
        elif free[node] and node.inputs[0] in found and not _is_linear(node.inputs[0]):
            found[node] = found[node.inputs[0]]
    return found


def classifier(graph: Graph) -> Node | None:
    """Return the linear layer whose outputs are the network's classes: only elementwise layers or a softmax follow."""
    readers = graph.readers()
    node = graph.output
    while (_is_elementwise(node) or getattr(node.op, "probabilities", False)) and len(readers[node.inputs[0]]) == 1:
        node = node.inputs[0]
    return node if _is_linear(node) else None


def flattens_maps(node: Node) -> bool:
    """Return whether a layer makes a vector of feature maps larger than 1 x 1, whose order then matters."""
    flattens = node.op.is_view and len(node.output_shape) == 1 and len(node.input_shapes[0]) == 3
    return flattens and node.input_shapes[0][1:] != (1, 1)


def _is_elementwise(node: Node) -> bool:
    return getattr(node.op, "elementwise", False)


def _is_linear(node: Node) -> bool:
    return node.kernel is not None and len(node.output_shape) == 1


class Layout:
    """A target's layout of arrays; `flattened` is `flattened_maps(graph)` if its channels are last."""

    def __init__(self, last: bool, flattened: dict[Node, Shape]) -> None:
        self._last = last
        self._flattened = flattened if last else {}

    def to_canonical(self, array: Array, node: Node) -> Array:
        """Return a layer's output in the target's layout as (N, C, H, W), (N, L, D) or (N, F)."""
        if not self._last:
            return array
        if array.ndim == 4:
            return array.transpose(0, 3, 1, 2)
        if node in self._flattened and not _is_linear(node):
            c, h, w = self._flattened[node]
            return array.reshape(-1, h, w, c).transpose(0, 3, 1, 2).reshape(array.shape)
        return array

    def from_canonical(self, array: Array, node: Node) -> Array:
        """Return (N, C, H, W), (N, L, D) or (N, F) of a layer's output in the target's layout."""
        if not self._last:
            return array
        if array.ndim == 4:
            return array.transpose(0, 2, 3, 1)
        if node in self._flattened and not _is_linear(node):
            return array.reshape(-1, *self._flattened[node]).transpose(0, 2, 3, 1).reshape(array.shape)
        return array

    def output_shape(self, shape: Shape) -> Shape:
        """Return a canonical output shape, without the batch, in the target's layout."""
        return channels_last(shape) if self._last else shape
