"""Evidence on a terminal or as a file, and certificates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from archspec.cli.console import usage_error, write_output
from archspec.language.source import printable, printable_lines

if TYPE_CHECKING:
    from archspec.graph import Graph
    from archspec.verification import Evidence


def output_evidence(evidence: Evidence, format: str, output: Path | None) -> None:
    """Print a verification, or write it to a file."""
    from archspec.report import evidence as show
    from archspec.verification import certificate

    if format == "table" and output:
        if output.suffix not in (".json", ".html"):
            usage_error("--output must end in .json or .html")
        format = output.suffix[1:]
    if format == "table":
        print_evidence(evidence)
        return
    write_output(certificate.text(evidence) if format == "json" else show.page(evidence), output)
    if output:
        print(show.verdict(evidence))


def print_evidence(evidence: Evidence) -> None:
    """Print a verification: the verdict, a row a layer and a column a check, what was not noticed, the verdict."""
    from rich.console import Console

    from archspec.report import evidence as show

    console = Console(soft_wrap=True, highlight=False)
    console.width = max(console.width, 104)  # of the table: a narrower terminal wraps it
    style = "bold green" if evidence.agrees else "bold red"
    console.print(show.verdict(evidence), style=style, markup=False)
    for failure in evidence.failures:
        console.print(printable_lines(str(failure)), style="bold red", markup=False)
    if evidence.comparisons:
        console.print()
        console.print(show.table(evidence))
        if "init" in evidence.checks:
            console.print("se: standard errors from the spec's distribution", style="dim")
        console.print()
    for target, versions in evidence.versions.items():
        folder = str(evidence.folders.get(target, "generated from the spec"))
        text = f"{target}: {printable(folder)}, {', '.join(f'{k} {v}' for k, v in versions.items())}"
        console.print(text, style="dim", markup=False)
    for path in evidence.stale:
        text = f"{printable(str(path))} differs from what the spec generates (edited by hand, or out of date)"
        console.print(text, style="yellow", markup=False)
    if evidence.weights:
        print(f"outputs and gradients are those of given weights, sha256 {evidence.weights[:16]}")
    if evidence.held:
        print(evidence.held)
    for check, why in evidence.skipped.items():
        console.print(f"{check} does not apply: {why}", style="yellow", markup=False)
    for line in show.blind_spots(evidence):
        console.print(line, style="yellow", markup=False)
    if evidence.sensitivity and not evidence.unseen:
        count = len(evidence.sensitivity)
        text = f"{count} alterations of layers and attributes were tried: the checks would notice each"
        console.print(text, style="dim")
    if not evidence.agrees:
        for line in show.disagreements(evidence):
            console.print(line, style="red", markup=False)
        console.print(show.verdict(evidence), style=style, markup=False)


def write_certificate(evidence: Evidence, out: Path) -> None:
    """Write a certificate beside the generated files."""
    from archspec.files import write
    from archspec.verification import certificate

    write([(out / evidence.graph.name / certificate.NAME, certificate.text(evidence))], out)


def check_certificates(graphs: list[Graph], out: Path) -> int:
    """Print whether certificates are up to date; return the exit status."""
    from archspec.verification import certificate

    status = 0
    for graph in graphs:
        reasons = certificate.stale_reasons(graph, out / graph.name)
        for reason in reasons:
            print(f"{graph.name}: {printable(reason)}")
        if not reasons:
            print(f"{graph.name}: {printable(str(out / graph.name / certificate.NAME))} is up to date")
        status = max(status, 1 if reasons else 0)
    return status
