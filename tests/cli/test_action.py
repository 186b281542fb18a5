"""The GitHub action: its steps, run by bash as a runner does, in a shallow clone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import ROOT
from test_diff_command import SPEC, Repo

ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"] if "name" in step}
BUDGET = SPEC + "budget: {{params: <= 300}}\n"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of the last commit of a repository, in which a network grew beyond its budget; `base` has the first."""
    (tmp_path / "origin").mkdir()
    origin = Repo(tmp_path / "origin")
    origin.write("specs/a.yaml", text=BUDGET)
    origin.commit()
    (tmp_path / "base").write_text(origin.git("rev-parse", "HEAD").strip())
    origin.write("specs/a.yaml", channels=16, text=BUDGET)
    origin.commit()
    words = ["git", "clone", "--quiet", "--depth=1", f"file://{origin.folder}", str(tmp_path / "clone")]
    subprocess.run(words, check=True)
    program = tmp_path / "archspec" / "bin" / "archspec"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m archspec "$@"\n')
    program.chmod(0o755)
    return tmp_path / "clone"


def run(clone: Path, name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a step of the action, with the words of `environment` for those that a runner would fill in."""
    step, folder = STEPS[name], clone.parent
    assert set(environment) == set(step.get("env", {}))
    files = {"GITHUB_STEP_SUMMARY": "summary", "GITHUB_OUTPUT": "output"}
    runner = {"RUNNER_TEMP": str(folder), **{name: str(folder / file) for name, file in files.items()}}
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step["run"]]
    environment = {**os.environ, **paths, **runner, **environment}
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("base", ["a commit", "main~1"])
def test_the_summary_has_what_changed(clone: Path, base: str) -> None:
    """The commit of the base is fetched; a revision that the clone has is not."""
    if base == "a commit":
        base = (clone.parent / "base").read_text()
    else:
        subprocess.run(["git", "fetch", "--quiet", "--unshallow"], cwd=clone, check=True)

    ran = run(clone, "Compare the networks", SPECS="specs", BASE=base)

    assert ran.returncode == 0, ran.stderr
    assert "| parameters | 224 | 448 | \\+100.0% |" in (clone.parent / "summary").read_text()
    assert (clone.parent / "output").read_text() == "changed=true\n"


def test_nothing_changed(clone: Path) -> None:
    """The output says so; without a base, as of a new branch, there is neither output nor summary."""
    assert run(clone, "Compare the networks", SPECS="specs", BASE="0" * 40).returncode == 0
    assert not (clone.parent / "output").exists()

    ran = run(clone, "Compare the networks", SPECS="specs", BASE="HEAD")

    assert ran.returncode == 0, ran.stderr
    assert (clone.parent / "output").read_text() == "changed=false\n"


def test_what_the_action_cannot_compare_fails(clone: Path) -> None:
    """A folder that does not exist, or a base that the server does not have."""
    assert run(clone, "Compare the networks", SPECS="nope", BASE="HEAD").returncode == 2
    assert run(clone, "Compare the networks", SPECS="specs", BASE="1" * 40).returncode != 0


def test_the_check_has_budgets_and_annotations(clone: Path) -> None:
    """A network over its budget, or over that of a file, fails the step and annotates the line."""
    (clone / "edge file.budget.yaml").write_text("archspec: 1\nbudget: {macs: <= 1}\n")

    own = run(clone, "Check the networks", SPECS="specs", BUDGET="")
    both = run(clone, "Check the networks", SPECS="specs specs/a.yaml", BUDGET="edge file.budget.yaml")

    assert own.returncode == both.returncode == 1
    assert own.stdout.startswith("::error file=specs/a.yaml,line=7,col=18,endColumn=24,title=archspec over-budget::")
    assert [line.split(",")[0] for line in both.stdout.splitlines()] == [
        "::error file=specs/a.yaml",
        "::error file=edge file.budget.yaml",
    ] * 2


def test_no_input_is_pasted_into_a_program() -> None:
    """Inputs and the event reach bash as variables: text of a pull request is never code. Actions have a version."""
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step.get("run", "")
        assert "uses" not in step or re.search(r"@v\d+\.\d+\.\d+$", step["uses"])
    used = set(re.findall(r"inputs\.([\w-]+)", (ROOT / "action.yml").read_text()))
    assert used == set(ACTION["inputs"])
