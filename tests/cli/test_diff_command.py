"""`archspec diff`: revisions, paths, what happened to a spec, the formats, and errors."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from helpers import archspec_command

SPEC = """archspec: 1
name: {name}
input: {{channels: 3, height: 9, width: 9}}
layers:
  - {{name: conv1, op: conv2d, out_channels: {channels}, kernel_size: 3}}
  - {{name: relu1, op: relu}}
"""
AUTHOR = ("-c", "user.name=a", "-c", "user.email=a@b")


class Repo:
    """A git repository in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git("init", "--quiet", "--initial-branch", "main")

    def git(self, *words: str) -> str:
        """Run git."""
        run = subprocess.run(["git", *AUTHOR, *words], cwd=self.folder, capture_output=True, text=True, check=True)
        return run.stdout

    def write(self, path: str, channels: int = 8, name: str = "net", text: str = SPEC) -> None:
        """Write a spec."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.format(name=name, channels=channels))

    def commit(self) -> None:
        """Commit everything."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "x")

    def diff(self, *words: str, cwd: str = ".") -> subprocess.CompletedProcess[str]:
        """Run `archspec diff`."""
        return archspec_command("diff", *words, cwd=self.folder / cwd)

    def statuses(self, *words: str, cwd: str = ".") -> dict[str, str]:
        """Return what happened to each spec, by its path."""
        return {spec["path"]: spec["status"] for spec in self.data(*words, cwd=cwd)["specs"]}

    def data(self, *words: str, cwd: str = ".") -> dict:
        """Return the output as data."""
        return json.loads(self.diff(*words, "--format", "json", cwd=cwd).stdout)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """A repository with specs, and a file that is none, in one commit."""
    repo = Repo(tmp_path)
    for name in ("same", "wider", "gone", "moved", "comment", "broken", "repaired"):
        repo.write(f"specs/{name}.yaml", name=name)
    repo.write("specs/repaired.yaml", channels=0)
    repo.write("ci.yaml", text="on: push\n")
    repo.commit()
    return repo


def test_diff_says_what_happened_to_each_spec(repo: Repo) -> None:
    """Of the working tree, with files that git does not know; files that are no specs are passed over."""
    repo.write("specs/wider.yaml", channels=16, name="wider")
    (repo.folder / "specs" / "gone.yaml").unlink()
    repo.write("specs/new.yaml", name="new")
    repo.git("mv", "specs/moved.yaml", "specs/there.yaml")
    repo.write("specs/comment.yaml", name="comment", text=f"# a comment\n{SPEC}")
    repo.write("specs/broken.yaml", channels=0)
    repo.write("specs/repaired.yaml", name="repaired")
    repo.write("ci.yaml", text="on: pull_request\n")
    before = repo.git("status", "--porcelain")

    run = repo.diff()

    assert repo.statuses() == {
        "specs/broken.yaml": "broken",
        "specs/comment.yaml": "unchanged",
        "specs/gone.yaml": "deleted",
        "specs/new.yaml": "added",
        "specs/repaired.yaml": "repaired",
        "specs/wider.yaml": "changed",
    }
    assert run.returncode == 1  # a spec has an error now
    assert "specs/broken.yaml:5:45: error[out-of-range]: conv1: out_channels must be" in run.stderr
    assert "errors before: HEAD:specs/repaired.yaml:5: out-of-range" in run.stdout
    assert run.stdout.startswith("6 specs changed from HEAD to the working tree\n")
    assert repo.git("status", "--porcelain") == before
    repo.commit()
    assert repo.statuses() == {}
    assert repo.diff().returncode == 0


def test_a_moved_spec_is_compared_with_what_it_was(repo: Repo) -> None:
    """Git finds it by its content, which may have changed a little."""
    repo.git("mv", "specs/moved.yaml", "specs/there.yaml")
    repo.write("specs/there.yaml", channels=9, name="moved")

    (spec,) = repo.data()["specs"]

    assert (spec["old_path"], spec["path"], spec["status"]) == ("specs/moved.yaml", "specs/there.yaml", "changed")
    assert [layer["before"]["name"] for layer in spec["layers"]] == ["conv1", "relu1"]


def test_costs_are_before_and_after(repo: Repo) -> None:
    """Parameters 8 x 28 and 16 x 28; a spec that is new has none before."""
    repo.write("specs/wider.yaml", channels=16, name="wider")
    repo.write("specs/new.yaml", name="new")

    new, wider = repo.data()["specs"]

    assert wider["costs"]["params"] == {"before": 224, "after": 448}
    assert wider["costs"]["macs"] == {"before": 216 * 49, "after": 432 * 49}
    assert wider["costs"]["peak_training"]["after"] > wider["costs"]["peak_training"]["before"]
    assert new["costs"]["params"] == {"before": None, "after": 224}
    table = repo.diff("HEAD", "specs/new.yaml").stdout
    assert "before" not in table
    assert "parameters" in table


