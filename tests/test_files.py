"""Files are written atomically and below a folder only; what a killed process left is removed."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from helpers import ROOT, archspec_command

import archspec
from archspec.files import temporary_folder, write, write_file, write_tensors
from archspec.verification import inputs


@pytest.fixture(scope="module")
def dead() -> int:
    """The id of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_a_file_is_written_completely_or_not_at_all(tmp_path: Path) -> None:
    """A file that cannot be written leaves the existing one, and no temporary file."""
    path = tmp_path / "out" / "net" / "model.py"
    write([(path, "first\n")], tmp_path / "out")
    with pytest.raises(UnicodeEncodeError):
        write([(path, "half \ud800")], tmp_path / "out")

    assert path.read_text() == "first\n"
    assert list(path.parent.iterdir()) == [path]


def test_no_file_is_replaced_before_all_are_written(tmp_path: Path) -> None:
    """A disk that is full in the middle leaves all existing files, and no temporary ones."""
    before = {tmp_path / name: "before" for name in ("a.py", "b.py")}
    for path, text in before.items():
        path.write_text(text)
    with pytest.raises(UnicodeEncodeError):
        write([(tmp_path / "a.py", "after"), (tmp_path / "b.py", "\ud800")], tmp_path)

    assert {path: path.read_text() for path in tmp_path.iterdir()} == before


def test_weights_on_a_full_disk_are_an_oserror(tmp_path: Path) -> None:
    """safetensors has its own exception for a file that cannot be written."""
    np = pytest.importorskip("numpy")
    pytest.importorskip("safetensors")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # Python ignores SIGXFSZ
    try:
        with pytest.raises(OSError, match="cannot write"):
            write_tensors(tmp_path / "w.safetensors", {"a": np.zeros(1000, np.float32)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_memory_of_a_container_is_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest of the machine's memory, the control group's and `ulimit -v` is what `verify` may use."""
    group = tmp_path / "memory.max"
    monkeypatch.setattr(inputs, "CGROUP_LIMITS", (group,))
    machine = inputs.memory_limit()
    for text, limit in (("max\n", machine), ("9223372036854771712\n", machine), ("1048576\n", 2**20)):
        group.write_text(text)
        assert inputs.memory_limit() == limit
    with pytest.raises(MemoryError, match="at least 0 GiB, and there are 0"):
        inputs.check_memory(archspec.load(ROOT / "specs" / "lenet.yaml"), 1000, 2)


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), SystemExit(143)], ids=repr)
def test_an_exception_removes_the_temporary_file(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception between writing and renaming, a signal's too, leaves no temporary file."""

    def fail(*_: object) -> None:
        assert len(list(tmp_path.iterdir())) == 1  # the temporary file
        raise error

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(type(error)):
        write([(tmp_path / "model.py", "text")], tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_written_into() -> None:
    """What exists and is no regular file is not replaced: a pipe here; as root it could be a device."""
    with tempfile.TemporaryDirectory() as folder:
        pipe = Path(folder) / "pipe.md"
        os.mkfifo(pipe)
        received: list[str] = []
        reader = threading.Thread(target=lambda: received.append(pipe.read_text()), daemon=True)
        reader.start()
        run = archspec_command("report", "specs/lenet.yaml", "-o", pipe)
        assert pipe.is_fifo()
        reader.join(10)

    assert run.returncode == 0
    assert received[0].startswith("# lenet\n")


@pytest.mark.parametrize("existing", [True, False])
def test_a_link_is_followed(existing: bool, tmp_path: Path) -> None:
    """A link stays a link; the file that it names is written."""
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder" / "a.md"
    if existing:
        target.write_text("before")
    (tmp_path / "link.md").symlink_to("folder/a.md")
    write_file(tmp_path / "link.md", "after")

    assert (tmp_path / "link.md").is_symlink()
    assert target.read_text() == "after"
    assert {path.name for path in tmp_path.rglob("*")} == {"folder", "link.md", "a.md"}


@pytest.mark.parametrize("name", ["loop.html", "loop/a.html", "folder.html"])
def test_a_file_that_cannot_be_is_a_usage_error(name: str, tmp_path: Path) -> None:
    """Links in a circle and folders have exit status 2, and stay as they are."""
    for link in ("loop", "loop.html"):
        (tmp_path / link).symlink_to(link)
    (tmp_path / "folder.html").mkdir()
    before = set(tmp_path.iterdir())
    run = archspec_command("report", "specs/lenet.yaml", "-o", tmp_path / name)

    assert run.returncode == 2
    assert run.stderr.startswith(f"archspec: cannot write {tmp_path / name}: ")
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
@pytest.mark.parametrize("command", [["report", "--format", "html"], ["draw"]], ids=" ".join)
def test_standard_output_is_a_file(command: list[str], name: str) -> None:
    """`-o -` prints, as without -o; /dev/stdout is the same."""
    run = archspec_command(*command, "specs/lenet.yaml", "-o", name)

    assert run.returncode == 0, run.stderr
    assert "<svg" in run.stdout


def test_files_are_written_below_the_folder_only(tmp_path: Path) -> None:
    """A link to another folder is an error, and nothing is written there."""
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "link").symlink_to(elsewhere)
    with pytest.raises(OSError, match="is outside"):
        write([(out / "link" / "model.py", "x")], out)

    assert list(elsewhere.iterdir()) == []


def test_files_have_the_permissions_of_the_umask(tmp_path: Path) -> None:
    """A file has mode 666 without the bits of the umask, as a file of open() has."""
    before = os.umask(0o027)
    try:
        write([(tmp_path / "a", b"bytes")], tmp_path)
    finally:
        os.umask(before)

    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "a").read_bytes() == b"bytes"


def test_temporary_files_of_dead_processes_are_removed(tmp_path: Path, dead: int) -> None:
    """Writing a file removes its temporary files of processes that have ended, and no other file."""
    names = {
        f".a.md.{dead}.abc": False,
        f".a.md.{os.getpid()}.abc": True,  # of a running process
        f".b.md.{dead}.abc": True,  # of another file
        f".a.md.{dead}": True,
        ".a.md.99999999999999999999.abc": False,  # no process has this id
        f"a.md.{dead}.abc": True,
    }
    for name in names:
        (tmp_path / name).write_text("")
    write([(tmp_path / "a.md", "text")], tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == {"a.md", *(name for name, stays in names.items() if stays)}


def test_temporary_folders_of_dead_processes_are_removed(
    tmp_path: Path, dead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new temporary folder removes those of processes that have ended, with their files, and is removed itself."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in (f"archspec-{dead}-abc", f"archspec-{os.getpid()}-abc", f"other-{dead}-abc"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("")
    with temporary_folder() as folder:
        assert folder.parent == tmp_path
        assert folder.name.startswith(f"archspec-{os.getpid()}-")

    assert {path.name for path in tmp_path.iterdir()} == {f"archspec-{os.getpid()}-abc", f"other-{dead}-abc"}
