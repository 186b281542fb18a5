"""Receptive fields: the part of the network's input that one position of a layer's output depends on."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TypeVar

from archspec.graph import Graph, Node
from archspec.language.ops import Input
from archspec.language.ops.base import Rational

N = TypeVar("N", int, Rational)


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """A receptive field, as (rows, columns) of the network's input.

    `size` is not clipped to the input, and None for all of it; `stride` is the distance between neighbouring fields,
    None for a vector (Araujo et al., Computing Receptive Fields of Convolutional Neural Networks, 2019).
    """

    size: tuple[int, int] | None
    stride: tuple[Rational, Rational] | None


def receptive_fields(graph: Graph) -> dict[Node, ReceptiveField]:
    """Return the receptive field of every layer; of several inputs, the largest."""
    fields = {graph.input: ReceptiveField((1, 1), (1, 1))}
    for node in graph.nodes:
        inputs = [fields[read] for read in node.inputs]
        sizes = [field.size for field in inputs if field.size]
        strides = [field.stride for field in inputs if field.stride]
        window = ((1, 1), (1, 1)) if isinstance(node.op, Input) else node.op.receptive_window(*node.input_shapes)
        if not strides or window is None or len(sizes) < len(inputs):
            size = _largest(sizes) if window and len(sizes) == len(inputs) else None
            fields[node] = ReceptiveField(size, None)
            continue
        (rows, columns), (down, right) = window
        (height, width), stride = _largest(sizes), _largest(strides)
        size = height + ceil((rows - 1) * stride[0]), width + ceil((columns - 1) * stride[1])
        is_vector = len(node.output_shape) == 1
        fields[node] = ReceptiveField(size, None if is_vector else (stride[0] * down, stride[1] * right))
    return fields


def _largest(pairs: list[tuple[N, N]]) -> tuple[N, N]:
    return max(pair[0] for pair in pairs), max(pair[1] for pair in pairs)
