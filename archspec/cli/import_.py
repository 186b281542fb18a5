"""archspec import."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archspec.cli.console import print_diagnostics, usage_error, write_output
from archspec.cli.options import Output
from archspec.language.source import SpecError

if TYPE_CHECKING:
    from archspec.importers import Imported, UnsupportedModelError

app = typer.Typer(add_completion=False)


@app.command("import")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="torchvision:NAME, timm:NAME, or FILE.py:NAME, a class or function; FILE.py is run.", metavar="SOURCE"
        ),
    ],
    output: Output = None,
    weights_out: Annotated[
        Path | None,
        typer.Option(help="Write the weights, with canonical names.", metavar="FILE.safetensors"),
    ] = None,
    prove: Annotated[
        bool,
        typer.Option("--prove/--no-prove", help="Compare the generated PyTorch code with the model, in float64."),
    ] = True,
    input_shape: Annotated[str, typer.Option(help="Channels, height and width of the images.")] = "3,224,224",
    arguments: Annotated[
        str | None,
        typer.Option(help="Arguments of the class, as JSON.", metavar="JSON", show_default=False),
    ] = None,
    pretrained: Annotated[
        str | None,
        typer.Option(help="Name of pretrained weights, such as DEFAULT.", metavar="WEIGHTS", show_default=False),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the network (default: the model's).", show_default=False)
    ] = None,
) -> None:
    """Write a PyTorch model as a spec, and prove that the generated code computes what the model does."""
    from archspec import importers

    shape = _shape(input_shape)
    found: Any = {}
    if arguments:
        try:
            found = json.loads(arguments)
        except ValueError as error:
            usage_error(f"--arguments is no JSON: {error}")
        if not isinstance(found, dict):
            usage_error('--arguments must be an object, such as {"num_classes": 10}')
    if weights_out and weights_out.suffix != ".safetensors":
        usage_error(f"--weights-out must end in .safetensors, not {weights_out}")
    try:
        imported = importers.import_model(source, input_shape=shape, arguments=found, pretrained=pretrained, name=name)
        proof = importers.prove(imported) if prove else None
    except importers.UnsupportedModelError as error:
        _print_unsupported(source, error)
        raise typer.Exit(1) from None
    except SpecError as error:  # a target cannot express it, e.g. a class of the author's that has PyTorch's name
        raise typer.Exit(print_diagnostics(error.diagnostics)) from None
    except importers.MissingPackageError as error:
        usage_error(str(error))
    except importers.ImportFailedError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    failures = list(proof.failures) if proof else []
    _print_summary(imported, proof, source)
    if failures:
        for failure in failures:
            print(f"error: {failure}", file=sys.stderr)
        print("the spec is not the model: nothing was written", file=sys.stderr)
        raise typer.Exit(1)
    if weights_out:
        from safetensors.numpy import save

        write_output(save(dict(imported.canonical_weights())), weights_out)
    write_output(imported.text, output)


def _shape(text: str) -> tuple[int, ...]:
    parts = text.replace("x", ",").split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() and int(part) for part in parts):
        usage_error(f"--input-shape must be three whole numbers, such as 3,224,224, not {text}")
    return tuple(map(int, parts))


def _print_summary(imported: Imported, proof: Any, source: str) -> None:
    from archspec import analysis

    total = analysis.totals(imported.graph)
    rows = len(imported.text.splitlines())
    lines = [f"{source}: {len(imported.graph.nodes)} layers in {rows} lines, {total.params:,} parameters"]
    if total.params != imported.parameters:
        lines.append(f"the model has {imported.parameters:,} parameters: the others are used by no operator")
    if proof:
        lines.append(f"MACs {total.macs:,}; in float64 the generated code and the model differ by at most")
        lines += [f"  {value:.1e}  {what}" for what, value in proof.differences.items()]
    print("\n".join(lines), file=sys.stderr)


def _print_unsupported(source: str, error: UnsupportedModelError) -> None:
    """Print the operators that are not supported, grouped, each with a place in the user's own source."""
    groups: dict[tuple[str, str], list[Any]] = {}
    for one in error.found:
        groups.setdefault((one.target, one.why), []).append(one)
    share = 1 - len(error.found) / max(error.total, 1)
    print(
        f"error: {source} has {error.total} operators, of which {error.total - len(error.found)} are supported "
        f"({share:.1%}); these are not:",
        file=sys.stderr,
    )
    for (target, why), found in groups.items():
        first = found[0]
        head = f"{target}: {why}" if why else target
        places = f"{first.path or 'the model'}" + (f" and {len(found) - 1} more" if len(found) > 1 else "")
        print(f"  {head}", file=sys.stderr)
        print(f"    in {places}" + (f", at {first.line}" if first.line else ""), file=sys.stderr)
    print("nothing was written", file=sys.stderr)
