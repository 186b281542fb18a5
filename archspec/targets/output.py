"""Generated files on disk: which are new, which would change, and which were edited by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from archspec.files import write
from archspec.targets.header import EDITABLE, is_edited


class EditedError(Exception):
    """Generated files that were edited by hand, which only `force` overwrites."""

    def __init__(self, paths: list[Path]) -> None:
        super().__init__(f"edited by hand: {', '.join(map(str, paths))}")
        self.paths = paths


@dataclass
class Plan:
    """Generated files by their state on disk."""

    new: list[Path] = field(default_factory=list)
    changed: list[Path] = field(default_factory=list)  # generated earlier, and out of date
    edited: list[Path] = field(default_factory=list)  # changed by hand, or not generated at all
    kept: list[Path] = field(default_factory=list)  # changed by hand, as they are meant to be
    same: list[Path] = field(default_factory=list)

    @property
    def is_current(self) -> bool:
        """Whether nothing would be written."""
        return not (self.new or self.changed or self.edited)


def plan(files: Mapping[Path, str]) -> Plan:
    """Return what writing `files` would do."""
    found = Plan()
    for path, text in files.items():
        if not path.is_file():
            found.new.append(path)
            continue
        content = path.read_bytes().decode("utf-8", errors="replace")
        if content.replace("\r\n", "\n") == text:
            found.same.append(path)
        elif not is_edited(content):
            found.changed.append(path)
        else:
            (found.kept if path.name in EDITABLE else found.edited).append(path)
    return found


def write_files(files: Mapping[Path, str], out: Path, *, force: bool = False) -> Plan:
    """Write generated files below `out`, and return what was done.

    Raises EditedError, before anything is written, if a file was edited by hand, unless `force`. An edited `train.py`
    is kept unless `force`. Raises OSError as `archspec.files.write` does.
    """
    found = plan(files)
    if found.edited and not force:
        raise EditedError(found.edited)
    paths = [*found.new, *found.changed, *found.edited, *(found.kept if force else ())]
    write(((path, files[path]) for path in files if path in set(paths)), out)
    return found
