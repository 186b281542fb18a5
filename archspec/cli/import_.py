"""archspec import."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import archspec
from archspec.cli.console import usage_error, write_output
from archspec.cli.options import Output
from archspec.cli.sources import import_errors
from archspec.files import tensors_as_bytes
from archspec.language.source import printable, printable_lines

if TYPE_CHECKING:
    from archspec.importers import Imported

app = typer.Typer(add_completion=False)


@app.command("import")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="torchvision:NAME, timm:NAME, keras.applications:NAME, a model's file (.pt2, .keras, .h5, "
            ".json, .onnx, .prototxt), or FILE.py:NAME, keras:FILE.py:NAME, a class or function; FILE.py is run.",
            metavar="SOURCE",
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
    input_shape: Annotated[
        str | None,
        typer.Option(help="Channels, height and width of the images (default: the model's, or 3,224,224)."),
    ] = None,
    arguments: Annotated[
        str | None,
        typer.Option(help="Arguments of the class, as JSON.", metavar="JSON", show_default=False),
    ] = None,
    pretrained: Annotated[
        str | None,
        typer.Option(help="Name of pretrained weights, such as DEFAULT.", metavar="WEIGHTS", show_default=False),
    ] = None,
    opaque: Annotated[
        bool,
        typer.Option("--opaque", help="Write modules that no op is as opaque layers: counted, not computed."),
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="Name of the network (default: the model's).", show_default=False)
    ] = None,
) -> None:
    """Write a PyTorch, Keras, ONNX or Caffe model as a spec, and prove that the generated code computes the same."""
    from archspec.importers import proof

    shape = _shape(input_shape) if input_shape else None
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
    with import_errors(source):
        options = {"input_shape": shape, "arguments": found, "pretrained": pretrained, "name": name, "opaque": opaque}
        imported = archspec.import_model(source, **options)
        proven = proof.prove(imported) if prove and proof.is_possible(imported) else None
    failures = list(proven.failures) if proven else []
    _print_summary(imported, proven, source)
    if failures:
        for failure in failures:
            print(f"error: {printable_lines(str(failure))}", file=sys.stderr)
        print("the spec is not the model: nothing was written", file=sys.stderr)
        raise typer.Exit(1)
    if weights_out and (imported.is_opaque or not imported.weights):
        usage_error(f"{source} has {'opaque layers: no' if imported.is_opaque else 'no'} weights to write")
    if weights_out:
        write_output(tensors_as_bytes(imported.canonical_weights()), weights_out)
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
    if imported.parameters is not None and total.params != imported.parameters:
        fewer = total.params < imported.parameters
        why = "the others are used by no operator" if fewer else "norms without a scale or a shift have one here"
        lines.append(f"the model has {imported.parameters:,} parameters: {why}")
    if proof:
        lines.append(f"MACs {total.macs:,}; in float64 the generated code and the model differ by at most")
        lines += [f"  {value:.1e}  {what}" for what, value in proof.differences.items()]
    print("\n".join(map(printable, lines)), file=sys.stderr)
