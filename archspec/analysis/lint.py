"""Lints: valid specs that are probably mistakes. A layer can `allow` each with a reason."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from archspec.graph import Graph, Instance, Node
from archspec.graph.graph import nodes_of
from archspec.language.blocks import Row
from archspec.language.ops.base import Lint, format_shape
from archspec.language.source import Diagnostic, Loc, first_diagnostics


class Finding(NamedTuple):
    """A warning about a layer or, with a `row`, about a row of blocks of which the layer is the first."""

    node: Node
    code: Lint
    message: str
    field: str  # that it is about
    row: Row | None = None
    path: str = ""


def lints(graph: Graph) -> list[Diagnostic]:
    """Return the warnings about a network in the order of its text; `allowed` has a layer's reason to allow one.

    A row of a block is warned about once, at its first instance.
    """
    rows: dict[tuple[Loc, str], list[Finding]] = {}
    for lint in (_windows, _relus, _dropouts, _softmax, _opaque, _unused):
        for finding in lint(graph):
            rows.setdefault((finding.row.loc if finding.row else finding.node.loc, finding.code), []).append(finding)
    warnings = []
    for (loc, code), (first, *others) in rows.items():
        more = f"; so it is in {len(others)} more of its instances" if others else ""
        use = first.row.use if first.row else first.node.use
        values = use.values if use else {}
        message = f"{first.path or first.node.name}: {first.message}{more}"
        loc = (*loc, first.field if first.field in values else "op")
        allow = values.get("allow", {}).get(code, "")
        warnings.append(graph.source.warning(code, message, loc, allowed=" ".join(allow.split())))
    unmet: dict[tuple[Loc, str], Node] = {}
    for node in (*graph.nodes, *graph.unused):
        for code in getattr(node.op, "allow", {}):
            if (node.loc, code) not in rows:
                unmet.setdefault((node.loc, code), node)
    for (loc, code), node in unmet.items():
        message = f"{node.name}: there is no {code} here to allow"
        warnings.append(graph.source.warning("unused-allow", message, (*loc, "allow")))
    return first_diagnostics(sorted(warnings, key=lambda warning: warning.span))


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
            field = "stride" if "stride" in op.model_fields_set else "kernel_size"
            yield Finding(node, "uncovered-rows", message, field)


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
            message = f"has no effect: {node.inputs[0].name} is never negative"
            yield Finding(node, "relu-after-relu", message, "op")
        if op.nonnegative or (inputs and op.keeps_nonnegative):
            nonnegative.add(node)


def _dropouts(graph: Graph) -> Iterator[Finding]:
    """A dropout after the last layer with parameters."""
    before: set[Node] = set()  # layers before one with parameters
    for node in reversed(graph.nodes):
        if getattr(node.op, "random", False) and node not in before:
            message = "drops the network's own outputs: no layer after it has parameters"
            yield Finding(node, "dropout-after-output", message, "op")
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
        message = f"{loss} expects logits: this would be a second softmax"
        yield Finding(node, "softmax-before-loss", message, "op")


def _opaque(graph: Graph) -> Iterator[Finding]:
    """A layer that is not computed."""
    for node in graph.nodes:
        if node.op.is_opaque:  # type: ignore[union-attr]
            yield Finding(node, "opaque-layer", "its operations are not counted, and no target computes it", "op")


def _unused(graph: Graph) -> Iterator[Finding]:
    """A row that the output does not depend on, not the rows of a block in it."""
    unused = set(graph.unused)

    def search(instance: Instance) -> Iterator[Finding]:
        for member in instance.members:
            inside = list(nodes_of(member.items))
            if inside and unused.issuperset(inside):
                path = ".".join(filter(None, (instance.path, member.row.name)))
                message = "the output does not depend on it: it is not part of the network"
                yield Finding(inside[0], "unused-layer", message, "name", member.row, path)
                continue
            for item in member.items:
                if isinstance(item, Instance):
                    yield from search(item)

    if unused and graph.root:
        yield from search(graph.root)
