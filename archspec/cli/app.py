"""The command line: the commands joined, and the process around them."""

from __future__ import annotations

import io
import os
import signal
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import archspec
from archspec.language.source import printable

# The commands by the module that defines them, which is imported when its command runs or its help is shown.
COMMANDS = {
    "check": "check",
    "report": "report",
    "draw": "draw",
    "compare": "compare",
    "diff": "diff",
    "serve": "serve",
    "generate": "generate",
    "import": "import_",
    "weights": "weights",
    "train": "train",
    "verify": "verify",
    "lockstep": "lockstep",
    "explain": "explain",
    "schema": "explain",
}
ALIASES = {"race": "lockstep"}


class Commands(TyperGroup):
    """A group whose commands are imported as they are needed: start-up is most of the time that `check` takes."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return None
        if name not in self.commands:
            module = import_module(f"archspec.cli.{COMMANDS[name]}")
            commands = typer.main.get_command(module.app)
            found = getattr(commands, "commands", {name: commands})
            self.commands.update({key: command for key, command in found.items() if key in COMMANDS})
        return self.commands[name]

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # Click would exit with status 1, which is for errors of specs
            sys.exit(128 + signal.SIGPIPE)


app = typer.Typer(
    name="archspec",
    cls=Commands,
    help="Describe a network once; count it, generate PyTorch and Keras code, and verify that both are the same.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"archspec {archspec.__version__}")
        raise typer.Exit


def run() -> int | str | None:
    """Run the command; return the exit status."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed; a file that is opened later would get its number
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  until the end of the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that temporary files are removed
    status: int | str | None = 0
    try:
        try:
            app(prog_name="archspec")  # also of `python -m archspec`, for which shells complete nothing
        except SystemExit as end:
            status = end.code
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        print(f"archspec: {printable(str(error.filename or 'cannot write'))}: {error.strerror}", file=sys.stderr)
        status = 2
    return status
