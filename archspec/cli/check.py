"""archspec check."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from archspec.cli.console import print_diagnostics, print_json, struck, terminal_width, usage_error
from archspec.cli.options import Depth, Diagnostics, ErrorOnWarning, Format, Quiet, Specs
from archspec.cli.specs import check_all
from archspec.language.source import printable

if TYPE_CHECKING:
    from archspec.language.source import Diagnostic

app = typer.Typer(add_completion=False)

COLUMNS = "name op inputs input_shapes output_shape weights biases params macs".split()  # of --format json


@app.command()
def check(
    specs: Specs,
    format: Format = "table",
    diagnostics: Diagnostics = "text",
    depth: Depth = 0,
    quiet: Quiet = False,
    error_on_warning: ErrorOnWarning = False,
) -> None:
    """Infer every shape, count parameters, MACs and memory, test the claims, and warn about likely mistakes."""
    from archspec import report

    if format != "table" and diagnostics != "text":
        usage_error("--format and --diagnostics both write to standard output: give one of them")
    found: list[Diagnostic] = []
    results = check_all(specs, found)
    count = len(results) + len({d.path for d in found})
    found += [diagnostic for result in results for diagnostic in result.diagnostics]
    if diagnostics == "text" and format == "json":
        facts = [report.Facts(result.graph, verdicts=result.claims) for result in results]
        print_json({"specs": [report.as_data(one, COLUMNS) for one in facts]})
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
    sys.stdout.flush()
    status = print_diagnostics(found, diagnostics, specs=count, error_on_warning=error_on_warning)
    raise typer.Exit(status)
