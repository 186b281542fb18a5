"""Receptive fields: the part of the network's input that one position of a layer's output depends on."""

from __future__ import annotations

from dataclasses import dataclass

from archspec.graph import Graph, Node
from archspec.language.ops import Input


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """A receptive field, as (rows, columns) of the network's input.

    `size` is not clipped to the input; `stride` is the distance between neighbouring fields, None for a vector
    (Araujo et al., Computing Receptive Fields of Convolutional Neural Networks, 2019).
    """

    size: tuple[int, int]
    stride: tuple[int, int] | None


def receptive_fields(graph: Graph) -> dict[Node, ReceptiveField]:
    """Return the receptive field of every layer; of several inputs, the largest."""
    fields = {graph.input: ReceptiveField((1, 1), (1, 1))}
    for node in graph.nodes:
        inputs = [fields[read] for read in node.inputs]
        size = max(field.size[0] for field in inputs), max(field.size[1] for field in inputs)
        strides = [field.stride for field in inputs if field.stride]
        if strides and not isinstance(node.op, Input):
            (rows, columns), (down, right) = node.op.receptive_window(*node.input_shapes)
            stride = max(s[0] for s in strides), max(s[1] for s in strides)
            size = size[0] + (rows - 1) * stride[0], size[1] + (columns - 1) * stride[1]
            is_map = len(node.output_shape) == 3
            fields[node] = ReceptiveField(size, (stride[0] * down, stride[1] * right) if is_map else None)
        else:
            fields[node] = ReceptiveField(size, None)
    return fields
