"""The verification itself is verified: faults that converters have shipped are rejected where they were planted."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import DATA
from helpers.verification import NETS, CachedWorkers

import archspec
from archspec.files import write
from archspec.targets import TARGETS, files, render
from archspec.verification import CHECKS, verify

pytestmark = [pytest.mark.frameworks, pytest.mark.xdist_group("workers")]

MUTANTS = sorted((DATA / "mutants").glob("*.yaml"))
QUICK = {"torch": 8, "keras": 2}  # mutants of a check that are not slow
LONG = ("dropout", "training", "init")  # checks that a fault of transforms passes without being asked
TRAINING = ("recipe.py", "train.py", "optim.py")  # files that have no part in the forward pass


@pytest.fixture
def altered_templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the templates that is used while the test runs."""
    copy = tmp_path / "templates"
    shutil.copytree(render.templates(), copy)
    with monkeypatch.context() as patch:
        patch.setattr(render, "templates", lambda: copy)
        render.environment.cache_clear()
        yield copy
    render.environment.cache_clear()


def test_there_are_mutants_of_every_check() -> None:
    """95 faults, in every check, in both frameworks and in templates, no two for the same reason."""
    mutants = [yaml.safe_load(path.read_text()) for path in MUTANTS]

    assert len(mutants) >= 95
    assert {mutant["check"] for mutant in mutants} == set(CHECKS)
    assert {mutant["target"] for mutant in mutants} == {"torch", "keras"}
    assert sum("template" in mutant for mutant in mutants) >= 4
    assert len({mutant["why"] for mutant in mutants}) == len(mutants)


def mutants() -> list[Any]:
    """Return all mutants; but for some of each check and target they are slow, and Keras' take six times as long."""
    found, count = [], Counter[tuple[str, str]]()
    for path in MUTANTS:
        mutant = yaml.safe_load(path.read_text())
        kind = mutant["check"], mutant["target"]
        count[kind] += 1
        slow = count[kind] > QUICK[mutant["target"]]
        found.append(pytest.param(path, id=path.stem, marks=pytest.mark.slow if slow else ()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(NETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_unaltered_networks_agree(path: Path, cached_workers: CachedWorkers) -> None:
    """Without a fault all checks pass, so that a mutant fails because of its fault."""
    evidence = verify(archspec.load(path), cached_workers)

    assert evidence.agrees, (evidence.first, evidence.failures)
    assert {c.check for c in evidence.comparisons} == set(evidence.checks)
    assert set(evidence.checks) | set(evidence.skipped) == set(CHECKS)


@pytest.mark.parametrize("path", mutants())
def test_mutant_is_rejected_at_its_fault(
    path: Path, cached_workers: CachedWorkers, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The first disagreement is at the check, the layer and the target of the fault."""
    mutant = yaml.safe_load(path.read_text())
    graph = archspec.load(NETS / f"{mutant['net']}.yaml")
    target = TARGETS[mutant["target"]]
    unaltered = files(graph, target)
    if "template" in mutant:
        # The templates stay altered during the verification; the other targets' files do not change.
        template = request.getfixturevalue("altered_templates") / mutant["template"]
        text = template.read_text()
        assert text.count(mutant["old"]) == 1, text
        template.write_text(text.replace(mutant["old"], mutant["new"]))
        mutated = files(graph, target)
    else:
        text = unaltered[mutant["file"]]
        assert text.count(mutant["old"]) == 1, text
        mutated = {**unaltered, mutant["file"]: text.replace(mutant["old"], mutant["new"])}
    assert mutated != unaltered
    out = tmp_path / "out"
    write([(out / graph.name / name, text) for name, text in mutated.items()], out)

    # All checks up to the fault's own; a fault in training begins with the gradients, and of images is seen by no other.
    start = "gradients" if mutant.get("file", "").endswith(TRAINING) else "structure"
    order = list(CHECKS)
    checks = [
        check
        for check in order[order.index(start) : order.index(mutant["check"]) + 1]
        if (check != "dropout" or start != "gradients") and (check not in LONG or mutant["check"] != "transforms")
    ]
    checks = ["images"] if mutant["check"] == "images" else checks
    evidence = verify(graph, cached_workers, generated=out, batch=4, checks=checks, dtypes=("float64",))

    assert not evidence.agrees
    assert {failure.target for failure in evidence.failures} <= {mutant["target"]}
    if "file" in mutant:
        assert evidence.stale == (out / graph.name / mutant["file"],)
    first = evidence.first
    assert first is not None
    assert first.check == mutant["check"], first
    assert first.layer == mutant.get("layer", first.layer), first
    assert first.what == mutant.get("what", first.what), first
    # In the other checks the frameworks are compared with each other, and either is reported.
    if first.check in ("structure", "forward", "init"):
        assert first.target == mutant["target"], first


NORMS = [path for path in MUTANTS if path.stem.startswith("batch_norm_")]


@pytest.mark.parametrize("path", NORMS, ids=lambda path: path.stem)
def test_a_fault_of_batch_normalization_passes_a_comparison_of_inference(
    path: Path, cached_workers: CachedWorkers, tmp_path: Path
) -> None:
    """Outputs in evaluation mode are within 1e-2 of the reference's: what a careless comparison would accept."""
    mutant = yaml.safe_load(path.read_text())
    graph = archspec.load(NETS / f"{mutant['net']}.yaml")
    unaltered = files(graph, TARGETS[mutant["target"]])
    mutated = {**unaltered, mutant["file"]: unaltered[mutant["file"]].replace(mutant["old"], mutant["new"])}
    write([(tmp_path / "out" / graph.name / name, text) for name, text in mutated.items()], tmp_path / "out")

    evidence = verify(
        graph, cached_workers, generated=tmp_path / "out", batch=4, checks=("structure", "forward"), dtypes=("float64",)
    )

    assert not evidence.failures
    assert all(c.value <= (1e-2 if c.check == "forward" else 0) for c in evidence.comparisons)


def test_the_faults_of_batch_normalization_are_these() -> None:
    """Momentum, epsilon, variance, frozen, another layer's."""
    assert len(NORMS) == 5
