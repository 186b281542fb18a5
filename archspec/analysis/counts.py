"""Parameters, operations and activation sizes of a network, as plain functions of its graph."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from archspec.graph import Graph, Node
from archspec.language.ops import Input
from archspec.language.ops.base import DTYPES, Counts, channels_of


@dataclass(frozen=True, slots=True)
class Totals:
    """The costs of a network for one sample in float32."""

    params: int  # trainable
    macs: int  # multiply-accumulates of convolutions, linear layers and attention, no bias adds
    flops: int  # 2 x macs
    neurons: int  # outputs of convolutions and linear layers (Krizhevsky et al. 2012 count these)
    param_bytes: int
    activation_bytes: int  # every layer's output, views excluded


def params(node: Node) -> int:
    """Return the number of trainable parameters of a layer."""
    return sum(map(prod, node.trainable.values()))


def neurons(node: Node) -> int:
    """Return the number of outputs of a layer with a kernel, and 0 for any other."""
    return prod(node.output_shape) if node.kernel else 0


def activation_bytes(node: Node, batch: int = 1, dtype: str = "float32") -> int:
    """Return the bytes of a layer's output; 0 where it is a view of its input."""
    return 0 if node.op.is_view else batch * DTYPES[dtype] * prod(node.output_shape)


# The counts of a node besides its op's own.
NODE_KINDS = {
    "in": "input elements",
    "out": "output elements",
    "vector_in": "input elements of a layer that reads vectors or tokens",
    "vector_scaled": "the same of a norm that scales and shifts them",
    "params": "trainable parameters",
    "params_by_width": "trainable parameters times the output's channels",
    "vector_params": "the same of a layer that reads vectors or tokens",
    "scaled": "input elements that a norm scales and shifts",
    "weight_grad": "multiply-accumulates of the weights' gradient: as many as in the forward pass",
    "weight_grad_ungrouped": "the same, not divided by the groups, as some tools count it",
    "input_grad": "multiply-accumulates of the inputs' gradient: none before the first layer with parameters",
    "matmul_grad": "multiply-accumulates of the gradients of `matmul`: twice as many",
    "bias_grad": "adds of the biases' gradient",
}


def op_counts(node: Node) -> Counts:
    """Return the operations of a layer's forward pass for one sample, by KINDS of archspec.language.ops.base."""
    return {} if isinstance(node.op, Input) else dict(node.op.counts(*node.input_shapes))


def counts(node: Node) -> Counts:
    """Return the operations of a layer for one sample, by KINDS and NODE_KINDS."""
    found = op_counts(node)
    if mac := found.get("mac"):
        found["weight_grad"] = mac
        found["weight_grad_ungrouped"] = mac * getattr(node.op, "groups", 1)
        if node.needs_input_grad:
            found["input_grad"] = mac
    if matmul := found.get("matmul"):
        found["matmul_grad"] = 2 * matmul
    if bias := _bias_adds(node, found):
        found["bias_grad"] = bias
    found["params"] = params(node)
    found["params_by_width"] = found["params"] * channels_of(node.output_shape)
    scales = found["params"] and getattr(node.op, "normalizes", False)
    if scales:
        found["scaled"] = prod(node.input_shapes[0])
    if len(node.output_shape) < 3:
        found["vector_in"] = sum(prod(shape) for shape in node.input_shapes if len(shape) < 3)
        found["vector_scaled"] = found["vector_in"] if scales else 0
        found["vector_params"] = found["params"]
    return {**found, "in": sum(map(prod, node.input_shapes)), "out": prod(node.output_shape)}


def backward_counts(node: Node) -> Counts:
    """Return the operations of the gradients of a layer's inputs and parameters for one sample, by KINDS."""
    found: Counts = {}
    if node.needs_input_grad and not isinstance(node.op, Input):
        found = dict(node.op.grad_counts(*node.input_shapes))
    if node.kernel:
        found["mac"] = found.get("mac", 0) + op_counts(node)["mac"]
    if bias := _bias_adds(node, op_counts(node)):
        found["bias_add"] = bias
    return found


def _bias_adds(node: Node, found: Counts) -> int:
    """Return the adds of a layer's biases or shifts."""
    shifts = any(param.role == "shift" for param in node.params.values())
    return prod(node.output_shape) if shifts else found.get("bias_add", 0)


def optimizer_counts(graph: Graph) -> Counts:
    """Return the operations of one step of SGD with momentum and weight decay: v <- m v - d l w - l g; w <- w + v.

    Krizhevsky et al. (2012), section 5: three multiplies and three adds for each parameter.
    """
    trainable = sum(map(params, graph.nodes))
    return {"mul": 3 * trainable, "add": 3 * trainable}


def totals(graph: Graph) -> Totals:
    """Return the costs of the whole network."""
    macs = sum(node.macs for node in graph.nodes)
    trainable = sum(map(params, graph.nodes))
    return Totals(
        params=trainable,
        macs=macs,
        flops=2 * macs,
        neurons=sum(map(neurons, graph.nodes)),
        param_bytes=DTYPES["float32"] * trainable,
        activation_bytes=sum(map(activation_bytes, graph.nodes)),
    )
