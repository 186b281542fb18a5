"""archspec lockstep."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from archspec.cli.console import print_diagnostics, progress, usage_error
from archspec.cli.options import OneSpec, one_of
from archspec.cli.specs import load_one
from archspec.language.source import SpecError, printable
from archspec.targets import INSTALL, TRAINED, VARIANTS, target_of

app = typer.Typer(add_completion=False)

TRAINED_VARIANTS = [name for name in VARIANTS if target_of(name).trains]


@app.command()
def lockstep(
    spec: OneSpec,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Target to train; repeatable, the first one reads the images (default: {', '.join(TRAINED)}).",
            callback=one_of(TRAINED_VARIANTS),
            show_default=False,
            metavar="TARGET",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the data set (default: scikit-learn's digits).", metavar="DIR")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Number of epochs (default: the recipe's).")] = None,
    float64_epochs: Annotated[
        int | None, typer.Option(min=0, help="Number of epochs to run in float64 as well (default: all).")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Batch size (default: the recipe's).")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of weights, order and draws.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Directory for lockstep.json and lockstep.png.", metavar="DIR")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, max=10**6, help="Time limit of one job of a target, in s.")] = 3600,
) -> None:
    """Train several targets from the same weights on the same batches, and report the step at which they diverge."""
    from archspec.files import write
    from archspec.verification import WorkerError, Workers

    graph = load_one(spec)
    recipe = graph.spec.training
    if recipe is None:
        usage_error(f"{spec} has no section training")
    targets = list(target or TRAINED)
    if len(set(targets)) < max(2, len(targets)):
        usage_error("lockstep trains two or more different targets: repeat --target")
    if data and not data.is_dir():
        usage_error(f"no such folder: {data}")
    count = epochs or recipe.epochs
    try:
        from archspec.verification import lockstep as training

        with (
            progress() as show,
            Workers(targets, timeout=timeout, progress=show) as workers,
            Workers(targets[:1], timeout=timeout) as reader,
        ):
            result = training.lockstep(
                graph,
                workers,
                reader,
                data=data,
                epochs=count,
                float64_epochs=count if float64_epochs is None else min(float64_epochs, count),
                batch_size=batch_size or recipe.batch_size,
                seed=seed,
            )
        picture = training.plot(result) if out else b""
    except ModuleNotFoundError as error:
        usage_error(f"lockstep needs {error.name}: {INSTALL.format(extra='all')}")
    except SpecError as error:
        raise typer.Exit(print_diagnostics(error.diagnostics)) from None
    except WorkerError as error:
        first = printable(str(error).splitlines()[0].replace("DataError: ", ""))
        print(f"archspec: {first}", file=sys.stderr)
        raise typer.Exit(2 if error.missing else 1) from None
    except (OSError, ValueError) as error:
        usage_error(str(error))
    if out:
        facts = json.dumps(result.facts(), indent=1) + "\n"
        write([(out / "lockstep.json", facts), (out / "lockstep.png", picture)], out)
    print("\n".join(training.table(result)))
    raise typer.Exit(0 if result.agrees else 1)
