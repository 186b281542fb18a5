"""archspec check."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archspec.cli.console import print_diagnostics, print_json, struck, terminal_width, usage_error
from archspec.cli.options import Depth, Diagnostics, ErrorOnWarning, Format, Quiet, Specs
from archspec.cli.specs import check_all, read_budget
from archspec.language.source import printable

if TYPE_CHECKING:
    from archspec import Checked
    from archspec.language.source import Diagnostic

app = typer.Typer(add_completion=False)

COLUMNS = "name op inputs input_shapes output_shape weights biases params macs".split()  # of --format json


@app.command()
def check(
    specs: Specs,
    format: Format = "table",
    diagnostics: Diagnostics = "text",
    depth: Depth = 0,
    budget: Annotated[
        Path | None, typer.Option(help="File with a budget that every network must keep.", metavar="FILE")
    ] = None,
    quiet: Quiet = False,
    error_on_warning: ErrorOnWarning = False,
) -> None:
    """Infer every shape, count parameters, MACs and memory, test claims and budgets, and warn about likely mistakes."""
    from archspec import report

    if format != "table" and diagnostics != "text":
        usage_error("--format and --diagnostics both write to standard output: give one of them")
    found: list[Diagnostic] = []
    if budget:
        read_budget(budget)
    results = check_all(specs, found, budget)
    count = len(results) + len({d.path for d in found})
    found += [diagnostic for result in results for diagnostic in result.diagnostics]
    if diagnostics == "text" and format == "json":
        print_json({"specs": [_data(result) for result in results]})
    elif diagnostics == "text" and not quiet:
        width = terminal_width()
        for i, result in enumerate(results):
            if result.of_claims:
                lines = [f"{result.graph.name}  ({printable(result.graph.source.path)})"]
            else:
                lines = list(report.network_lines(result.graph, width, depth))
            print("\n" * (i > 0) + "\n".join(lines))
            if result.claims:
                print(struck("\n".join(["", *report.claims_lines(result.claims)])))
            if result.costs:
                print("\n".join(["", *report.budget_lines(result.costs)]))
    sys.stdout.flush()
    status = print_diagnostics(found, diagnostics, specs=count, error_on_warning=error_on_warning)
    raise typer.Exit(status)


def _data(result: Checked) -> dict[str, Any]:
    """Return a result as data."""
    from archspec import report

    facts = report.Facts(result.graph, verdicts=result.claims)
    return {**report.as_data(facts, COLUMNS), "budget": [report.cost_facts(cost) for cost in result.costs]}
