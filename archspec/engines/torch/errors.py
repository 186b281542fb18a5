"""Errors of data, files and other processes, reported in one line."""

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
        # an error in a data loader's process comes with that process's traceback
        sys.exit(str(error).rpartition("DataError: ")[2].strip())
    except OSError as error:
        sys.exit(f"{error.filename or output}: {error.strerror or error}")
    except RuntimeError as error:
        if world_size == 1 or not re.search("(?i)gloo|nccl|peer", str(error)):
            raise
        lines = f"process {rank}: another process is gone: {error}".splitlines()
        sys.exit(lines[0])
