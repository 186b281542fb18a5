"""A network as a table like a paper's, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from archspec.claims import Verdict, shown
from archspec.graph import Graph
from archspec.report.facts import DEFAULT, Facts, Table, counted, crossed, layers, peaks, whole
from archspec.report.text import aligned


def table(graph: Graph) -> Iterator[str]:
    """Yield the lines of the network's table: a row a layer, then the totals with what each of them counts."""
    facts = Facts(graph)
    yield from _head(facts)
    yield from _lines(layers(facts))
    yield ""
    yield from _totals(whole(facts))


def report(facts: Facts, columns: Iterable[str] = DEFAULT) -> Iterator[str]:
    """Yield the lines of a report: the network's table, what it takes of memory, its claims, everyone's counts."""
    yield from _head(facts)
    yield from _lines(layers(facts, columns))
    yield ""
    yield from _totals(whole(facts))
    memory = peaks(facts)
    yield from ("", memory.title, "")
    yield from _totals(memory)
    if facts.crossings:
        yield from ("", (between := crossed(facts)).title, "")
        yield from _lines(between)
    if facts.verdicts:
        yield ""
        yield from claims_table(list(facts.verdicts))
    yield ""
    yield from _lines(counted(facts))


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


def _head(facts: Facts) -> Iterator[str]:
    yield f"{facts.graph.name}  ({facts.graph.source.path})"
    if facts.graph.spec.source:
        yield facts.graph.spec.source
    yield ""


def _lines(table: Table) -> Iterator[str]:
    yield from aligned([table.heads, *table.words], table.right)


def _totals(table: Table) -> Iterator[str]:
    """Yield a table of counts without its head."""
    yield from list(aligned([["", "", ""], *table.words], table.right))[2:]
