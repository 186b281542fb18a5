"""Evidence for a reader: on a terminal, and as a page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from archspec.graph import Node
from archspec.targets import target_of
from archspec.verification.checks import BOUNDS, CHECKS
from archspec.verification.evidence import Comparison, Evidence

if TYPE_CHECKING:
    from rich.table import Table


def rows(evidence: Evidence) -> Iterator[tuple[Node | None, list[tuple[str, str]]]]:
    """Yield one row per layer, the last for the whole network: the cell of each of the evidence's columns."""
    columns = list(evidence.columns())
    for node in (*evidence.graph.nodes, None):
        compared = evidence.of(node)
        cells = [
            cell(evidence, check, tuple(c for c in compared if c.check == check and dtype in ("", c.dtype)))
            for check, dtype in columns
        ]
        if node or any(text for text, _ in cells):
            yield node, cells


def cell(evidence: Evidence, check: str, compared: tuple[Comparison, ...]) -> tuple[str, str]:
    """Return the text of a cell and its kind: agrees, differs, zero, missing, or nothing.

    Where a target gave no result in the check, the others' agreement with the spec is not shown as an agreement.
    """
    differing = [c for c in compared if not c.agrees]
    if differing:
        worst = differing[0]
        return ("error" if worst.problem else f"{worst.value:.1e}"), "differs"
    if any(incomplete == check for incomplete, _ in evidence.incomplete):
        return ("not run", "missing") if compared else ("", "nothing")
    if not compared:
        return "", "nothing"
    if all(c.all_zero for c in compared):
        return "all zeros", "zero"
    if check == "structure":
        return "same", "agrees"
    worst = max(compared, key=lambda c: c.value / c.bound if c.bound else 0.0)
    if check == "init":
        return ("exact" if worst.value == 0 else f"{worst.value:.1f} se"), "agrees"
    return f"{worst.value:.1e}", "agrees"


def table(evidence: Evidence) -> Table:
    """Return one row per layer and one column per check, with the largest relative difference in each."""
    from rich.table import Table
    from rich.text import Text

    title = "Largest differences, relative to each tensor's largest magnitude"
    made = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    made.add_column("layer", no_wrap=True)
    for check, dtype in evidence.columns():
        made.add_column("\n".join(filter(None, (check, dtype))), justify="right", no_wrap=True)
    styles = {"agrees": "green", "differs": "bold red", "zero": "yellow", "missing": "bold yellow", "nothing": ""}
    for node, cells in rows(evidence):
        made.add_row(node.name if node else "(network)", *(Text(text, styles[kind]) for text, kind in cells))
    return made


def verdict(evidence: Evidence) -> str:
    """Return a sentence: the targets agree, or where they first differ."""
    names = " and ".join(evidence.targets)
    name = evidence.graph.name
    if evidence.agrees:
        words = []
        for check in ("forward", "gradients", "training"):
            for dtype in evidence.dtypes:
                values = [
                    c.value
                    for c in evidence.comparisons
                    if (c.check, c.dtype) == (check, dtype) and not c.problem and not c.by_spec
                ]
                if values:
                    words.append(f"{check} {dtype} within {max(values):.1e}")
        others = [check for check in evidence.checks if check not in BOUNDS or check in ("dropout", "transforms")]
        return f"{name}: {names} agree: {', '.join([*words, *others])}"
    first = evidence.first
    if first is None and evidence.failures:
        return f"{name}: not verified: {', '.join(failure.target for failure in evidence.failures)} failed"
    if first is None:
        return f"{name}: nothing was compared"
    reference = "the spec" if first.by_spec else _reference(evidence, first)
    node = next((n for n in evidence.graph.nodes if n.name == first.layer), None)
    where = f"{first.name} ({node.op.op})" if node else first.name
    dtype = f", {first.dtype}" if first.dtype else ""
    return f"{name}: {first.target} differs from {reference} at {where}: {first.finding} [{first.check}{dtype}]"


def _reference(evidence: Evidence, comparison: Comparison) -> str:
    """Return the target that a comparison's target was compared with."""
    able = [
        target
        for target in evidence.targets
        if target in evidence.versions
        and (comparison.check, target) not in evidence.incomplete
        and (comparison.check == "forward" or target_of(target).trains)
    ]
    return (able or list(evidence.targets))[0]


def disagreements(evidence: Evidence) -> list[str]:
    """Return all disagreements, one line per check and target."""
    found: dict[tuple[str, str], list[Comparison]] = {}
    for c in evidence.comparisons:
        if not c.agrees:
            found.setdefault((c.check, c.target), []).append(c)
    lines = []
    order = list(CHECKS)
    for (check, target), compared in sorted(found.items(), key=lambda item: order.index(item[0][0])):
        names = list(dict.fromkeys(c.name for c in compared))
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        lines.append(f"{check}: {target}: {', '.join(names[:5])}{more}")
    return lines


def blind_spots(evidence: Evidence) -> list[str]:
    """Return what this verification could not have noticed, in sentences."""
    lines = []
    zeros = list(dict.fromkeys(c.name for c in evidence.comparisons if c.all_zero and c.agrees))
    if zeros:
        lines.append(f"zero everywhere in every target, so not compared: {', '.join(zeros)}")
    by_layer: dict[str, list[str]] = {}
    for s in evidence.unseen:
        by_layer.setdefault(s.layer, []).append(s.change)
    lines += [f"this input cannot see {layer}: {', '.join(changes)}" for layer, changes in by_layer.items()]
    return lines


def page(evidence: Evidence) -> str:
    """Return the evidence as one self-contained HTML page."""
    from archspec.targets.render import html_environment
    from archspec.verification.certificate import certificate

    return (
        html_environment()
        .get_template("html/verify.html.jinja")
        .render(
            e=evidence,
            c=certificate(evidence),
            verdict=verdict(evidence),
            disagreements=disagreements(evidence),
            blind_spots=blind_spots(evidence),
            columns=list(evidence.columns()),
            rows=[(node.name if node else "(network)", cells) for node, cells in rows(evidence)],
            bounds=BOUNDS,
        )
    )
