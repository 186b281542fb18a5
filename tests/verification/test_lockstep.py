"""Lockstep training: two frameworks give the same losses and weights, and an error in one is detected."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import archspec_command, network, source
from helpers.programs import GRAY, LAYERS, RECIPE, require

from archspec import verification
from archspec.verification import Workers, lockstep

require("torch", "keras", "tensorflow")
pytestmark = [pytest.mark.frameworks, pytest.mark.xdist_group("keras")]
TARGETS = ("torch", "keras")


@pytest.fixture(scope="module")
def processes() -> Iterator[tuple[Workers, Workers]]:
    """The targets' processes, and the one that reads images."""
    with Workers(TARGETS) as workers, Workers(TARGETS[:1]) as reader:
        yield workers, reader


@pytest.fixture
def shared_processes(processes: tuple[Workers, Workers], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the command use the running processes."""

    class Shared:
        def __init__(self, targets: Any, **options: Any) -> None:
            self.workers = processes[len(targets) == 1]
            assert tuple(targets) == self.workers.targets

        def __enter__(self) -> Workers:
            return self.workers

        def __exit__(self, *exception: object) -> None:
            pass

    monkeypatch.setattr(verification, "Workers", Shared)


@pytest.mark.slow
def test_two_frameworks_train_alike(tmp_path: Path, shared_processes: None) -> None:
    """On digits, with crops, reflections and dropout, float64 losses agree to rounding; lockstep.json has the run."""
    path = tmp_path / "net.yaml"
    path.write_text(source(LAYERS, GRAY, RECIPE).text)
    done = archspec_command("lockstep", path, "--epochs", "4", "--float64-epochs", "2", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "out" / "lockstep.json").read_text())
    single, double = facts["runs"]["float32"], facts["runs"]["float64"]

    assert done.stdout.splitlines()[-1] == "net: torch and keras agree"
    assert (tmp_path / "out" / "lockstep.png").read_bytes().startswith(b"\x89PNG")
    assert facts["images"] == {"training": 1437, "validation": 360}
    for target in TARGETS:
        assert len(single["losses"][target]) == 4 * 23  # 1,437 images are 23 batches of 64
        assert len(double["losses"][target]) == 2 * 23
        assert [e["learning_rate"] for e in single["epochs"][target]] == pytest.approx([0.05] * 3 + [0.005])
        assert single["epochs"][target][-1]["validation_accuracy"] > 0.7  # chance is 0.1
        losses = single["losses"][target][:23]
        mean = (sum(losses[:22]) * 64 + losses[22] * 29) / 1437
        assert single["epochs"][target][0]["loss"] == pytest.approx(mean)
    pairs = list(zip(*double["losses"].values(), strict=True))
    assert max(abs(a - b) / a for a, b in pairs) < 1e-11
    assert max(double["weight_differences"]) < 1e-11
    assert 1e-9 < max(single["weight_differences"]) < 0.1  # float32 runs differ by their rounding
    assert double["diverged"] == {"1e-06": None, "0.001": None, "0.1": None}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [("MOMENTUM = 0.9", "MOMENTUM = 0.9001"), ("LR = 0.05", "LR = 0.0501")],
    ids=["momentum", "learning rate"],
)
def test_an_error_in_one_target_is_detected(
    old: str, new: str, processes: tuple[Workers, Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A momentum or a learning rate that is not the recipe's makes the targets diverge."""
    generated = lockstep.files

    def altered_files(graph: Any, target: Any, *arguments: Any, **options: Any) -> dict[str, str]:
        texts = generated(graph, target, *arguments, **options)
        if target.name != "keras":
            return texts
        assert texts["keras/recipe.py"].count(old) == 1
        return {**texts, "keras/recipe.py": texts["keras/recipe.py"].replace(old, new)}

    monkeypatch.setattr(lockstep, "files", altered_files)
    graph = network(LAYERS, GRAY, RECIPE)
    result = lockstep.lockstep(graph, *processes, data=None, epochs=1, float64_epochs=1, batch_size=100, seed=3)
    assert not result.agrees


@pytest.mark.slow
def test_invalid_uses_are_errors(tmp_path: Path, shared_processes: None) -> None:
    """A spec without a recipe, a target that does not train, too few classes, and missing data are errors."""
    path = tmp_path / "net.yaml"
    path.write_text(source("{name: flat, op: flatten}\n{name: fc, op: linear, out_features: 3}", GRAY, RECIPE).text)
    (tmp_path / "empty").mkdir()
    messages = {
        name: archspec_command("lockstep", *words).stderr.strip().splitlines()
        for name, words in {
            "recipe": ["specs/alexnet_keras_mnist.yaml"],
            "target": [path, "--target", "torch", "--target", "numpy"],
            "twice": [path, "--target", "torch", "--target", "torch"],
            "classes": [path],
            "missing": [path, "--data", tmp_path / "nowhere"],
            "empty": [path, "--data", tmp_path / "empty"],
        }.items()
    }

    assert messages["recipe"][-1] == "archspec: specs/alexnet_keras_mnist.yaml has no section training"
    unboxed = " ".join(" ".join(messages["target"]).replace("│", " ").split())
    assert "no target 'numpy'; there are torch, keras, keras-tensorflow" in unboxed
    assert messages["twice"][-1] == "archspec: lockstep trains two or more different targets: repeat --target"
    assert messages["classes"][-1] == "archspec: 10 classes, but net has 3 outputs"
    assert messages["missing"][-1] == f"archspec: no such folder: {tmp_path / 'nowhere'}"
    assert messages["empty"][-1] == (
        f"archspec: torch: {tmp_path / 'empty'} has neither train/ and val/, nor MNIST's or CIFAR-10's files"
    )
