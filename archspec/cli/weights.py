"""archspec weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from archspec.cli.console import print_diagnostics, usage_error
from archspec.cli.specs import load_one
from archspec.language.source import SpecError, printable, printable_lines
from archspec.targets import require_code

if TYPE_CHECKING:
    from archspec.graph import Graph
    from archspec.verification import Workers

app = typer.Typer(add_completion=False)


@app.command()
def weights(
    source: Annotated[
        Path,
        typer.Argument(metavar="IN", help=".safetensors, .pt, .pth, .npz, or .weights.h5, .h5 or .keras of Keras."),
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help=".safetensors, .pt, .pth, .npz, .weights.h5 or .keras.")
    ],
    spec: Annotated[Path, typer.Option(help="The spec of the network, or a model such as torchvision:resnet50.")],
) -> None:
    """Convert a network's weights between PyTorch, Keras and NumPy, without changing a bit of them."""
    from archspec.verification import WorkerError, Workers, weight_files

    if weight_files.suffix_of(output) not in weight_files.WRITTEN:
        usage_error(f"{output} must end in {', '.join(weight_files.WRITTEN)}")
    graph = load_one(spec)
    try:
        require_code(graph)
    except SpecError as error:
        raise typer.Exit(print_diagnostics(error.diagnostics)) from None
    with Workers(("torch", "keras")) as workers:
        found = read_weights(graph, source, workers)
        try:
            weight_files.write(graph, found, output, workers)
        except WorkerError as error:
            _failed(output, error)
        except OSError as error:
            usage_error(f"cannot write {output}: {error.strerror or error}")
    count = sum(value.size for value in found.values())
    print(f"{printable(str(output))}: {len(found)} arrays, {count:,} values", file=sys.stderr)


def read_weights(graph: Graph, path: Path, workers: Workers) -> Any:
    """Return the weights in a file by canonical name; print what is wrong with it and exit."""
    from archspec.verification import WorkerError, weight_files

    if not weight_files.suffix_of(path):
        usage_error(f"{path} must end in {', '.join(weight_files.SUFFIXES)}")
    if not path.is_file():
        usage_error(f"no such file: {path}")
    try:
        return weight_files.read(graph, path, workers)
    except WorkerError as error:
        _failed(path, error)
    except weight_files.WeightsError as error:
        print(f"error: {printable_lines(str(error))}", file=sys.stderr)
        raise typer.Exit(1) from None


def _failed(path: Path, error: Any) -> NoReturn:
    if error.missing:
        usage_error(str(error))
    print(f"error: {printable(f'{path}: {str(error).splitlines()[0]}')}", file=sys.stderr)
    raise typer.Exit(1) from None
