"""Errors of data, files and other processes, reported in one line."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class DataError(Exception):
    """Data that are missing or cannot be read."""


@contextmanager
def exit_on_error(output: Path, rank: int, world_size: int) -> Iterator[None]:
    """Exit with a message, not a traceback, where the program is not at fault."""
    try:
        yield
    except DataError as error:
        sys.exit(str(error))
    except Exception as error:
        inside = re.search("DataError: (.*)", str(error))  # an error of TensorFlow's
        if inside:
            sys.exit(inside[1])
        if isinstance(error, OSError):
            sys.exit(f"{error.filename or output}: {error.strerror or error}")
        gone = "(?i)unavailable|connect|peer|aborted|deadline|heartbeat"
        if world_size == 1 or not re.search(gone, str(error)):
            raise
        lines = [line for line in str(error).splitlines() if line.strip()]
        message = f"process {rank}: another process is gone: {(lines or [''])[0]}"
        print(message, file=sys.stderr)
        os._exit(1)  # a clean exit would wait for the other process
