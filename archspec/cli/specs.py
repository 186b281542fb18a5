"""The specs that a command is given."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

import archspec
from archspec.cli.console import print_diagnostics, usage_error
from archspec.language.source import MAX_BYTES, Source, SpecError, require_inside
from archspec.language.spec import BUDGET_SUFFIX, CLAIMS_SUFFIX, parse_budget

if TYPE_CHECKING:
    from archspec.graph import Graph
    from archspec.language.source import Diagnostic


def load_all(paths: list[Path], diagnostics: list[Diagnostic]) -> list[Graph]:
    """Return the networks of all specs at `paths`; add the errors of the others to `diagnostics`."""
    graphs = []
    for path in spec_paths(paths):
        with collected(path, diagnostics):
            graphs.append(load(path))
    return graphs


def check_all(paths: list[Path], diagnostics: list[Diagnostic], budget: Path | None = None) -> list[archspec.Checked]:
    """Return the results of all specs and files of claims at `paths`; add the errors of the others to `diagnostics`."""
    results = []
    for path in spec_paths(paths, claims=True):
        with collected(path, diagnostics):
            network = path if path.suffix in (".yaml", ".yml") else load(path)
            results.append(archspec.check(network, budget=budget))
    return results


def read_budget(path: Path) -> None:
    """Print the errors of a file with a budget and exit if there are any: once, and not for every spec."""
    diagnostics: list[Diagnostic] = []
    with collected(path, diagnostics):
        parse_budget(Source.read(path))
    if print_diagnostics(diagnostics):
        raise typer.Exit(1)


@contextmanager
def collected(path: Path, diagnostics: list[Diagnostic]) -> Iterator[None]:
    """Add the errors of the spec at `path` to `diagnostics`; exit if it cannot be read."""
    try:
        yield
    except SpecError as error:
        diagnostics += error.diagnostics
    except OSError as error:
        usage_error(f"cannot read {path}: {error.strerror or error}")


def load(path: Path) -> Graph:
    """Return the network of the spec at `path`, or on standard input if that is `-`."""
    if str(path) == "-":
        return archspec.loads(sys.stdin.buffer.read(MAX_BYTES + 1), "<stdin>")
    if is_source(path):
        from archspec.cli.sources import import_errors

        with import_errors(str(path)):
            return archspec.import_model(str(path)).graph
    return archspec.load(path)


def is_source(path: Path) -> bool:
    """Return whether an argument names a model, such as `torchvision:resnet50`, rather than a spec."""
    if ":" not in str(path) and path.suffix in ("", ".yaml", ".yml"):
        return False  # without the import of the importers, which is start-up
    from archspec.importers import sources

    return sources.is_source(str(path))


def load_or_exit(paths: list[Path], *, many: bool = True) -> list[Graph]:
    """Return the networks of all specs at `paths`; print their errors and exit with status 1 if there are any."""
    diagnostics: list[Diagnostic] = []
    graphs = load_all(paths, diagnostics)
    if print_diagnostics(diagnostics):
        raise typer.Exit(1)
    if not many and len(graphs) != 1:
        usage_error("this command takes one spec, not a folder of them")
    return graphs


def load_one(path: Path) -> Graph:
    """Return the network of one spec; print its errors and exit if there are any."""
    return load_or_exit([path], many=False)[0]


def spec_paths(paths: list[Path], *, claims: bool = False) -> Iterator[Path]:
    """Yield the files of `paths`: a folder stands for the specs directly in it, `-` for standard input.

    With `claims` the files of claims in a folder are among them; files of budgets never are.
    """
    for path in paths:
        if is_source(path):
            yield path
            continue
        try:
            is_folder, exists = path.is_dir(), path.exists()
        except (OSError, ValueError) as error:  # a name that no file can have
            usage_error(f"cannot read {str(path)[:60]}: {getattr(error, 'strerror', None) or error}")
        if is_folder:
            found = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml") and p.is_file())
            found = [p for p in found if not p.name.endswith(BUDGET_SUFFIX)]
            if not claims:
                found = [p for p in found if not p.name.endswith(CLAIMS_SUFFIX)]
            if not found:
                usage_error(f"no specs in the folder {path}")
            for file in found:
                try:
                    require_inside(file)
                except OSError as error:
                    usage_error(f"cannot read {file}: {error.strerror}")
                yield file
        elif not exists and str(path) != "-":
            usage_error(f"no such file: {path}" if path != Path("specs") else "no folder specs/ here: name a spec")
        else:
            yield path
