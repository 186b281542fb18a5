"""archspec report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from archspec.cli.console import print_diagnostics, print_json, struck, terminal_width, usage_error, write_output
from archspec.cli.options import Depth, DType, Output, Placement, Specs
from archspec.cli.specs import load_all, load_or_exit
from archspec.language.diagnostics import json_text
from archspec.language.source import SpecError, did_you_mean

if TYPE_CHECKING:
    from archspec.language.source import Diagnostic

app = typer.Typer(add_completion=False)

ReportFormat = Literal["table", "markdown", "csv", "json", "latex", "html"]
SUFFIXES = {
    ".md": "markdown",
    ".tex": "latex",
    ".txt": "table",
    ".htm": "html",
    ".csv": "csv",
    ".json": "json",
    ".html": "html",
}


def _list_columns(value: bool) -> None:
    if value:
        from archspec.report import COLUMNS

        width = max(map(len, COLUMNS))
        print("\n".join(f"{key:<{width}}  {column.description}" for key, column in COLUMNS.items()))
        raise typer.Exit


@app.command()
def report(
    specs: Specs,
    format: Annotated[
        ReportFormat | None,
        typer.Option(help="Output format (default: from FILE's extension, else table).", show_default=False),
    ] = None,
    output: Output = None,
    columns: Annotated[str | None, typer.Option(help="Columns of the layers, separated by commas.")] = None,
    list_columns: Annotated[
        bool, typer.Option("--list-columns", callback=_list_columns, is_eager=True, help="List all columns and exit.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, max=2**31, help="Batch size for memory estimates.")] = 1,
    dtype: Annotated[DType, typer.Option(help="Dtype for memory estimates.")] = "float32",
    placement: Placement = None,
    depth: Depth = 0,
    convention: Annotated[str | None, typer.Option(help="Count as a tool or a paper does, layer by layer.")] = None,
    conventions: Annotated[bool, typer.Option("--conventions", help="Count as all of them do, side by side.")] = False,
) -> None:
    """Show the layers, memory and claims of a network, or its counts in the conventions of other tools."""
    if output and format is None:
        format = SUFFIXES.get(output.suffix)  # type: ignore[assignment]
        if format is None:
            usage_error(f"unknown extension of {output}: use --format, or {', '.join(SUFFIXES)}")
    format = format or "table"
    if convention or conventions:
        if format not in ("table", "json") or output or columns:
            usage_error("--convention and --conventions print a table or json: the counts are --columns too")
        raise typer.Exit(_count(specs, format, convention, conventions))
    raise typer.Exit(_report(specs, format, output, _column_names(columns), batch, dtype, placement, depth))


def _column_names(columns: str | None) -> list[str] | None:
    """Return the keys of columns that are given by key or by header."""
    from archspec.report import COLUMNS

    if columns is None:
        return None
    headers = {column.head: key for key, column in COLUMNS.items()}
    names = [headers.get(name.strip(), name.strip()) for name in columns.split(",")]
    if unknown := [name for name in names if name not in COLUMNS]:
        hint = did_you_mean(unknown[0], [*COLUMNS, *headers])
        usage_error(f"no column {unknown[0]!r}{hint or '; see --list-columns'}")
    return names


def _count(specs: list[Path], format: str, convention: str | None, conventions: bool) -> int:
    """Print counts in one convention, or in all."""
    from archspec.analysis.conventions import CONVENTIONS
    from archspec.report import counting

    if convention and conventions:
        usage_error("give --convention or --conventions, not both")
    if convention and convention not in CONVENTIONS:
        usage_error(f"no convention {convention!r}; there are {', '.join(CONVENTIONS)}")
    graphs = load_or_exit(specs)
    one = CONVENTIONS.get(convention or "")
    if format == "json":
        facts = [counting.convention_facts(g, one) if one else counting.conventions_facts(g) for g in graphs]
        print_json({"specs": facts})
    else:
        for i, graph in enumerate(graphs):
            lines = counting.convention_table(graph, one) if one else counting.conventions_table(graph)
            print("\n" * (i > 0) + "\n".join(lines))
    return 0


def _report(
    specs: list[Path],
    format: str,
    output: Path | None,
    columns: list[str] | None,
    batch: int,
    dtype: str,
    placement: str | None,
    depth: int,
) -> int:
    """Print or write the report of every spec; return the exit status."""
    from archspec import report
    from archspec.analysis import claims
    from archspec.graph.model_parallel import shard, transfers
    from archspec.report import markup

    diagnostics: list[Diagnostic] = []
    found = []
    for graph in load_all(specs, diagnostics):
        try:
            between = tuple(transfers(shard(graph))) if placement else ()
            found.append(report.Facts(graph, batch, dtype, tuple(claims.verdicts(graph)), between, depth))
        except SpecError as error:
            diagnostics += error.diagnostics
    status = print_diagnostics(diagnostics)
    if format in ("html", "latex", "csv") and len(found) > 1:
        usage_error(f"{format} takes exactly one spec")
    if not found:
        return status
    text: Any
    if format == "json":
        data = [report.as_data(one, columns or report.COLUMNS) for one in found]
        text = json_text({"specs": data}) + "\n"
    elif format == "table":
        width = None if output else terminal_width()
        text = "\n\n".join("\n".join(report.report_lines(one, columns, width)) + "\n" for one in found)
        text = text if output else struck(text)
    elif format == "html":
        from archspec.report import page  # imports Jinja

        text = page.as_html(found[0], columns or page.COLUMNS)
    else:
        render = {"markdown": markup.as_markdown, "csv": markup.as_csv, "latex": markup.as_latex}[format]
        text = "\n".join(render(one, columns) for one in found)
    write_output(text, output)
    return status
