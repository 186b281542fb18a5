"""The specs that a live page reads and writes: those directly in one folder, or one of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from archspec import files
from archspec.language.source import MAX_BYTES, read_bytes, require_inside
from archspec.language.spec import CLAIMS_SUFFIX


class ConflictError(Exception):
    """Raised where another program has changed the file since it was read."""


@dataclass(frozen=True)
class Folder:
    """The specs in a folder; only the file `only`, if that is given."""

    path: Path
    only: str | None = None
    _lock: Lock = field(default_factory=Lock, repr=False)

    def names(self) -> list[str]:
        """Return the names of the specs, sorted."""
        found = (path.name for path in self.path.iterdir() if path.suffix in (".yaml", ".yml") and path.is_file())
        return sorted(n for n in found if not n.endswith(CLAIMS_SUFFIX) and self.only in (None, n))

    def read(self, name: str) -> bytes:
        """Return the content of a spec; raise FileNotFoundError for another file, OSError for an unreadable one."""
        path = self._file(name)
        content = read_bytes(path)
        if len(content) > MAX_BYTES:
            raise OSError(f"{name} is larger than {MAX_BYTES} bytes")
        return content

    def write(self, name: str, content: bytes, version: str) -> None:
        """Replace a spec atomically; raise ConflictError if its version is another, OSError if it cannot be written."""
        with self._lock:
            if version_of(self.read(name)) != version:
                raise ConflictError(name)
            files.write_file(self._file(name), content)

    def _file(self, name: str) -> Path:
        """Return the path of a spec, which is one of `names` and no link out of the folder."""
        if name not in self.names():
            raise FileNotFoundError(name)
        path = self.path / name
        require_inside(path)
        return path


def version_of(content: bytes) -> str:
    """Return the version of a file: the SHA-256 of its content."""
    return hashlib.sha256(content).hexdigest()
