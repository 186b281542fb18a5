"""archspec generate."""

from __future__ import annotations

import difflib
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archspec.cli.console import print_diagnostics, usage_error
from archspec.cli.options import GENERATED, Diagnostics, ErrorOnWarning, Out, Placement, Quiet, one_of
from archspec.cli.specs import load_all
from archspec.language.source import SpecError, printable, printable_lines
from archspec.targets import TARGETS

if TYPE_CHECKING:
    from archspec.graph import Graph
    from archspec.language.source import Diagnostic
    from archspec.targets.output import Plan

app = typer.Typer(add_completion=False)


@app.command()
def generate(
    specs: Annotated[
        list[Path] | None,
        typer.Argument(help="Specs, or folders of specs (default: specs/).", metavar="SPEC", show_default=False),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Target to generate, {', '.join(TARGETS)}; repeatable (default: all).",
            callback=one_of(TARGETS),
            show_default=False,
        ),
    ] = None,
    out: Out = GENERATED,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 if generated files are out of date.")
    ] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Write nothing; print what would change.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that were edited by hand.")] = False,
    placement: Placement = None,
    diagnostics: Diagnostics = "text",
    quiet: Quiet = False,
    error_on_warning: ErrorOnWarning = False,
) -> None:
    """Write a network's code for each target: model.py and, with a recipe, recipe.py, train.py and engine/."""
    from archspec.analysis.lint import lints
    from archspec.targets.output import EditedError, plan, write_files

    if placement and target and not any(TARGETS[name].places for name in target):
        usage_error(f"--placement is for {', '.join(name for name in TARGETS if TARGETS[name].places)}")
    found: list[Diagnostic] = []
    files: dict[Path, str] = {}
    owners: dict[str, str] = {}
    for graph in load_all(specs or [Path("specs")], found):
        if graph.name in owners:
            paths = f"{owners[graph.name]} and {graph.source.path}"
            usage_error(f"two specs are named {graph.name!r}, and both would write {out / graph.name}: {paths}")
        owners[graph.name] = graph.source.path
        found += lints(graph)
        files |= _files(graph, list(target or TARGETS), out, bool(placement), found)
    # the existing files stay until all of them can be replaced
    if status := print_diagnostics(found, diagnostics, error_on_warning=error_on_warning):
        raise typer.Exit(status)
    show = diagnostics == "text" and not quiet
    if check or diff:
        planned = plan(files)
        if diff:
            _print_diff(files, planned)
        if diagnostics == "text" and not planned.is_current:
            _print_stale(planned, _command(specs or [], target or [], out, placement))
        raise typer.Exit(0 if planned.is_current else int(check))
    try:
        done = write_files(files, out, force=force)
    except EditedError as error:
        for path in error.paths:
            shown = printable(str(path))
            print(f"archspec: {shown} was edited by hand: move the change to the spec, or use --force", file=sys.stderr)
        raise typer.Exit(1) from None
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        usage_error(f"cannot write below {out}: {getattr(error, 'strerror', None) or error}")
    if show:
        print("\n".join(printable(str(path)) for path in files))
        for path in done.kept if not force else ():
            print(f"archspec: kept {printable(str(path))}, which was edited", file=sys.stderr)


def _files(graph: Graph, targets: list[str], out: Path, placed: bool, found: list[Diagnostic]) -> dict[Path, str]:
    """Return the files of a network; add the errors of targets that cannot express it to `found`."""
    from archspec.api import planned_files
    from archspec.targets import model_parallel

    files: dict[Path, str] = {}
    for name in targets:
        try:
            files |= planned_files(graph, name, out)
            if placed and TARGETS[name].places:
                files |= {out / graph.name / path: text for path, text in model_parallel(graph).items()}
        except SpecError as error:
            found += error.diagnostics
    return files


def _command(specs: list[Path], targets: list[str], out: Path, placement: str | None) -> str:
    """Return the command that writes the files."""
    words = ["archspec", "generate", *map(str, specs)]
    for name in targets:
        words += ["--target", name]
    if out != GENERATED:
        words += ["--out", str(out)]
    if placement:
        words += ["--placement", placement]
    return shlex.join(words)


def _print_stale(planned: Plan, command: str) -> None:
    """Print which files are not what the spec generates, and the command that writes them."""
    groups = (("missing", planned.new), ("out of date", planned.changed), ("edited by hand", planned.edited))
    for state, paths in groups:
        for path in paths:
            print(f"{printable(str(path))}: {state}")
    counts = ", ".join(f"{len(paths)} {state}" for state, paths in groups if paths)
    force = " --force" if planned.edited else ""
    print(f"archspec: {counts}; run `{printable(command)}{force}`, or see the changes with --diff", file=sys.stderr)


def _print_diff(files: dict[Path, str], planned: Plan) -> None:
    for path in (*planned.new, *planned.changed, *planned.edited):
        before = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        old, new = before.splitlines(keepends=True), files[path].splitlines(keepends=True)
        name = printable(str(path))
        lines = difflib.unified_diff(old, new, name, f"{name} (generated)")
        sys.stdout.writelines(map(printable_lines, lines))
