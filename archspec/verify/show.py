"""Evidence as a person reads it: on a terminal, and as a page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from archspec.emit import TRAINERS
from archspec.graph import Node
from archspec.verify.evidence import BOUNDS, CHECKS, Comparison, Evidence
from archspec.verify.workers import kind

if TYPE_CHECKING:
    from rich.table import Table


def rows(evidence: Evidence) -> Iterator[tuple[Node | None, list[tuple[Comparison, ...]]]]:
    """Yield a row a layer, the last for the whole network: for each of the evidence's columns what was compared."""
    columns = list(evidence.columns())
    for node in (*evidence.graph.nodes, None):
        cells: dict[tuple[str, str], list[Comparison]] = {column: [] for column in columns}
        for c in evidence.of(node):
            cells[c.column].append(c)
        found = [tuple(cells[column]) for column in columns]
        if node or any(found):
            yield node, found


def cell(compared: tuple[Comparison, ...]) -> tuple[str, str]:
    """Return the text of a cell, and what it is: agrees, parts, blind or nothing."""
    if not compared:
        return "", "nothing"
    parted = [c for c in compared if not c.agrees]
    if parted:
        worst = parted[0]
        return ("fault" if worst.fault else f"{worst.value:.1e}"), "parts"
    if all(c.blind for c in compared):
        return "all zeros", "blind"
    if compared[0].check == "structure":
        return "same", "agrees"
    worst = max(compared, key=lambda c: c.value / c.bound if c.bound else 0.0)
    if compared[0].check == "init":
        return ("exact" if worst.value == 0 else f"{worst.value:.1f} se"), "agrees"
    return f"{worst.value:.1e}", "agrees"


def table(evidence: Evidence) -> Table:
    """Return a row a layer, a column a comparison, the largest relative difference in each."""
    from rich.table import Table
    from rich.text import Text

    title = f"{evidence.graph.name}: largest differences, relative to each tensor's largest magnitude"
    made = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    made.add_column("layer", no_wrap=True)
    for check, dtype in evidence.columns():
        made.add_column("\n".join(filter(None, (check, dtype))), justify="right", no_wrap=True)
    styles = {"agrees": "green", "parts": "bold red", "blind": "yellow", "nothing": ""}
    for node, cells in rows(evidence):
        shown = (cell(compared) for compared in cells)
        made.add_row(node.name if node else "(network)", *(Text(text, styles[kind]) for text, kind in shown))
    return made


def verdict(evidence: Evidence) -> str:
    """Return in a sentence that the targets agree, or where they first part."""
    names = " and ".join(evidence.targets)
    name = evidence.graph.name
    if evidence.agrees:
        words = []
        for check in ("forward", "gradients", "training"):
            for dtype in evidence.dtypes:
                values = [c.value for c in evidence.comparisons if (c.check, c.dtype) == (check, dtype) and _plain(c)]
                if values:
                    words.append(f"{check} {dtype} within {max(values):.1e}")
        others = [check for check in evidence.checks if check not in BOUNDS or check == "dropout"]
        return f"{name}: {names} agree: {', '.join([*words, *others])}"
    first = evidence.first
    if first is None and evidence.failures:
        return f"{name}: no agreement: {', '.join(failure.target for failure in evidence.failures)} failed"
    if first is None:
        return f"{name}: nothing could be compared"
    able = [t for t in evidence.targets if first.check == "forward" or (t in evidence.versions and kind(t) in TRAINERS)]
    alone = first.check in ("structure", "init") or first.what in (
        "learning rate",
        "central difference",
        "mode",
        "draw",
    )
    reference = "the spec" if alone else able[0]
    node = next((n for n in evidence.graph.nodes if n.name == first.layer), None)
    where = f"{first.name} ({node.op.op})" if node else first.name
    dtype = f", {first.dtype}" if first.dtype else ""
    return f"{name}: {first.target} parts from {reference} at {where}: it {first.finding} [{first.check}{dtype}]"


def _plain(c: Comparison) -> bool:
    return not c.fault and c.what not in ("central difference", "learning rate")


def parted(evidence: Evidence) -> list[str]:
    """Return what parts besides the first, a line a check and target."""
    found: dict[tuple[str, str], list[Comparison]] = {}
    for c in evidence.comparisons:
        if not c.agrees:
            found.setdefault((c.check, c.target), []).append(c)
    lines = []
    for (check, target), compared in sorted(found.items(), key=lambda item: CHECKS.index(item[0][0])):
        names = list(dict.fromkeys(c.name for c in compared))
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        lines.append(f"{check}: {target}: {', '.join(names[:5])}{more}")
    return lines


def blind_spots(evidence: Evidence) -> list[str]:
    """Return what this verification could not have seen, in sentences."""
    lines = []
    zeros = list(dict.fromkeys(c.name for c in evidence.comparisons if c.blind and c.agrees))
    if zeros:
        lines.append(f"all zeros in every target, so nothing could be seen: {', '.join(zeros)}")
    by_layer: dict[str, list[str]] = {}
    for s in evidence.unseen:
        by_layer.setdefault(s.layer, []).append(s.change)
    lines += [f"this input cannot see {layer}: {', '.join(changes)}" for layer, changes in by_layer.items()]
    return lines


def page(evidence: Evidence) -> str:
    """Return the evidence as one HTML page that needs nothing else."""
    from archspec.emit.words import pages
    from archspec.verify.certificate import certificate

    return (
        pages()
        .get_template("verify.html.jinja")
        .render(
            e=evidence,
            c=certificate(evidence),
            verdict=verdict(evidence),
            parted=parted(evidence),
            blind=blind_spots(evidence),
            columns=list(evidence.columns()),
            rows=[
                (node.name if node else "(network)", [cell(compared) for compared in cells])
                for node, cells in rows(evidence)
            ],
            bounds=BOUNDS,
        )
    )
