"""Files that are written atomically, files of tensors, and temporary folders.

What a killed process left is removed at the next run.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


def write(files: Iterable[tuple[Path, str | bytes]], out: Path) -> None:
    """Write files below `out`, each atomically; raise OSError if one cannot be written, or would be outside `out`.

    None is replaced before all are on the disk.
    """
    root = _resolve(out)
    staged: list[tuple[Path, Path]] = []
    try:
        for path, content in files:
            data = content.encode() if isinstance(content, str) else content
            path.parent.mkdir(parents=True, exist_ok=True)
            if not _resolve(path.parent).is_relative_to(root):
                raise OSError(f"{path} is outside {out}")
            _sweep(path.parent, rf"\.{re.escape(path.name)}\.(\d+)\.\w+")
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.{os.getpid()}.")
            staged.append((Path(temporary), path))
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            staged[-1][0].chmod(0o666 & ~_umask())
        for made, path in staged:
            made.replace(path)
    except BaseException:
        for made, _ in staged:
            made.unlink(missing_ok=True)
        raise


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file that a user names: atomically, or into what exists and is no regular file, such as a device.

    A link is followed. Raises OSError if the file cannot be written.
    """
    try:
        is_special = not stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        is_special = False
    if is_special:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return
    target = _resolve(path)
    write([(target, content)], target.parent)


def tensors_as_bytes(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the content of a safetensors file."""
    from safetensors.numpy import save

    return save(_contiguous(tensors))


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write a safetensors file, not atomically; raise OSError if it cannot be written."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(_contiguous(tensors), path)
    except SafetensorError as error:
        raise OSError(f"cannot write {path}: {error}") from None


def _contiguous(tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return arrays each in its own order of axes: safetensors writes the memory of a transposed view as it lies."""
    import numpy as np

    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a temporary folder; it is removed at the end."""
    _sweep(Path(tempfile.gettempdir()), r"archspec-(\d+)-\w+")
    with tempfile.TemporaryDirectory(prefix=f"archspec-{os.getpid()}-") as folder:
        yield Path(folder)


def _sweep(folder: Path, pattern: str) -> None:
    """Remove files and folders named by `pattern` whose process, its first group, is gone."""
    for name in os.listdir(folder):
        match = re.fullmatch(pattern, name)
        if match is None or _is_running(int(match[1])):
            continue
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _resolve(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve raises RuntimeError for links in a circle


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
