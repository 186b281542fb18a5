"""Memory of a network: parameters, activations, and the peaks of inference and training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from math import prod

from archspec.analysis.counts import activation_bytes
from archspec.graph import Graph, Node
from archspec.language.ops import Input
from archspec.language.ops.base import DTYPES
from archspec.language.recipe import CaffeSgd, Training

MMAP_THRESHOLD = 2**25  # bytes: glibc returns larger blocks to the system at once (mallopt(3), M_MMAP_THRESHOLD)
# Bytes that PyTorch's libraries allocate in the first step, measured with torch 2.14 on a CPU. Not in any peak here.
RUNTIME_BYTES = 24_000_000


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes for one batch in one dtype, without those of the framework itself.

    The peaks are those of a straightforward framework: an activation lives until the last layer that reads it has run
    and, in training, until the gradients that need it are computed; gradients of parameters live until the optimizer's
    step. The tensors saved for the backward pass are those of PyTorch 2.14 on a CPU (`Op.saved_for_backward`). The
    peak of training is the memory of the process: glibc returns blocks of 32 MiB and more as they are freed and smaller
    ones hardly ever, so the peaks of the two kinds are added. Where all blocks are small, fragmentation can add half
    as much again: a network of 100 MB uses up to 170.
    """

    batch: int
    dtype: str
    params: int
    gradients: int
    optimizer: int  # state of the recipe's optimizer
    input: int
    activations: int  # every layer's output, views excluded
    saved: int  # for the backward pass
    peak_inference: int
    peak_training: int


def saved_bytes(graph: Graph, batch: int = 1, dtype: str = "float32") -> dict[Node, int]:
    """Return the bytes that each layer adds to the tensors saved for the backward pass.

    A layer's output counts for that layer, whichever layers need it.
    """
    own = {node: _own_saved(node, batch, dtype) for node in graph.nodes}
    owners = _owners(graph)
    for tensor in {saved for node in graph.nodes for saved in _saved_activations(node, owners)}:
        if tensor is not graph.input:
            own[tensor] += activation_bytes(tensor, batch, dtype)
    return own


def memory(graph: Graph, batch: int = 1, dtype: str = "float32", recipe: Training | None = None) -> Memory:
    """Return the memory of a network; the optimizer is the recipe's, by default SGD with momentum."""
    trainable = sum(DTYPES[dtype] * prod(shape) for node in graph.nodes for shape in node.trainable.values())
    states = trainable * (recipe.optimizer.states if recipe else 1)
    inputs = batch * DTYPES[dtype] * prod(graph.input.output_shape)
    persistent = trainable + states + inputs
    count = len(graph.nodes)
    return Memory(
        batch=batch,
        dtype=dtype,
        params=trainable,
        gradients=trainable,
        optimizer=states,
        input=inputs,
        activations=sum(activation_bytes(node, batch, dtype) for node in graph.nodes),
        saved=sum(saved_bytes(graph, batch, dtype).values()),
        peak_inference=trainable + inputs + _peak(_inference(graph, batch, dtype), count),
        peak_training=persistent + _process_peak(_training(graph, batch, dtype, recipe), 2 * count + 1),
    )


Lifetime = tuple[int, int, int]  # first moment, last moment, bytes


def _inference(graph: Graph, batch: int, dtype: str) -> Iterator[Lifetime]:
    """Yield the lifetime of every activation; layer i runs at moment i."""
    last = _last_readers(graph, _owners(graph))
    for i, node in enumerate(graph.nodes):
        if not node.op.is_view:
            yield i, last[node], activation_bytes(node, batch, dtype)


def _training(graph: Graph, batch: int, dtype: str, recipe: Training | None) -> Iterator[Lifetime]:
    """Yield the lifetime of every activation and gradient.

    Of n layers, layer i runs forward at moment i and backward at 2 n - 1 - i; the optimizer steps at 2 n.
    """
    end = 2 * len(graph.nodes) - 1
    largest = 0
    owners = _owners(graph)
    last = _last_readers(graph, owners)
    needed = dict(last)  # the last moment at which each activation is needed
    for i, node in reversed(list(enumerate(graph.nodes))):
        needed.update(dict.fromkeys(_saved_activations(node, owners), end - i))
    for i, node in enumerate(graph.nodes):
        yield i, end - i, _own_saved(node, batch, dtype)
        for shape in node.trainable.values():
            yield end - i, end + 1, DTYPES[dtype] * prod(shape)
            largest = max(largest, DTYPES[dtype] * prod(shape))
        if node.needs_input_grad and not isinstance(node.op, Input):
            workspace = node.op.saved_for_backward(*node.input_shapes).workspace
            yield end - i, end - i, batch * DTYPES[dtype] * workspace
        if not node.op.is_view:
            yield i, needed[node], activation_bytes(node, batch, dtype)
            if node.needs_input_grad or node.trainable:
                yield end - last[node], end - i, activation_bytes(node, batch, dtype)

    if recipe and not isinstance(recipe.optimizer, CaffeSgd):
        yield end + 1, end + 1, largest  # torch.optim adds the weight decay to a copy of one gradient at a time


def _process_peak(lifetimes: Iterable[Lifetime], moments: int) -> int:
    """Return the peak of a process: blocks that glibc returns to the system, plus those that it does not."""
    sizes: tuple[list[Lifetime], list[Lifetime]] = [], []
    for lifetime in lifetimes:
        sizes[lifetime[2] >= MMAP_THRESHOLD].append(lifetime)
    return sum(_peak(kind, moments) for kind in sizes)


def _peak(lifetimes: Iterable[Lifetime], moments: int) -> int:
    change = [0] * (moments + 1)
    for start, end, size in lifetimes:
        change[start] += size
        change[end + 1] -= size
    return max(accumulate(change))


def _owners(graph: Graph) -> dict[Node, Node]:
    """Return, for the input and every layer, the layer that owns the memory of its output."""
    owners = {graph.input: graph.input}
    for node in graph.nodes:
        owners[node] = owners[node.inputs[0]] if node.op.is_view else node
    return owners


def _last_readers(graph: Graph, owners: dict[Node, Node]) -> dict[Node, int]:
    """Return the index of the last layer that reads each activation; the network's output is needed to the end."""
    last = {owners[read]: i for i, node in enumerate(graph.nodes) for read in node.inputs}
    return {**last, owners[graph.output]: len(graph.nodes) - 1}


def _saved_activations(node: Node, owners: dict[Node, Node]) -> list[Node]:
    """Return the activations that the backward pass of a layer needs."""
    if isinstance(node.op, Input) or not (node.needs_input_grad or node.trainable):
        return []
    saved = node.op.saved_for_backward(*node.input_shapes)
    return [owners[read] for read in node.inputs if saved.input] + [owners[node]] * saved.output


def _own_saved(node: Node, batch: int, dtype: str) -> int:
    """Return the bytes that a layer saves for the backward pass besides inputs and outputs."""
    if isinstance(node.op, Input) or not node.needs_input_grad:
        return 0
    saved = node.op.saved_for_backward(*node.input_shapes)
    return batch * (DTYPES[dtype] * saved.elements + saved.bytes)
