"""What the commands print, and how they end. No other package prints."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from archspec.language.source import printable_lines

if TYPE_CHECKING:
    from rich.progress import TaskID

    from archspec.language.source import Diagnostic


def usage_error(message: str) -> NoReturn:
    """Print a message and exit with status 2."""
    print(f"archspec: {printable_lines(message)}", file=sys.stderr)
    raise typer.Exit(2)


# --- diagnostics -----------------------------------------------------------------------------------------------------


def print_diagnostics(
    diagnostics: list[Diagnostic], style: str = "text", *, specs: int = 0, error_on_warning: bool = False
) -> int:
    """Print diagnostics, text to standard error and data to standard output; return the exit status.

    With the number of `specs`, a summary line follows.
    """
    shown = [d for d in diagnostics if not d.allowed]
    errors = sum(d.severity == "error" for d in shown)
    if style != "text":
        from archspec.language.diagnostics import as_github, as_json, as_sarif

        render = {"json": as_json, "github": as_github, "sarif": as_sarif}[style]
        if text := render(diagnostics):
            print(text)
    else:
        for diagnostic in shown:
            print(_colored(str(diagnostic)), file=sys.stderr)
        if shown:
            codes = list(dict.fromkeys(d.code for d in shown))
            more = f" and {len(codes) - 5} more" if len(codes) > 5 else ""
            hint = f"{', '.join(codes[:5])}{more}; run `archspec explain {codes[0]}` for its meaning"
            print(f"{_counts(errors, len(shown) - errors)}: {hint}", file=sys.stderr)
        if specs > 1:
            print(f"{specs} specs: {_counts(errors, len(shown) - errors)}", file=sys.stderr)
    return int(errors > 0 or (error_on_warning and bool(shown)))


def _counts(errors: int, warnings: int) -> str:
    return f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"


def use_color(stream: object) -> bool:
    """Return whether to color the output to a stream: it is a terminal, and NO_COLOR is not set."""
    return bool(getattr(stream, "isatty", bool)()) and not os.environ.get("NO_COLOR")


def _colored(text: str) -> str:
    """Return a diagnostic with its severity and caret colored, on a terminal."""
    if not use_color(sys.stderr):
        return text
    head, newline, rest = text.partition("\n")
    head = re.sub(r": (error|warning)\[", lambda m: f": \x1b[1;{31 if m[1] == 'error' else 33}m{m[1]}\x1b[0m[", head)
    return head + newline + re.sub(r"(\^+)$", "\x1b[1;32m\\1\x1b[0m", rest)


# --- output ----------------------------------------------------------------------------------------------------------


def terminal_width() -> int | None:
    """Return the width of the terminal that standard output is, or None."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def struck(text: str) -> str:
    """Return a text in which what is between ~~ and ~~ is struck through, on a terminal."""
    return re.sub("~~(.*?)~~", "\x1b[9m\\1\x1b[29m", text) if use_color(sys.stdout) else text


def print_json(content: object) -> None:
    """Print data as JSON."""
    from archspec.language.diagnostics import json_text

    print(json_text(content))


def is_stdout(output: Path | None) -> bool:
    """Return whether an --output is standard output."""
    return output is None or str(output) in ("-", "/dev/stdout")


def write_output(content: str | bytes, output: Path | None) -> None:
    """Print a text, or write it to a file atomically."""
    if output is None or is_stdout(output):
        assert isinstance(content, str)
        print(content, end="")
        return
    from archspec.files import write_file

    if isinstance(content, str):
        content = content.encode(errors="backslashreplace")  # the bytes of a path that is not UTF-8
    try:
        write_file(output, content)
    except OSError as error:
        usage_error(f"cannot write {output}: {error.strerror or error}")


def print_markdown(text: str) -> None:
    """Print Markdown, rendered on a terminal."""
    if not sys.stdout.isatty():
        print(text, end="")
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(text))


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, str], None]]:
    """Yield a function that shows what each target does, on standard error."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda target, what: console.print(f"{target}: {what}", highlight=False)
        return
    columns = SpinnerColumn(), TextColumn("{task.fields[target]}: {task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def show(target: str, what: str) -> None:
            if target not in tasks:
                tasks[target] = bars.add_task(what, target=target, total=None)
            bars.update(tasks[target], description=what)
            if what in ("done", "failed"):
                bars.stop_task(tasks[target])

        yield show
