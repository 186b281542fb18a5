"""Files of a run: written atomically, with checksums, in a folder of one process."""

import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import DataError

# What readers of damaged archives, pickles and arrays raise.
DAMAGED = (
    *(AttributeError, EOFError, LookupError, MemoryError, OSError, OverflowError),
    *(RuntimeError, TypeError, ValueError, pickle.PickleError, struct.error),
    *(zipfile.BadZipFile, zlib.error),
)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path, which replaces `path` when the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        if os.name == "posix":  # so that the new name outlives a crash of the machine
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)


def lock_folder(folder: Path) -> int:
    """Reserve a folder, and remove unfinished files in it.

    It is reserved until the file descriptor that is returned is closed, or this process
    ends. Raises DataError if another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        import fcntl

        # not flock, whose lock the processes of a data loader would inherit
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        message = f"another run is writing to {folder}: choose another --output"
        raise DataError(message) from None
    except (ImportError, OSError):  # Windows, or a file system without locks
        return file
    for unfinished in folder.glob(".*.partial"):
        unfinished.unlink(missing_ok=True)
    return file


def check_archive(path: Path) -> None:
    """Raise DataError unless a .pt or .npz file is whole: both are zip archives."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except DAMAGED as error:
        raise DataError(f"{path} is not a checkpoint, or damaged: {error}") from None
    if damaged:
        raise DataError(f"{path} is damaged: the checksum of {damaged} is wrong")


def first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def class_names(folder: Path | None, count: int) -> list[str]:
    """Return the names of a data set's classes: of its folders, or else numbers."""
    if folder and (folder / "train").is_dir():
        found = sorted(path.name for path in (folder / "train").iterdir())
        if len(found) == count:
            return found
    return [str(i) for i in range(count)]
