"""The costs of a network, compared with a budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from archspec import analysis
from archspec.analysis.memory import memory
from archspec.graph import Graph, Node
from archspec.graph.folding import folded
from archspec.language.budget import Bound, Budget
from archspec.language.ops.base import DTYPES
from archspec.language.source import Diagnostic, Source

PEAKS = {"memory": "peak_training", "inference_memory": "peak_inference"}  # fields of Memory


@dataclass(frozen=True, slots=True)
class Cost:
    """What a network costs, with the bound that a budget sets; `source` is the budget's file."""

    subject: str
    bound: Bound
    computed: int
    source: Source

    @property
    def is_size(self) -> bool:
        """Whether it is in bytes."""
        return self.subject in PEAKS or self.subject.endswith("_bytes")

    @property
    def fits(self) -> bool:
        """Whether the network stays within the bound."""
        return self.computed <= self.bound.limit


def costs(graph: Graph, budget: Budget, source: Source) -> list[Cost]:
    """Return the costs of a network for which a budget, in the file `source`, has bounds."""
    return [Cost(name, bound, _computed(graph, name, bound), source) for name, bound in budget.bounds.items()]


def errors(graph: Graph, found: list[Cost]) -> Iterator[Diagnostic]:
    """Yield an error for each bound that a network exceeds."""
    for cost in found:
        if cost.fits:
            continue
        head = "" if cost.source is graph.source else f"{graph.name}: "
        bound = cost.bound
        over = f" ({cost.computed / bound.limit - 1:.2%} over)" if bound.limit else ""
        message = f"{head}{cost.subject} is {format_cost(cost.computed, size=cost.is_size)}, not {bound.text}{over}"
        yield cost.source.error("over-budget", message + _largest(graph, cost), ("budget", cost.subject))


def format_cost(number: int, *, size: bool) -> str:
    """Return a count, or a size in bytes, as text: `60,965,224` or `238.4 MiB`."""
    if not size or number < 2**10:
        return f"{number:,}{' B' if size else ''}"
    unit, name = next((2**power, name) for power, name in ((30, "GiB"), (20, "MiB"), (10, "KiB")) if number >= 2**power)
    return f"{number / unit:,.1f} {name}"


def _computed(graph: Graph, subject: str, bound: Bound) -> int:
    if subject in PEAKS:
        return int(getattr(memory(graph, bound.batch, bound.dtype, graph.spec.training), PEAKS[subject]))
    if subject == "activation_bytes":
        return sum(analysis.activation_bytes(node, bound.batch, bound.dtype) for node in graph.nodes)
    totals = analysis.totals(graph)
    if subject == "param_bytes":
        return totals.params * DTYPES[bound.dtype]
    return int(asdict(totals)[subject])


def _largest(graph: Graph, cost: Cost) -> str:
    """Return the row of the text that costs most, as the end of a message; empty for a peak, which no row has."""
    if cost.subject in PEAKS:
        return ""
    share: Any = {"activation_bytes": analysis.activation_bytes, "macs": lambda node: node.macs}
    share = share.get(cost.subject.replace("flops", "macs"), analysis.params)
    rows = [(item.name, (item,) if isinstance(item, Node) else item.nodes) for item in folded(graph)]
    sizes = {name: sum(map(share, nodes)) for name, nodes in rows}
    name = max(sizes, key=lambda row: sizes[row])
    return f"; {name} has most of it, {sizes[name] / max(1, sum(sizes.values())):.0%}"
