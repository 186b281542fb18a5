"""What a network costs, as plain functions of its graph."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from archspec.graph import Graph, Node
from archspec.ops import Input
from archspec.ops.base import Counts

DTYPES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}  # bytes


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


def activation_bytes(node: Node, batch: int = 1, dtype: str = "float32") -> int:
    """Return the bytes of a layer's output; 0 where it is a view of its input's."""
    return 0 if node.op.is_view else batch * DTYPES[dtype] * prod(node.output_shape)


# The counts that a node has besides its op's own.
KINDS_OF_NODES = {
    "in": "values read",
    "out": "values given",
    "weight_grad": "multiply-accumulates of the weights' gradient, which are the forward's",
    "weight_grad_ungrouped": "the same, not divided by the groups, as some tools have it",
    "input_grad": "multiply-accumulates of the inputs' gradient: none where no weight is before the layer",
    "bias_grad": "adds of the biases' gradient",
}


def counts(node: Node) -> Counts:
    """Return what a layer does for one sample, by ops.base.KINDS and KINDS_OF_NODES."""
    found = dict(node.op.counts(*node.input_shapes))
    if mac := found.get("mac"):
        found["weight_grad"] = mac
        found["weight_grad_ungrouped"] = mac * getattr(node.op, "groups", 1)
        if node.learns_before:
            found["input_grad"] = mac
    if "bias" in node.weights:
        found["bias_grad"] = prod(node.output_shape)
    return {**found, "in": sum(map(prod, node.input_shapes)), "out": prod(node.output_shape)}


def backward_counts(node: Node) -> Counts:
    """Return what the gradients of a layer's inputs, weights and biases take for one sample, by ops.base.KINDS."""
    found: Counts = {}
    if node.learns_before and not isinstance(node.op, Input):
        found = dict(node.op.gradient_counts(*node.input_shapes))
    if node.weights:
        found["mac"] = found.get("mac", 0) + node.macs
    if "bias" in node.weights:
        found["bias_add"] = prod(node.output_shape)
    return found


def optimizer_counts(graph: Graph) -> Counts:
    """Return what a step of SGD with momentum and weight decay takes: v <- m v - d l w - l g; w <- w + v.

    Krizhevsky et al. (2012), section 5: three multiplies and three adds a parameter.
    """
    learned = sum(map(params, graph.nodes))
    return {"mul": 3 * learned, "add": 3 * learned}


@dataclass(frozen=True, slots=True)
class Field:
    """What of the network's input one position of a layer's output depends on, (rows, columns) of each.

    `size` is the receptive field, clipped by nothing; `stride` the distance between those of neighbours, None where
    there are none (Araujo et al., Computing Receptive Fields of Convolutional Neural Networks, 2019).
    """

    size: tuple[int, int]
    stride: tuple[int, int] | None


def receptive_fields(graph: Graph) -> dict[Node, Field]:
    """Return the receptive field of every layer; where paths meet, the larger."""
    found = {graph.input: Field((1, 1), (1, 1))}
    for node in graph.nodes:
        read = [found[one] for one in node.inputs]
        size = max(one.size[0] for one in read), max(one.size[1] for one in read)
        steps = [one.stride for one in read if one.stride]
        if steps and not isinstance(node.op, Input):
            (rows, columns), (down, right) = node.op.reach(*node.input_shapes)
            step = max(one[0] for one in steps), max(one[1] for one in steps)
            size = size[0] + (rows - 1) * step[0], size[1] + (columns - 1) * step[1]
            on = len(node.output_shape) == 3
            found[node] = Field(size, (step[0] * down, step[1] * right) if on else None)
        else:
            found[node] = Field(size, None)
    return found


def totals(graph: Graph) -> Totals:
    """Return what the whole network costs."""
    macs = sum(node.macs for node in graph.nodes)
    learned = sum(map(params, graph.nodes))
    return Totals(
        params=learned,
        macs=macs,
        flops=2 * macs,
        neurons=sum(map(neurons, graph.nodes)),
        param_bytes=DTYPES["float32"] * learned,
        activation_bytes=sum(map(activation_bytes, graph.nodes)),
    )
