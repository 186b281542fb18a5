"""What a network costs, as plain functions of its graph."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from archspec.graph import Graph, Node

FLOAT32 = 4  # bytes


@dataclass(frozen=True, slots=True)
class Totals:
    """What a network costs for one sample in float32."""

    params: int
    macs: int  # multiply-accumulates of weights with inputs: convolutions and linear layers, no bias adds
    flops: int  # 2 x macs
    neurons: int  # outputs of convolutions and linear layers (Krizhevsky et al. 2012 count these)
    param_bytes: int
    activation_bytes: int  # every layer's output, views excluded


def params(node: Node) -> int:
    """Return how many numbers a layer learns."""
    return sum(map(prod, node.weights.values()))


def neurons(node: Node) -> int:
    """Return the outputs of a layer that multiplies weights with inputs, and 0 for any other."""
    return prod(node.output_shape) if node.weights else 0


def activation_bytes(node: Node) -> int:
    """Return the bytes of a layer's output for one sample in float32; 0 where it is a view of its input's."""
    return 0 if node.op.is_view else FLOAT32 * prod(node.output_shape)


def totals(graph: Graph) -> Totals:
    """Return what the whole network costs."""
    macs = sum(node.macs for node in graph.nodes)
    learned = sum(map(params, graph.nodes))
    return Totals(
        params=learned,
        macs=macs,
        flops=2 * macs,
        neurons=sum(map(neurons, graph.nodes)),
        param_bytes=FLOAT32 * learned,
        activation_bytes=sum(map(activation_bytes, graph.nodes)),
    )
