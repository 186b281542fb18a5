"""archspec verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import archspec
from archspec.cli.console import print_diagnostics, progress, usage_error
from archspec.cli.distributed import check_distributed
from archspec.cli.evidence import check_certificates, output_evidence, write_certificate
from archspec.cli.images import print_top5, read_data
from archspec.cli.options import GENERATED, Out, Output, Specs, one_of
from archspec.cli.ports import verify_ports
from archspec.cli.specs import load_or_exit
from archspec.cli.weights import read_weights
from archspec.language.source import SpecError
from archspec.targets import INSTALL, TRAINED, VARIANTS

app = typer.Typer(add_completion=False)


@app.command()
def verify(
    specs: Specs,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Target to compare; repeatable, the first is the reference (default: {', '.join(TRAINED)}).",
            callback=one_of(VARIANTS),
            show_default=False,
            metavar="TARGET",
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="Compare the spec with this model instead, such as net.py:Net or keras:net.py:make; repeatable.",
            metavar="SOURCE",
            show_default=False,
        ),
    ] = None,
    out: Out = GENERATED,
    quick: Annotated[
        bool, typer.Option("--quick", help="Compare structure, outputs and gradients in float64 only.")
    ] = False,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Batch size (default: 2, or 16 images of --data).", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of weights and inputs.")] = 0,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Weights for outputs and gradients: .safetensors, .pt, .npz or Keras' (default: random ones).",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Images for outputs and gradients (default: noise); print what the targets say they are.",
            metavar="FOLDER",
            exists=True,
            file_okay=False,
            show_default=False,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=2, max=10_000, help="Number of training steps.")] = 20,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Device of the targets.")] = "cpu",
    python: Annotated[
        list[str] | None,
        typer.Option(help="Interpreter for a target; repeatable.", metavar="TARGET=PATH", show_default=False),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, max=10**6, help="Time limit of one job of a target, in s.")] = 600,
    format: Annotated[Literal["table", "json", "html"], typer.Option(help="Output format.")] = "table",
    output: Output = None,
    certify: Annotated[
        bool, typer.Option("--certify", help="Write verify.json beside the generated files if the targets agree.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Run nothing; exit 1 if verify.json is missing or out of date.")
    ] = False,
    distributed: Annotated[
        int | None,
        typer.Option(min=2, max=16, help="Only check that N-process training equals single-process training."),
    ] = None,
) -> None:
    """Run the code of several targets on the same weights and data; compare outputs, gradients and training."""
    if check:
        raise typer.Exit(check_certificates(load_or_exit(specs), out))
    options: dict[str, Any]
    try:
        import numpy, safetensors, scipy  # noqa: E401, F401, I001

        from archspec.verification import Workers
    except ModuleNotFoundError as error:
        usage_error(f"verify needs {error.name}: {INSTALL.format(extra='all')}")
    if against:
        options = {"batch": batch or 2, "seed": seed, "sensitive": not quick, "generated": out}
        files = {"weights": weights, "data": data, "output": output}
        raise typer.Exit(verify_ports(load_or_exit(specs), against, files, timeout, format, options))
    targets = list(target or TRAINED)
    if len(set(targets)) < max(2, len(targets)):
        usage_error("verify compares two or more different targets: repeat --target")
    pythons = dict(_interpreter(word, targets) for word in python or [])
    graphs = load_or_exit(specs)
    if distributed:
        raise typer.Exit(check_distributed(graphs, targets, distributed, timeout))
    if output and len(graphs) > 1:
        usage_error("--output takes exactly one spec")
    if (weights or data) and len(graphs) > 1:
        usage_error(f"--{'weights' if weights else 'data'} takes exactly one spec")
    if certify and quick:
        usage_error("--certify needs all checks: leave out --quick")
    status = 0
    options = {"batch": batch or 2, "seed": seed, "steps": steps, "sensitive": not quick, "quick": quick}
    with (
        progress() as show,
        Workers(targets, timeout=timeout, device=device, pythons=pythons, progress=show) as workers,
    ):
        for graph in graphs:
            try:
                if weights:
                    options["weights"] = read_weights(graph, weights, workers)
                if data:
                    options["inputs"], images = read_data(graph, data, batch)
                evidence = archspec.verify(graph, workers=workers, generated=out, **options)
            except SpecError as error:
                status = max(status, print_diagnostics(error.diagnostics))
                continue
            except (MemoryError, OSError) as error:
                usage_error(str(error))
            output_evidence(evidence, format, output)
            if data:
                print_top5(images, evidence.outputs)
            if certify and evidence.agrees:
                write_certificate(evidence, out)
            if any(failure.missing for failure in evidence.failures):
                raise typer.Exit(2)
            status = max(status, 0 if evidence.agrees else 1)
    raise typer.Exit(status)


def _interpreter(word: str, targets: list[str]) -> tuple[str, str]:
    target, equals, path = word.partition("=")
    if not equals or target not in targets:
        usage_error(f"--python must be TARGET=PATH, for one of {', '.join(targets)}, not {word!r}")
    return target, path
