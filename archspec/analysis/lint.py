"""Lints: valid specs that are probably mistakes. A layer can `allow` each with a reason."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from archspec.graph import Graph, Node
from archspec.language.ops.base import Lint, format_shape
from archspec.language.source import Diagnostic

Finding = tuple[Node, Lint, str, str]  # the layer, the code, the message, and the field it is about


def lints(graph: Graph) -> list[Diagnostic]:
    """Return the warnings about a network in the order of its text; `allowed` has a layer's reason to allow one."""
    found = [finding for lint in (_windows, _relus, _dropouts, _softmax, _unused) for finding in lint(graph)]
    met = {(node, code) for node, code, _, _ in found}
    findings = [
        *((node, code, message, field, _allowed(node).get(code, "")) for node, code, message, field in found),
        *(
            (node, "unused-allow", f"there is no {code} here to allow", "allow", "")
            for node in (*graph.nodes, *graph.unused)
            for code in _allowed(node)
            if (node, code) not in met
        ),
    ]
    if not findings:
        return []
    places = {op.name: i for i, op in enumerate(graph.spec.layers)}
    layers = graph.source.data["layers"]
    warnings = []
    for node, code, message, field, allowed in findings:
        i = places[node.name]
        loc = ("layers", i, field if field in layers[i] else "op")
        warnings.append(graph.source.warning(code, f"{node.name}: {message}", loc, allowed=allowed))
    return sorted(warnings, key=lambda warning: warning.span)


def _windows(graph: Graph) -> Iterator[Finding]:
    """Windows that skip rows or columns of their input. A window of 1 skips some on purpose."""
    for node in graph.nodes:
        op: Any = node.op
        if not node.op.windowed:  # type: ignore[union-attr]
            continue
        shape = node.input_shapes[0]
        skipped = [
            _skipped(*axis)
            for axis in zip(
                shape[1:],
                node.output_shape[1:],
                op.kernel_size,
                op.strides,
                op.explicit_padding(shape),
                getattr(op, "dilation", (1, 1)),
                strict=True,
            )
        ]
        words = [f"{n} {axis}{'s' * (n > 1)}" for n, axis in zip(skipped, ("row", "column"), strict=True) if n]
        if words:
            message = f"no window covers {' and '.join(words)} of its {format_shape(shape[1:])} input"
            yield node, "uncovered-rows", message, "stride" if "stride" in op.model_fields_set else "kernel_size"


@lru_cache(maxsize=1024)
def _skipped(size: int, positions: int, kernel: int, stride: int, padding: tuple[int, int], dilation: int) -> int:
    """Return how many of the `size` positions along an axis are in no window."""
    span = padding[0] + size + padding[1] + stride
    if kernel == 1 or kernel * positions > 10**7 or span > 10**7:  # on purpose, or too many to check
        return 0
    covered = bytearray(span)
    for start in range(0, dilation * kernel, dilation):
        covered[start : start + (positions - 1) * stride + 1 : stride] = b"\1" * positions
    return size - sum(covered[padding[0] : padding[0] + size])


def _relus(graph: Graph) -> Iterator[Finding]:
    """A rectifier whose input is never negative."""
    nonnegative: set[Node] = set()
    for node in graph.nodes:
        op: Any = node.op
        inputs = all(read in nonnegative for read in node.inputs)
        if op.rectifies and inputs:
            yield node, "relu-after-relu", f"has no effect: {node.inputs[0].name} is never negative", "op"
        if op.nonnegative or (inputs and op.keeps_nonnegative):
            nonnegative.add(node)


def _dropouts(graph: Graph) -> Iterator[Finding]:
    """A dropout after the last layer with parameters."""
    before: set[Node] = set()  # layers before one with parameters
    for node in reversed(graph.nodes):
        if getattr(node.op, "random", False) and node not in before:
            yield (
                node,
                "dropout-after-output",
                "drops the network's own outputs: no layer after it has parameters",
                "op",
            )
        if node.trainable or node in before:
            before.update(node.inputs)


def _softmax(graph: Graph) -> Iterator[Finding]:
    """A softmax between the logits and a loss that expects logits."""
    if graph.spec.training is None:
        return
    node = graph.output
    while node.op.is_view or getattr(node.op, "random", False):
        (node,) = node.inputs
    if node.op.op == "softmax":
        loss = graph.spec.training.loss
        yield node, "softmax-before-loss", f"{loss} expects logits: this would be a second softmax", "op"


def _unused(graph: Graph) -> Iterator[Finding]:
    """A layer that the output does not depend on."""
    for node in graph.unused:
        yield node, "unused-layer", "the output does not depend on it: it is not part of the network", "name"


def _allowed(node: Node) -> dict[Lint, str]:
    return getattr(node.op, "allow", {})
