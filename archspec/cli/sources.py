"""Models as arguments of commands: `torchvision:resnet50`, `net.py:Net`, `model.keras`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from archspec.cli.console import print_diagnostics, usage_error
from archspec.language.source import SpecError, printable, printable_lines

if TYPE_CHECKING:
    from archspec.importers import UnsupportedModelError


@contextmanager
def import_errors(source: str) -> Iterator[None]:
    """Print what goes wrong in an import and exit: with status 1, or 2 where a package is missing."""
    from archspec import importers

    try:
        yield
    except importers.UnsupportedModelError as error:
        _print_unsupported(source, error)
        raise typer.Exit(1) from None
    except SpecError as error:  # a target cannot express it, e.g. a class of the author's that has PyTorch's name
        raise typer.Exit(print_diagnostics(error.diagnostics)) from None
    except importers.MissingPackageError as error:
        usage_error(str(error))
    except importers.ImportFailedError as error:
        print(f"error: {printable_lines(str(error))}", file=sys.stderr)
        raise typer.Exit(1) from None


def _print_unsupported(source: str, error: UnsupportedModelError) -> None:
    """Print the operators that are not supported, grouped, each with a place in the user's own source."""
    groups: dict[tuple[str, str], list[Any]] = {}
    for one in error.found:
        groups.setdefault((one.target, one.why), []).append(one)
    share = 1 - len(error.found) / max(error.total, 1)
    print(
        f"error: {printable(source)} has {error.total} operators, "
        f"of which {error.total - len(error.found)} are supported ({share:.1%}); these are not:",
        file=sys.stderr,
    )
    for (target, why), found in groups.items():
        first = found[0]
        head = f"{target}: {why}" if why else target
        places = f"{first.path or 'the model'}" + (f" and {len(found) - 1} more" if len(found) > 1 else "")
        print(f"  {printable(head)}", file=sys.stderr)
        print(printable(f"    in {places}" + (f", at {first.line}" if first.line else "")), file=sys.stderr)
    print("nothing was written; `archspec import --opaque` counts them without computing them", file=sys.stderr)
