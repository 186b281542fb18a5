"""The verifier on trial: faults that real converters have shipped are rejected where they were planted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

import archspec
from archspec.emit import TARGETS, emit, files, words
from archspec.files import write
from archspec.graph import Graph
from archspec.verify import CHECKS, Workers, verify

pytestmark = pytest.mark.frameworks

FOLDER = ROOT / "tests" / "mutants"
MUTANTS = sorted(FOLDER.glob("*.yaml"))
NETS = sorted((FOLDER / "nets").glob("*.yaml"))


@pytest.fixture
def altered_templates(tmp_path: Path) -> Iterator[Path]:
    """A copy of the templates, which is what is read while the test runs."""
    copy = tmp_path / "templates"
    shutil.copytree(words.templates(), copy)
    original = words.templates
    try:
        words.templates = lambda: copy
        words.environment.cache_clear()
        words.entry.cache_clear()
        yield copy
    finally:
        words.templates = original
        words.environment.cache_clear()
        words.entry.cache_clear()


def test_there_are_enough_of_them() -> None:
    """At least 40, in every check, in both targets, in templates too, each of another kind."""
    read = [yaml.safe_load(path.read_text()) for path in MUTANTS]

    assert len(read) >= 40
    assert {mutant["check"] for mutant in read} == set(CHECKS)
    assert {mutant["target"] for mutant in read} == {"torch", "keras"}
    assert sum("template" in mutant for mutant in read) >= 4
    assert len({mutant["why"] for mutant in read}) == len(read)


@pytest.mark.parametrize("path", NETS, ids=lambda path: path.stem)
def test_the_networks_themselves_agree(path: Path, workers: Workers) -> None:
    """Without a mutation all six checks pass, so that it is the mutation that fails."""
    evidence = verify(archspec.load(path), workers)

    assert evidence.agrees, (evidence.first, evidence.failures)
    assert {c.check for c in evidence.comparisons} == set(evidence.checks)
    assert set(evidence.checks) | set(evidence.skipped) == set(CHECKS)


@pytest.mark.parametrize("path", MUTANTS, ids=lambda path: path.stem)
def test_a_planted_fault_is_rejected_where_it_was_planted(
    path: Path, workers: Workers, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The first thing that parts is what was altered: its check, its layer, its target."""
    mutant = yaml.safe_load(path.read_text())
    graph = archspec.load(FOLDER / "nets" / f"{mutant['net']}.yaml")
    whole = _texts(graph, mutant["target"])
    if "template" in mutant:
        file = request.getfixturevalue("altered_templates") / mutant["template"]
        text = file.read_text()
        assert text.count(mutant["old"]) == 1, text
        file.write_text(text.replace(mutant["old"], mutant["new"]))
        mutated = _texts(graph, mutant["target"])
        request.getfixturevalue("altered_templates")  # stays until the end; the other targets' texts are as they were
    else:
        text = whole[mutant["file"]]
        assert mutant["old"] in text, text
        mutated = {**whole, mutant["file"]: text.replace(mutant["old"], mutant["new"])}
    assert mutated != whole
    write([(tmp_path / "out" / graph.name / name, text) for name, text in mutated.items()], tmp_path / "out")

    # All checks before its own, unless only the training file is altered: what it has no part in need not be run.
    first_able = "gradients" if str(mutant.get("file")).endswith("_train.py") else "structure"
    checks = [
        c
        for c in CHECKS[CHECKS.index(first_able) : CHECKS.index(mutant["check"]) + 1]
        if c != "dropout" or first_able != "gradients"
    ]
    evidence = verify(graph, workers, generated=tmp_path / "out", batch=4, checks=checks, dtypes=("float64",))

    assert not evidence.agrees
    assert {failure.target for failure in evidence.failures} <= {mutant["target"]}
    first = evidence.first
    assert first is not None
    assert (first.check, first.layer) == (mutant["check"], mutant.get("layer", "")) or "layer" not in mutant, first
    assert first.check == mutant["check"], first
    assert first.what == mutant.get("what", first.what), first
    # of a pair of frameworks, one is the other's reference, and either may be the one at fault
    if first.check in ("structure", "forward", "init"):
        assert first.target == mutant["target"], first


def _texts(graph: Graph, target: str) -> dict[str, str]:
    texts = files(graph, target)
    assert texts[TARGETS[target]] == emit(graph, target)
    return texts
