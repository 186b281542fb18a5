"""A network as plain text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from archspec.analysis.budget import Cost, format_cost
from archspec.analysis.claims import Verdict, format_number
from archspec.graph import Graph
from archspec.language.source import printable
from archspec.report.facts import (
    Facts,
    Table,
    cost_facts,
    default_columns,
    layers_table,
    memory_table,
    totals_table,
    transfers_table,
)
from archspec.report.text import aligned

# The columns that are left out first where a table is wider than the terminal.
EXPENDABLE = ("params_share", "input_shapes", "biases", "weights", "attributes", "inputs", "op")


def network_lines(graph: Graph, width: int | None = None, depth: int | None = 0) -> Iterator[str]:
    """Yield the lines of a network: one row per layer, or block above `depth`, then the totals.

    Columns are left out until the table fits into `width` characters, by default none.
    """
    facts = Facts(graph, depth=depth)
    yield from _head(facts)
    yield from _fitted(facts, default_columns(facts), width)
    yield ""
    yield from _totals(totals_table(facts))


def report_lines(facts: Facts, columns: Iterable[str] | None = None, width: int | None = None) -> Iterator[str]:
    """Yield the lines of a report: layers, totals, memory, transfers and claims."""
    yield from _head(facts)
    if columns is None:
        yield from _fitted(facts, default_columns(facts), width)
    else:
        yield from _lines(layers_table(facts, columns))
    yield ""
    yield from _totals(totals_table(facts))
    memory = memory_table(facts)
    yield from ("", memory.title, "")
    yield from _totals(memory)
    if facts.transfers:
        yield from ("", (between := transfers_table(facts)).title, "")
        yield from _lines(between)
    if facts.verdicts:
        yield ""
        yield from claims_lines(facts.verdicts)


def claims_lines(verdicts: Iterable[Verdict]) -> Iterator[str]:
    """Yield the lines of claims: a tick for a true one, a cross for a false one, a disputed one between ~~ and ~~."""
    rows = [("", "claim", "claimed", "computed", "source")]
    for verdict in verdicts:
        claim = verdict.claim
        source = printable(", ".join(word for word in (claim.says, claim.where) if word))
        if claim.disputed:
            source = f"~~{source}~~ {printable(claim.disputed)}".replace("~~~~", "").strip()
        mark = "\u2717" if not verdict.holds else "" if claim.disputed else "\u2713"
        rows.append((mark, verdict.what, format_number(verdict.claimed), format_number(verdict.computed), source))
    yield from aligned(rows, {2, 3})


def budget_lines(costs: Iterable[Cost]) -> Iterator[str]:
    """Yield the lines of a budget: a tick where the network stays within the bound, a cross where it does not."""
    rows = [("", "budget", "bound", "computed", "used")]
    for cost in costs:
        data = cost_facts(cost)
        used = "" if data["used"] is None else f"{data['used']:.1%}"
        computed = format_cost(cost.computed, size=cost.is_size)
        rows.append(("\u2713" if cost.fits else "\u2717", cost.subject, cost.bound.text, computed, used))
    yield from aligned(rows, {3, 4})


def _head(facts: Facts) -> Iterator[str]:
    yield f"{facts.graph.name}  ({printable(facts.graph.source.path)})"
    if facts.graph.spec.source:
        yield f"source: {printable(facts.graph.spec.source)}"
    yield ""


def _fitted(facts: Facts, columns: list[str], width: int | None) -> list[str]:
    lines = list(_lines(layers_table(facts, columns)))
    for name in EXPENDABLE if width else ():
        if max(map(len, lines)) <= (width or 0):
            break
        if name in columns:
            columns = [column for column in columns if column != name]
            lines = list(_lines(layers_table(facts, columns)))
    return lines


def _lines(table: Table) -> Iterator[str]:
    yield from aligned([table.heads, *table.words], table.right)


def _totals(table: Table) -> Iterator[str]:
    """Yield a table of counts without its head."""
    yield from list(aligned([["", "", ""], *table.words], table.right))[2:]