def test_revisions_may_be_one_or_two_or_where_they_parted(repo: Repo) -> None:
    """OLD..NEW is both as they are; OLD...NEW leaves out what OLD has changed since."""
    repo.git("checkout", "--quiet", "-b", "topic")
    repo.write("specs/wider.yaml", channels=16, name="wider")
    repo.commit()
    repo.git("checkout", "--quiet", "main")
    repo.write("specs/same.yaml", channels=5, name="same")
    repo.commit()
    repo.write("specs/gone.yaml", channels=7, name="gone")  # not committed

    assert set(repo.statuses("main..topic")) == {"specs/same.yaml", "specs/wider.yaml"}
    assert set(repo.statuses("main...topic")) == {"specs/wider.yaml"}
    assert set(repo.statuses("topic")) == {"specs/gone.yaml", "specs/same.yaml", "specs/wider.yaml"}
    assert set(repo.statuses("HEAD~1..")) == {"specs/same.yaml"}
    assert set(repo.statuses()) == {"specs/gone.yaml"}
    assert repo.data("main...topic")["old"]["commit"] == repo.git("rev-parse", "main~1").strip()


def test_paths_are_specs_or_folders(repo: Repo) -> None:
    """A folder stands for the specs directly in it; both are relative to the current folder; deleted ones are found."""
    repo.write("specs/deep/a.yaml", name="a")
    repo.write("specs/wider.yaml", channels=16, name="wider")
    (repo.folder / "specs" / "gone.yaml").unlink()

    assert set(repo.statuses("specs")) == {"specs/gone.yaml", "specs/wider.yaml"}
    assert set(repo.statuses("HEAD", "specs/deep", "specs/gone.yaml")) == {"specs/deep/a.yaml", "specs/gone.yaml"}
    assert set(repo.statuses("deep", "wider.yaml", cwd="specs")) == {"deep/a.yaml", "wider.yaml"}
    assert set(repo.statuses(cwd="specs/deep")) == {"a.yaml", "../gone.yaml", "../wider.yaml"}
    assert repo.statuses("specs/same.yaml") == {}


def test_the_exit_status_is_that_of_git_diff_if_asked(repo: Repo) -> None:
    """0, or with --exit-code 1 where a network changed; a comment is no change."""
    repo.write("specs/comment.yaml", name="comment", text=f"# a comment\n{SPEC}")
    run = repo.diff("--exit-code")
    assert run.returncode == 0
    assert "the network is the same: comments, claims or the budget have changed" in run.stdout
    repo.write("specs/wider.yaml", channels=16, name="wider")
    assert repo.diff().returncode == 0
    assert repo.diff("--exit-code").returncode == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nope"], "archspec: there is no revision 'nope' in "),
        (["main..nope"], "archspec: there is no revision 'nope' in "),
        (["--", "--output=x"], "archspec: there is no revision '--output=x' in "),
        (["HEAD", "specs/nope.yaml"], "archspec: no such file in HEAD or the working tree: specs/nope.yaml"),
        (["main..HEAD", "nope"], "archspec: no such file in main or HEAD: nope"),
        (["HEAD", "/etc"], "archspec: /etc is outside the repository "),
    ],
)
def test_what_does_not_exist_is_a_usage_error(repo: Repo, words: list[str], message: str) -> None:
    """One line, and exit status 2."""
    run = repo.diff(*words)

    assert run.returncode == 2
    assert run.stderr.startswith(message)
    assert run.stderr.count("\n") == 1
    assert run.stdout == ""


def test_a_word_that_is_a_revision_and_a_path_is_refused(repo: Repo) -> None:
    """As by git; the message has a way to write each."""
    repo.git("branch", "specs")
    repo.write("specs/wider.yaml", channels=16, name="wider")

    run = repo.diff("specs")

    assert run.returncode == 2
    assert run.stderr == "archspec: specs is a revision and a path: write refs/heads/specs or ./specs\n"
    assert set(repo.statuses("./specs")) == set(repo.statuses("refs/heads/specs")) == {"specs/wider.yaml"}


def test_outside_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git's message; and where there is no commit yet."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    outside = archspec_command("diff", cwd=tmp_path)
    Repo(tmp_path)
    empty = archspec_command("diff", cwd=tmp_path)

    assert (outside.returncode, empty.returncode) == (2, 2)
    assert outside.stderr.startswith("archspec: not a git repository")
    assert empty.stderr.startswith("archspec: there is no revision 'HEAD' in ")


def test_links_are_not_followed(repo: Repo, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A link to a file outside, of which an error would show a line."""
    secret = tmp_path_factory.mktemp("outside") / "secret.yaml"
    secret.write_text("archspec: secret\n")
    (repo.folder / "specs" / "link.yaml").symlink_to(secret)

    assert repo.statuses() == {}
    repo.commit()
    assert repo.statuses("HEAD~1..HEAD", "specs/link.yaml") == {}


def test_markdown_is_for_a_job_summary(repo: Repo) -> None:
    """A heading a spec, tables as GitHub has them; a path is text, whatever is in it."""
    repo.write("specs/wider.yaml", channels=16, name="wider")
    repo.write("specs/[a](b)<c>.yaml", name="new")

    text = repo.diff("--format", "markdown").stdout

    assert text.startswith("## Networks\n\n2 specs changed from HEAD to the working tree\n")
    assert "### specs/wider.yaml: changed\n" in text
    assert "| \\! | conv1 | conv2d 8, 3 x 3, 8 x 7 x 7 | conv2d 16, 3 x 3, 16 x 7 x 7 | +224 |" in text.replace(
        "\\+", "+"
    )
    assert "\\[a\\]" in text
    assert "<c>" not in text.replace("\\<c\\>", "")
