"""What a spec may say and mostly does not mean: warnings, each of which a layer can `allow` with a reason."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from archspec.graph import Graph, Node
from archspec.ops.base import Lint, Pool2d, times
from archspec.ops.conv2d import Conv2d
from archspec.source import Diagnostic

Found = tuple[Node, Lint, str, str]  # the layer, the code, what is said of it, and the field where


def lints(graph: Graph) -> list[Diagnostic]:
    """Return the warnings about a network in the order of its text; those that a layer allows say why in `allowed`."""
    found = [one for lint in (_windows, _relus, _dropouts, _softmax, _unread) for one in lint(graph)]
    met = {(node, code) for node, code, _, _ in found}
    said = [
        *((node, code, message, field, _allowed(node).get(code, "")) for node, code, message, field in found),
        *(
            (node, "unused-allow", f"there is no {code} here to allow", "allow", "")
            for node in (*graph.nodes, *graph.unread)
            for code in _allowed(node)
            if (node, code) not in met
        ),
    ]
    if not said:
        return []
    places = {op.name: i for i, op in enumerate(graph.spec.layers)}
    layers = graph.source.data["layers"]
    warnings = []
    for node, code, message, field, allowed in said:
        i = places[node.name]
        loc = ("layers", i, field if field in layers[i] else "op")
        warnings.append(graph.source.warning(code, f"{node.name}: {message}", loc, allowed=allowed))
    return sorted(warnings, key=lambda warning: warning.span)


def _windows(graph: Graph) -> Iterator[Found]:
    """A window that leaves rows or columns of its input unread. A window of 1 picks some on purpose."""
    for node in graph.nodes:
        op = node.op
        if not isinstance(op, Conv2d | Pool2d):
            continue
        shape = node.input_shapes[0]
        strides = op.strides if isinstance(op, Pool2d) else op.stride
        dilation = (1, 1) if isinstance(op, Pool2d) else op.dilation
        missed = [
            _missed(*axis)
            for axis in zip(
                shape[1:], node.output_shape[1:], op.kernel_size, strides, op.sides(shape), dilation, strict=True
            )
        ]
        words = [f"{n} {what}{'s' * (n > 1)}" for n, what in zip(missed, ("row", "column"), strict=True) if n]
        if words:
            message = f"no window reads {' and '.join(words)} of its {times(shape[1:])} input"
            yield node, "uncovered-rows", message, "stride" if "stride" in op.model_fields_set else "kernel_size"


@lru_cache(maxsize=1024)
def _missed(size: int, positions: int, kernel: int, stride: int, sides: tuple[int, int], dilation: int) -> int:
    """Return how many of `size` values along an axis no window reads."""
    room = sides[0] + size + sides[1] + stride
    if kernel == 1 or kernel * positions > 10**7 or room > 10**7:  # on purpose, or too many to be looked at
        return 0
    read = bytearray(room)
    for start in range(0, dilation * kernel, dilation):
        read[start : start + (positions - 1) * stride + 1 : stride] = b"\1" * positions
    return size - sum(read[sides[0] : sides[0] + size])


def _relus(graph: Graph) -> Iterator[Found]:
    """A rectifier of what is never negative."""
    keeps = {"add", "concat", "dropout", "flatten", "local_response_norm", "split", "tanh"}
    positive: set[Node] = set()
    for node in graph.nodes:
        reads = all(read in positive for read in node.inputs)
        if node.op.op == "relu" and reads:
            yield node, "relu-after-relu", f"does nothing: {node.inputs[0].name} is never negative", "op"
        if node.op.op in ("relu", "sigmoid", "softmax") or (reads and (node.op.op in keeps or "pool" in node.op.op)):
            positive.add(node)


def _dropouts(graph: Graph) -> Iterator[Found]:
    """A dropout after which nothing learns."""
    learns: set[Node] = set()  # what a layer that learns comes after
    for node in reversed(graph.nodes):
        if node.op.op == "dropout" and node not in learns:
            yield node, "dropout-after-output", "drops the network's own scores: no layer after it learns", "op"
        if node.weights or node in learns:
            learns.update(node.inputs)


def _softmax(graph: Graph) -> Iterator[Found]:
    """A softmax between the scores and the loss that reads them."""
    if graph.spec.training is None:
        return
    node = graph.output
    while node.op.op in ("flatten", "dropout"):
        (node,) = node.inputs
    if node.op.op == "softmax":
        yield (
            node,
            "softmax-before-loss",
            f"{graph.spec.training.loss} reads scores: this would be a second softmax",
            "op",
        )


def _unread(graph: Graph) -> Iterator[Found]:
    """A layer on which the output does not depend."""
    for node in graph.unread:
        yield node, "unread-layer", "the output does not depend on it: it is left out of the network", "name"


def _allowed(node: Node) -> dict[Lint, str]:
    return getattr(node.op, "allow", {})
