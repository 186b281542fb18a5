"""A network as a table like a paper's, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

from archspec import analysis
from archspec.claims import Verdict, shown
from archspec.graph import Graph, Node
from archspec.ops.base import times
from archspec.report.text import aligned

_HEADS = ("layer", "op", "attributes", "input", "output", "weights", "biases", "parameters", "share", "MACs")
_RIGHT = frozenset((5, 6, 7, 8, 9))  # the columns of numbers


def table(graph: Graph) -> Iterator[str]:
    """Yield the lines of the network's table: a row a layer, then the totals with what each of them counts."""
    total = analysis.totals(graph)
    yield f"{graph.name}  ({graph.source.path})"
    if graph.spec.source:
        yield graph.spec.source
    yield ""
    yield from aligned([_HEADS, *(_row(node, total.params) for node in graph.nodes)], _RIGHT)
    yield ""
    yield from _totals(total)


def claims_table(found: list[Verdict]) -> Iterator[str]:
    """Yield the lines of a network's claims: a tick if it is true, a cross if it is not, struck through if disputed.

    What is struck through stands between ~~ and ~~.
    """
    rows = [("", "claim", "claimed", "computed", "source")]
    for verdict in found:
        claim = verdict.claim
        source = ", ".join(word for word in (claim.says, claim.where) if word)
        if claim.disputed:
            source = f"~~{source}~~ {claim.disputed}".replace("~~~~", "").strip()
        mark = "\u2717" if not verdict.holds else "" if claim.disputed else "\u2713"
        rows.append((mark, verdict.what, shown(verdict.claimed), shown(verdict.computed), source))
    yield from aligned(rows, {2, 3})


def _row(node: Node, all_params: int) -> tuple[str, ...]:
    params = analysis.params(node)
    return (
        node.name,
        node.op.op,
        attributes(node.op),
        ", ".join(map(times, node.input_shapes)),
        times(node.output_shape),
        _count(prod(node.weights.get("weight", (0,)))),
        _count(prod(node.weights.get("bias", (0,)))),
        _count(params),
        f"{params / all_params:.1%}" if params else "",
        _count(node.macs),
    )


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _totals(total: analysis.Totals) -> Iterator[str]:
    rows = (
        ("parameters", f"{total.params:,}", f"{_mib(total.param_bytes)} in float32"),
        ("MACs", f"{total.macs:,}", "multiply-accumulates of weights with inputs, one sample, without bias adds"),
        ("FLOPs", f"{total.flops:,}", "2 x MACs"),
        ("neurons", f"{total.neurons:,}", "outputs of convolutions and linear layers"),
        (
            "activations",
            f"{total.activation_bytes:,}",
            f"bytes: every layer's output, one sample in float32, {_mib(total.activation_bytes)}",
        ),
    )
    width = max(len(number) for _, number, _ in rows)
    for name, number, what in rows:
        yield f"{name:<11}  {number:>{width}}  {what}"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.2f} MiB"


def attributes(op: Any) -> str:
    """Return an op's attributes as a paper's table puts them, `96, 11 x 11, stride 4`, without defaults."""
    words = []
    for field, info in type(op).model_fields.items():
        value = getattr(op, field)
        if field in ("op", "name", "from_", "init") or value == info.default:
            continue
        text = times(value) if field == "kernel_size" else _value(value)
        words.append(text if info.is_required() else f"{field.removesuffix('_mode')} {text}")
    return ", ".join(words)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "none"
    if isinstance(value, tuple) and isinstance(value[0], tuple):  # padding by sides
        (top, bottom), (left, right) = value
        if top == bottom and left == right:
            return str(top) if top == left else f"{top} x {left}"
        return f"top {top} bottom {bottom} left {left} right {right}"
    if isinstance(value, tuple):  # height and width
        return str(value[0]) if value[0] == value[1] else times(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
