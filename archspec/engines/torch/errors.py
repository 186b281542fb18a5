"""Errors of data, files and other processes, reported in one line."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn


class DataError(Exception):
    """Data, files or options that cannot be used; the message is for the user."""


@contextmanager
def exit_on_error(output: Path, rank: int, world_size: int) -> Iterator[None]:
    """Exit with a message, not a traceback, where the program is not at fault."""
    try:
        yield
    except KeyboardInterrupt:
        exit_with("interrupted", 130)
    except Exception as error:
        # an error in a data loader's process comes with that process's traceback
        inside = re.search(r"DataError: (.*)(?![\s\S]*DataError: )", str(error))
        if isinstance(error, DataError) and not inside:
            sys.exit(str(error))
        if inside:
            sys.exit(inside[1].strip())
        if isinstance(error, OSError) and not isinstance(error, ConnectionError):
            sys.exit(f"{error.filename or output}: {error.strerror or error}")
        gone = "(?i)gloo|nccl|peer|connect|unavailable|aborted|deadline|heartbeat"
        if world_size == 1 or not re.search(gone, str(error)):
            raise
        lines = [line for line in str(error).splitlines() if line.strip()]
        message = f"process {rank}: another process is gone: {(lines or [''])[0]}"
        print(message, file=sys.stderr, flush=True)
        os._exit(1)  # a clean exit would wait for the other process


def exit_with(message: str, status: int) -> NoReturn:
    """Print a message to standard error and exit with a status."""
    if message:
        print(message, file=sys.stderr, flush=True)
    sys.exit(status)
