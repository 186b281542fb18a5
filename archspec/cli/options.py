"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

from archspec.cli.console import is_stdout
from archspec.language.source import did_you_mean

Specs = Annotated[
    list[Path],
    typer.Argument(
        help="Specs, folders of specs, models such as torchvision:resnet50, or - for standard input.", metavar="SPEC"
    ),
]
OneSpec = Annotated[Path, typer.Argument(help="A spec.", metavar="SPEC")]
Format = Annotated[Literal["table", "json"], typer.Option("--format", help="Output format.")]
DiagnosticsFormat = Literal["text", "json", "github", "sarif"]
Diagnostics = Annotated[
    DiagnosticsFormat,
    typer.Option(help="Format of errors and warnings. All but text go to standard output, and nothing else does."),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Write to a file; - is standard output.",
        metavar="FILE",
        callback=lambda output: None if is_stdout(output) else output,
    ),
]
Out = Annotated[Path, typer.Option(help="Directory of generated files; one subdirectory per spec.", metavar="DIR")]
Depth = Annotated[int, typer.Option(help="Levels of blocks to unfold.", min=0, max=64)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors, warnings and a summary only.")]
ErrorOnWarning = Annotated[bool, typer.Option("--error-on-warning", help="Exit with status 1 for warnings too.")]
DType = Literal["float64", "float32", "float16", "bfloat16"]


def one_of(names: Iterable[str]) -> Callable[[list[str] | None], list[str]]:
    """Return the callback of a repeatable option whose values are among `names`."""

    def check(values: list[str] | None) -> list[str]:
        for value in values or ():
            if value not in names:
                hint = did_you_mean(value, names) or f"; there are {', '.join(names)}"
                raise typer.BadParameter(f"no target {value!r}{hint}")
        return list(values or ())

    return check


Placement = Annotated[
    Literal["model-parallel"] | None,
    typer.Option(help="Also place the network on two ranks, half of every layer's channels on each."),
]
GENERATED = Path("generated")
