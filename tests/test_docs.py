"""The documentation: its specs load, its commands print what it shows, its Python runs, its links lead somewhere."""

from __future__ import annotations

import doctest
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from helpers import ROOT, RULES, archspec_command

import archspec
from archspec import api
from archspec.language.ops import OPS
from archspec.language.ops.base import Op
from archspec.language.recipe import BARE
from archspec.language.spec import BUDGET_SUFFIX

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FILE = re.compile(r"# ([\w.]+\.(?:yaml|py))\n")  # the first line of a block that is a file
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.M | re.S)


def blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """Return the fenced blocks of a language in a page: what follows the language, and the text."""
    return [(info.strip(), text) for name, info, text in BLOCK.findall(page.read_text()) if name == language]


def commands(page: Path, info: str) -> list[tuple[str, str]]:
    """Return the commands of a page's console blocks, with the output that it shows."""
    texts = [text for found, text in blocks(page, "console") if found == info]
    parts = [part.partition("\n") for text in texts for part in re.split(r"^\$ ", text, flags=re.M)[1:]]
    return [(command, output) for command, _, output in parts]


CORE = [(page, *pair) for page in PAGES for pair in commands(page, "")]
FRAMEWORKS = [(page, *pair) for page in PAGES for pair in commands(page, "frameworks")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository with the specs and programs of all pages, specs/, and AlexNet with a typo.

    Of a file that a page shows twice the first is committed, and the second is in the working tree.
    """
    shutil.copytree(ROOT / "specs", tmp_path / "specs")
    text = (ROOT / "specs" / "alexnet.yaml").read_text()
    (tmp_path / "specs" / "typo.yaml").write_text(text.replace("padding: 2", "paddding: 2", 1))
    for page in PAGES:
        for _, text in [*blocks(page, "yaml"), *blocks(page, "python")]:
            if name := FILE.match(text):
                if (tmp_path / name[1]).exists():
                    commit(tmp_path, name[1])
                (tmp_path / name[1]).write_text(text.partition("\n")[2])
    return tmp_path


def commit(folder: Path, name: str) -> None:
    """Commit a file, in a repository that is made."""
    identity = ["-c", "user.name=archspec", "-c", "user.email=archspec"]
    for words in (["init", "--quiet"], ["add", name], [*identity, "commit", "--quiet", "--message", name]):
        subprocess.run(["git", *words], cwd=folder, check=True)


def run(folder: Path, command: str, output: str) -> None:
    """Run a command of a page, and compare what it prints with what the page shows; `...` matches anything."""
    program, *words = shlex.split(command)
    ran = archspec_command(*words, cwd=folder)
    shown = "\n".join(line.rstrip() for line in (ran.stdout + ran.stderr).splitlines()) + "\n"

    assert program == "archspec"
    assert doctest.OutputChecker().check_output(output, shown, doctest.ELLIPSIS), shown


@pytest.mark.parametrize(("page", "command", "output"), CORE, ids=lambda value: str(value)[:50])
def test_a_command_prints_what_the_page_shows(page: Path, command: str, output: str, folder: Path) -> None:
    """Standard output, then standard error, line by line."""
    run(folder, command, output)


@pytest.mark.slow
@pytest.mark.frameworks
@pytest.mark.xdist_group("workers")
@pytest.mark.parametrize(("page", "command", "output"), FRAMEWORKS, ids=lambda value: str(value)[:50])
def test_a_command_that_runs_frameworks_prints_what_the_page_shows(
    page: Path, command: str, output: str, folder: Path
) -> None:
    """The same, of commands that start PyTorch or Keras."""
    run(folder, command, output)


def test_every_spec_of_a_page_loads(folder: Path) -> None:
    """Each is complete, and gets no warning, unless its page shows it."""
    shown = "".join(output for _, _, output in CORE)
    paths = [path for path in sorted(folder.glob("*.yaml")) if not path.name.endswith(BUDGET_SUFFIX)]

    assert len(paths) >= 5
    for path in paths:
        assert [d for d in archspec.check(path).diagnostics if not d.allowed and d.message not in shown] == [], (
            path.name
        )


TAUGHT = [ROOT / "docs" / "api.md", *sorted((ROOT / "docs" / "tutorials").glob("*.md"))]
PYTHON = [text for page in TAUGHT for _, text in blocks(page, "python") if not FILE.match(text)]


@pytest.mark.parametrize("text", PYTHON, ids=lambda text: text[:40])
def test_the_python_of_a_page_runs(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the repository's folder; the test that the page shows passes."""
    monkeypatch.chdir(ROOT)
    names = {"archspec": archspec}
    exec(text, names)
    for name, value in list(names.items()):
        if name.startswith("test_"):
            value()


@pytest.mark.parametrize("name", ["check", "generate", "loads"])
def test_the_examples_of_the_api_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The docstrings' examples, as a user would type them."""
    monkeypatch.chdir(ROOT)
    run_examples(name, {"archspec": archspec, "folder": tmp_path})


@pytest.mark.slow
@pytest.mark.frameworks
@pytest.mark.xdist_group("workers")
@pytest.mark.parametrize("name", ["verify", "verify_model", "import_model"])
def test_the_examples_with_frameworks_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They start PyTorch, and one NumPy."""
    pytest.importorskip("torchvision")
    monkeypatch.chdir(ROOT)
    run_examples(name, {"archspec": archspec})


def run_examples(name: str, names: dict[str, object]) -> None:
    """Run the examples in the docstring of a function of the API."""
    (test,) = doctest.DocTestFinder(recurse=False).find(getattr(api, name), name, globs=names)
    result = doctest.DocTestRunner().run(test)

    assert result.attempted > 0
    assert result.failed == 0


def test_the_language_page_names_everything_in_the_language() -> None:
    """Every op, attribute, initializer, optimizer, schedule and transform."""
    page = (ROOT / "docs" / "language.md").read_text()
    schema = (ROOT / "specs" / "schema.json").read_text()
    words = {*OPS, *(field for op in OPS.values() for field in op.model_fields if field not in Op.model_fields), *RULES}
    words |= {"sgd", "caffe_sgd", "adam", "adamw", "constant", "step", "multi_step", "exponential", "cosine"}
    words |= {"reduce_on_plateau", "rescale", "subtract_mean", "normalize", *BARE}

    assert {word for word in words if not re.search(rf"[`{{]{word}\b", page)} == set()
    assert {word for word in words if f'"{word}"' not in schema} == set()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "specs" / "README.md"], ids=lambda path: path.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    """Links to files of the repository, and to headings in them."""
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if "://" not in target:
            path, _, heading = target.partition("#")
            file = (page.parent / path) if path else page
            assert file.exists(), target
            headings = [re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)", file.read_text(), re.M)] if heading else [""]  # fmt: skip
            assert heading in headings, target


def test_the_readme_is_short() -> None:
    """A screen and a half, and no line of more than 140 characters but in tables."""
    lines = (ROOT / "README.md").read_text().splitlines()

    assert len(lines) <= 130
    assert all(len(line) <= 140 for line in lines if not line.startswith("|"))


def test_the_source_distribution_is_complete() -> None:
    """Every file at the top that git tracks is in it, so that its tests and its Makefile run; the build is pinned."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a checkout")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = {*project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"], "pyproject.toml"}
    top = {line.partition("/")[0] for line in tracked.stdout.splitlines()}

    assert {name for name in top if name not in included} <= {".ci", ".gitignore"}
    assert all("==" in requirement for requirement in project["build-system"]["requires"])
