"""Files in two revisions of a git repository: read through git, nothing is checked out."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from archspec.language.source import MAX_BYTES

REGULAR = ("100644", "100755")  # modes of files; links and submodules have others


class RevisionError(Exception):
    """What git cannot do, e.g. for an unknown revision or outside a repository."""


@dataclass(frozen=True)
class Versions:
    """A file in both revisions; of one that is new or deleted, one is None."""

    path: str  # relative to the current folder
    old_path: str
    old: bytes | None
    new: bytes | None


@dataclass(frozen=True)
class Range:
    """Two revisions as they are written, with their commits; the new one is the working tree if it is empty."""

    old: str
    old_commit: str
    new: str = ""
    new_commit: str = ""


class Repository:
    """The repository around the current folder."""

    def __init__(self) -> None:
        self.root = Path(os.fsdecode(self._git("rev-parse", "--show-toplevel", cwd=Path())).rstrip("\n"))

    def is_revision(self, word: str) -> bool:
        """Return whether a word names a commit, or a range of two."""
        try:
            self.range(word)
        except RevisionError:
            return False
        return True

    def range(self, word: str) -> Range:
        """Return the revisions in `REV`, `OLD..NEW`, or `A...B`, which is from where A and B parted to B.

        Raises RevisionError for another word.
        """
        old, dots, new = word.partition("..")
        if not dots:
            return Range(word, self._commit(word))
        parted = new.startswith(".")
        old, new = old or "HEAD", new.removeprefix(".") or "HEAD"
        commit, new_commit = self._commit(old), self._commit(new)
        if parted:
            try:
                commit = self._git("merge-base", commit, new_commit).decode().strip()
            except RevisionError:
                raise RevisionError(f"{old} and {new} have no common commit here") from None
        return Range(old, commit, new, new_commit)

    def changed(self, span: Range, paths: list[Path]) -> list[Versions]:
        """Return the YAML files at `paths`, by default in the repository, whose bytes differ between two revisions.

        A path is a file, or a folder for the files directly in it. A file that was renamed is found by its content.
        """
        specs = [f":(top,literal){self._inside(path)}" for path in paths] or [":(top)*.yaml", ":(top)*.yml"]
        folders = {self._inside(path) for path in paths}
        options = ("--raw", "-z", "--no-abbrev", "--find-renames", "--no-ext-diff", "--ignore-submodules")
        commits = [span.old_commit, *([span.new_commit] if span.new else [])]
        fields = os.fsdecode(self._git("diff", *options, *commits, "--", *specs)).split("\0")
        found = list(_raw(iter(fields)))
        if not span.new:
            words = self._git("ls-files", "-z", "--others", "--exclude-standard", "--full-name", "--", *specs)
            found += [("", "", "", path) for path in os.fsdecode(words).split("\0") if path]
        found = [
            one
            for one in found
            if one[3].endswith((".yaml", ".yml"))
            and (not paths or one[3] in folders or os.path.dirname(one[3]) in folders)
        ]
        # of a file in the working tree git may show the name of an object that it has not written
        blobs = self._blobs([sha for old, new, *_ in found for sha in (old, span.new and new) if sha])
        versions = []
        for old, new, old_path, path in found:
            now = blobs.get(new) if span.new else self._read(path)
            before = blobs.get(old)
            if before != now:
                versions.append(Versions(self._shown(path), self._shown(old_path or path), before, now))
        return sorted(versions, key=lambda one: one.path)

    def exists(self, span: Range, path: Path) -> bool:
        """Return whether there is a file or folder in one of two revisions."""
        if not span.new and path.exists():
            return True
        name = self._inside(path)
        return any(
            self._git("ls-tree", "-z", "--full-tree", commit, "--", name)
            for commit in (span.old_commit, span.new_commit)
            if commit
        )

    def _inside(self, path: Path) -> str:
        """Return a path relative to the repository, as git has it."""
        absolute = Path(os.path.normpath(Path(os.path.realpath(path.parent)) / path.name))
        root = os.path.realpath(self.root)
        if not absolute.is_relative_to(root):
            raise RevisionError(f"{path} is outside the repository {self.root}")
        found = absolute.relative_to(root).as_posix()
        return "" if found == "." else found

    def _shown(self, name: str) -> str:
        return os.path.relpath(Path(os.path.realpath(self.root)) / name, os.path.realpath(os.curdir))

    def _read(self, name: str) -> bytes | None:
        path = self.root / name
        if path.is_symlink() or not path.is_file():
            return None
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)

    def _commit(self, revision: str) -> str:
        try:
            words = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
            return self._git(*words).decode().strip()
        except RevisionError:
            raise RevisionError(f"there is no revision {revision!r} in {self.root}") from None

    def _blobs(self, names: list[str]) -> dict[str, bytes]:
        """Return the contents of objects."""
        output = self._git("cat-file", "--batch", input="".join(f"{name}\n" for name in names).encode())
        blobs, at = {}, 0
        for name in names:
            end = output.index(b"\n", at)
            _, kind, *size = output[at:end].split()
            if kind != b"blob":
                raise RevisionError(f"the object {name} is not in this clone")
            at = end + 1 + int(size[0]) + 1
            blobs[name] = output[end + 1 : at - 1][: MAX_BYTES + 1]
        return blobs

    def _git(self, *words: str, cwd: Path | None = None, input: bytes = b"") -> bytes:
        try:
            ran = subprocess.run(["git", *words], cwd=cwd or self.root, input=input, capture_output=True)  # noqa: S607  the user's git
        except FileNotFoundError:
            raise RevisionError("git is not installed") from None
        if ran.returncode:
            message = ran.stderr.decode(errors="replace").strip().partition("\n")[0].removeprefix("fatal: ")
            raise RevisionError(message or f"git {words[0]} failed")
        return ran.stdout


def _raw(fields: Iterator[str]) -> Iterator[tuple[str, str, str, str]]:
    """Yield (old object, new object, old path, path) of each file in the output of `git diff --raw -z`."""
    for head in fields:
        if not head:
            return
        old_mode, new_mode, old, new, status = head.removeprefix(":").split()
        old_path = next(fields)
        path = next(fields) if status[0] in "RC" else old_path
        if status[0] == "U":  # not merged: the working tree has the file with its conflicts
            continue
        if {old_mode, new_mode} <= {*REGULAR, "000000"}:
            yield old.strip("0") and old, new.strip("0") and new, old_path, path
