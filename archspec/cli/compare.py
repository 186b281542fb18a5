"""archspec compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from archspec.cli.console import print_json, usage_error
from archspec.cli.options import Depth, Format
from archspec.cli.specs import load_or_exit

app = typer.Typer(add_completion=False)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="A spec, or a model such as torchvision:resnet50.")],
    b: Annotated[Path, typer.Argument(help="Another one.")],
    format: Format = "table",
    depth: Depth = 0,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with status 1 if the networks differ.")] = False,
) -> None:
    """Compare two networks row by row, with the ratio of every total."""
    from archspec.report.compare import compare_facts, compare_lines

    graphs = load_or_exit([a, b])
    if len(graphs) != 2:
        usage_error("compare takes two specs, not folders of them")
    left, right = graphs
    facts = compare_facts(left, right)
    if format == "json":
        print_json(facts)
    else:
        print("\n".join(compare_lines(left, right, depth)))
    differ = bool(facts["differs"]) or any(layer["differs"] for layer in facts["layers"])
    raise typer.Exit(int(exit_code and differ))
