"""How much memory a network takes, and when: a walk along its layers, forward and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from math import prod

from archspec.analysis import DTYPES, activation_bytes
from archspec.graph import Graph, Node
from archspec.ops import Input
from archspec.training import Sgd, Training

GIVEN_BACK = 2**25  # bytes of a block that glibc gives back at once
# Bytes that PyTorch's libraries take at their first step: of alexnet_tiny's 30 MB at a batch of 1, 6 are its own.
LIBRARIES = 24_000_000


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes for a batch in a dtype, beside what the framework takes itself.

    The peaks are those of a straightforward framework: an activation lives until the last layer that reads it has run,
    in training until the gradients that need it are taken; gradients of weights live until the optimizer's step. What
    an op keeps is what PyTorch 2.14 keeps of it on a CPU (`Op.kept`). The peak of training is what the process holds:
    glibc gives back blocks of 32 MiB and more as they are freed (mallopt(3), M_MMAP_THRESHOLD), and smaller ones
    hardly ever, so that the peaks of the two add up. Where all are smaller, what is between them can be half as much
    again: a network of some 100 MB takes up to 170.
    """

    batch: int
    dtype: str
    params: int
    gradients: int
    optimizer: int  # the states of the recipe's optimizer
    input: int
    activations: int  # every layer's output, views excluded
    kept: int  # of them, and beside them, what the gradients need
    peak_inference: int
    peak_training: int


def kept_bytes(graph: Graph, batch: int = 1, dtype: str = "float32") -> dict[Node, int]:
    """Return the bytes of each layer kept for gradients: its output if some gradients need it, and what is its own."""
    own = {node: _own(node, batch, dtype) for node in graph.nodes}
    for tensor in {kept for node in graph.nodes for kept in _kept(node)}:
        if tensor is not graph.input:
            own[tensor] += activation_bytes(tensor, batch, dtype)
    return own


def memory(graph: Graph, batch: int = 1, dtype: str = "float32", recipe: Training | None = None) -> Memory:
    """Return the memory that a network takes; the optimizer is the recipe's, or else SGD with momentum."""
    weights = [DTYPES[dtype] * prod(shape) for node in graph.nodes for shape in node.weights.values()]
    learned = sum(weights)
    states = learned * (recipe.optimizer.states if recipe else 1)
    given = batch * DTYPES[dtype] * prod(graph.input.output_shape)
    standing = learned + states + given
    count = len(graph.nodes)
    return Memory(
        batch=batch,
        dtype=dtype,
        params=learned,
        gradients=learned,
        optimizer=states,
        input=given,
        activations=sum(activation_bytes(node, batch, dtype) for node in graph.nodes),
        kept=sum(kept_bytes(graph, batch, dtype).values()),
        peak_inference=learned + given + _peak(_inference(graph, batch, dtype), count),
        peak_training=LIBRARIES + standing + _held(_training(graph, batch, dtype, recipe), 2 * count + 1),
    )


Span = tuple[int, int, int]  # bytes that are taken from a moment to another, both included


def _inference(graph: Graph, batch: int, dtype: str) -> Iterator[Span]:
    """Yield the life of every activation; layer i runs at moment i."""
    last = _last_readers(graph)
    for i, node in enumerate(graph.nodes):
        if not node.op.is_view:
            yield i, last[node], activation_bytes(node, batch, dtype)


def _training(graph: Graph, batch: int, dtype: str, recipe: Training | None) -> Iterator[Span]:
    """Yield the life of every activation and gradient.

    Of n layers, i runs at moment i and back at 2 n - 1 - i; the optimizer takes its step at 2 n.
    """
    end = 2 * len(graph.nodes) - 1
    largest = 0
    last = _last_readers(graph)
    needed = dict(last)  # the moment at which each activation is needed last
    for i, node in reversed(list(enumerate(graph.nodes))):
        needed.update(dict.fromkeys(_kept(node), end - i))
    for i, node in enumerate(graph.nodes):
        yield i, end - i, _own(node, batch, dtype)
        for shape in node.weights.values():
            yield end - i, end + 1, DTYPES[dtype] * prod(shape)
            largest = max(largest, DTYPES[dtype] * prod(shape))
        if node.learns_before and not isinstance(node.op, Input):
            yield end - i, end - i, batch * DTYPES[dtype] * node.op.kept(*node.input_shapes).passing
        if not node.op.is_view:
            yield i, needed[node], activation_bytes(node, batch, dtype)
            if node.learns_before or node.weights:
                yield end - last[node], end - i, activation_bytes(node, batch, dtype)

    if recipe and not isinstance(recipe.optimizer, Sgd):
        yield end + 1, end + 1, largest  # torch.optim's own rules add the decay to one gradient at a time, beside it


def _held(spans: Iterable[Span], moments: int) -> int:
    """Return the most that a process holds: the peak of what is given back, and of what is not."""
    kinds: tuple[list[Span], list[Span]] = [], []
    for span in spans:
        kinds[span[2] >= GIVEN_BACK].append(span)
    return sum(_peak(kind, moments) for kind in kinds)


def _peak(spans: Iterable[Span], moments: int) -> int:
    change = [0] * (moments + 1)
    for start, end, size in spans:
        change[start] += size
        change[end + 1] -= size
    return max(accumulate(change))


def _last_readers(graph: Graph) -> dict[Node, int]:
    """Return which layer, by its number, reads each activation last; the network's output is read to the end."""
    last = {_tensor(read): i for i, node in enumerate(graph.nodes) for read in node.inputs}
    return {**last, _tensor(graph.output): len(graph.nodes) - 1}


def _tensor(node: Node) -> Node:
    """Return the layer in whose memory a layer's output stands."""
    while node.op.is_view and node.inputs:
        (node,) = node.inputs
    return node


def _kept(node: Node) -> list[Node]:
    """Return the tensors that the gradients of a layer need."""
    if isinstance(node.op, Input) or not (node.learns_before or node.weights):
        return []
    kept = node.op.kept(*node.input_shapes)
    return [_tensor(read) for read in node.inputs if kept.inputs] + [_tensor(node)] * kept.output


def _own(node: Node, batch: int, dtype: str) -> int:
    """Return the bytes that a layer keeps besides inputs and outputs."""
    if isinstance(node.op, Input) or not node.learns_before:
        return 0
    kept = node.op.kept(*node.input_shapes)
    return batch * (DTYPES[dtype] * kept.values + kept.bytes)
