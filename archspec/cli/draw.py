"""archspec draw."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from archspec.cli.console import is_stdout, usage_error, write_output
from archspec.cli.options import Depth, OneSpec
from archspec.cli.specs import load_one

app = typer.Typer(add_completion=False)


@app.command()
def draw(
    spec: OneSpec,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="FILE.svg, FILE.png or - (default: NAME.svg).", metavar="FILE")
    ] = None,
    depth: Depth = 0,
) -> None:
    """Draw the network to scale, with its groups and branches."""
    from archspec.report import drawing
    from archspec.targets import INSTALL

    graph = load_one(spec)
    output = output or Path(f"{graph.name}.svg")
    if output.suffix not in (".svg", ".png") and not is_stdout(output):
        usage_error(f"--output must end in .svg or .png, not {output}")
    drawn = drawing.draw(graph, depth)
    if drawn is None:
        most = f"{drawing.MAX_BOXES} boxes and {drawing.MAX_ARROWS:,} arrows"
        usage_error(f"{graph.name} is too large to be drawn: at most {most}")
    try:
        content = drawing.png(drawn) if output.suffix == ".png" else drawing.svg(drawn)
    except ImportError:
        usage_error(f"a PNG needs resvg_py: {INSTALL.format(extra='draw')}")
    except ValueError as error:
        usage_error(str(error))
    write_output(content, output)
