"""archspec train."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from archspec.cli.console import print_diagnostics, usage_error
from archspec.cli.options import GENERATED, OneSpec, Out
from archspec.cli.specs import load_one
from archspec.language.source import SpecError, did_you_mean, printable
from archspec.targets import INSTALL, TARGETS, TRAINED

app = typer.Typer(add_completion=False)


@app.command()
def train(
    spec: OneSpec,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            help="Arguments of the training program, after --.", metavar="-- PROGRAM-ARGS", show_default=False
        ),
    ] = None,
    target: Annotated[str, typer.Option(help=f"Framework to train in: {', '.join(TRAINED)}.")] = TRAINED[0],
    out: Out = GENERATED,
) -> None:
    """Generate a training program, unless it exists, and run it: `archspec train SPEC -- --help` shows its options."""
    from archspec.api import planned_files
    from archspec.targets.output import plan, write_files

    if target not in TRAINED:
        usage_error(f"no training program for {target!r}{did_you_mean(target, TRAINED)}")
    graph = load_one(spec)
    if graph.spec.training is None:
        usage_error(f"{spec} has no section training")
    missing = [name for name in (target, "tqdm") if find_spec(name) is None]
    if missing:
        usage_error(f"train needs {missing[0]}: {INSTALL.format(extra='all')}")
    try:
        files = planned_files(graph, target, out)
    except SpecError as error:
        raise typer.Exit(print_diagnostics(error.diagnostics)) from None
    planned = plan(files)
    wanted = {path: files[path] for path in (*planned.new, *planned.changed)}  # an edited file runs as it is
    try:
        write_files(wanted, out)
    except OSError as error:
        usage_error(f"cannot write below {out}: {error.strerror or error}")
    for path in planned.edited:
        print(f"archspec: {printable(str(path))} was edited by hand, and runs as it is", file=sys.stderr)
    program = str(out / graph.name / TARGETS[target].folder / "train.py")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, program, *(arguments or [])])  # noqa: S606  signals and status are its own
