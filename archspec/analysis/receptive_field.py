"""Receptive fields: the part of the network's input that one position of a layer's output depends on."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from archspec.graph import Graph, Node
from archspec.language.ops import Input
from archspec.language.ops.base import Rational

Pair = tuple[Rational, Rational]


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """A receptive field, as (rows, columns) of the network's input.

    `extent` is None for all of the input, and a fraction where feature maps were enlarged; `stride` is the distance
    between neighbouring fields, None for a vector (Araujo et al., Computing Receptive Fields of Convolutional Neural
    Networks, 2019).
    """

    extent: Pair | None
    stride: Pair | None

    @property
    def size(self) -> tuple[int, int] | None:
        """The most rows and columns that a position depends on, not clipped to the input; None for all of it."""
        return (ceil(self.extent[0]), ceil(self.extent[1])) if self.extent else None


def receptive_fields(graph: Graph) -> dict[Node, ReceptiveField]:
    """Return the receptive field of every layer; of several inputs, the largest."""
    fields: dict[Node, ReceptiveField] = {graph.input: ReceptiveField((1, 1), (1, 1))}
    for node in graph.nodes:
        inputs = [fields[read] for read in node.inputs]
        sizes = [field.extent for field in inputs if field.extent]
        strides = [field.stride for field in inputs if field.stride]
        window = ((1, 1), (1, 1)) if isinstance(node.op, Input) else node.op.receptive_window(*node.input_shapes)
        if not strides or window is None or len(sizes) < len(inputs):
            size = _largest(sizes) if window and len(sizes) == len(inputs) else None
            fields[node] = ReceptiveField(size, None)
            continue
        (rows, columns), (down, right) = window
        (height, width), stride = _largest(sizes), _largest(strides)
        size = height + (rows - 1) * stride[0], width + (columns - 1) * stride[1]
        is_vector = len(node.output_shape) == 1
        fields[node] = ReceptiveField(size, None if is_vector else (stride[0] * down, stride[1] * right))
    return fields


def _largest(pairs: list[Pair]) -> Pair:
    return max(pair[0] for pair in pairs), max(pair[1] for pair in pairs)
