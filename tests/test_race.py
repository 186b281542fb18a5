"""A race: two frameworks train as one, and a fault in either is seen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import spec
from test_cli import run
from test_program import LAYERS, RECIPE

import archspec
from archspec import race as racing
from archspec.verify import Workers

pytest.importorskip("torch")
pytest.importorskip("keras")
pytestmark = pytest.mark.frameworks
TARGETS = ("torch", "keras")


@pytest.fixture(scope="module")
def processes() -> Iterator[tuple[Workers, Workers]]:
    """The processes of the targets, and that which reads."""
    with Workers(TARGETS) as workers, Workers(TARGETS[:1]) as reader:
        yield workers, reader


def test_two_frameworks_train_as_one(tmp_path: Path) -> None:
    """On digits, with crops, reflections and dropout, float64 losses stay within rounding; the report has it all."""
    path = tmp_path / "net.yaml"
    path.write_text(spec(LAYERS, "{channels: 1, height: 8, width: 8}", RECIPE).text)
    done = run("race", path, "--epochs", "4", "--float64-epochs", "2", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "out" / "race.json").read_text())
    single, double = facts["runs"]["float32"], facts["runs"]["float64"]

    assert done.stdout.splitlines()[-1] == "net: torch and keras agree"
    assert (tmp_path / "out" / "race.png").read_bytes().startswith(b"\x89PNG")
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
    assert max(double["weights_apart"]) < 1e-11
    assert 1e-9 < max(single["weights_apart"]) < 0.1  # in float32 it is another run, and not quite the same
    assert double["parted"] == {"1e-06": None, "0.001": None, "0.1": None}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("momentum=0.9", "momentum=0.9001"),
        ("LearningRateScheduler(learning_rate)", "LearningRateScheduler(lambda epoch: 0.0501)"),
    ],
)
def test_a_race_sees_a_fault(
    old: str, new: str, processes: tuple[Workers, Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A momentum, a rate or a loss that is not the recipe's ends the race with another verdict."""
    emitted = racing.emit_training

    def faulty(graph: archspec.Graph, target: str, recipe: object) -> str:
        text = emitted(graph, target, recipe)  # type: ignore[arg-type]
        assert target != "keras" or text.count(old) == 1
        return text.replace(old, new) if target == "keras" else text

    monkeypatch.setattr(racing, "emit_training", faulty)
    graph = archspec.build(spec(LAYERS, "{channels: 1, height: 8, width: 8}", RECIPE))
    found = racing.race(graph, *processes, data=None, epochs=1, float64_epochs=1, batch_size=100, seed=3)
    assert not found.agrees


def test_what_cannot_race_is_told(tmp_path: Path) -> None:
    """A spec without a recipe, a target that does not train, too few classes, and data that are not there."""
    path = tmp_path / "net.yaml"
    path.write_text(
        spec(
            "{name: flat, op: flatten}\n{name: fc, op: linear, out_features: 3}",
            "{channels: 1, height: 8, width: 8}",
            RECIPE,
        ).text
    )
    said = {
        word: run("race", *words).stderr.splitlines()[-1]
        for word, words in {
            "recipe": ["specs/alexnet_keras_mnist.yaml"],
            "target": [path, "--targets", "torch,numpy"],
            "classes": [path],
            "data": [path, "--data", tmp_path / "nowhere"],
        }.items()
    }

    assert said["recipe"] == "archspec: specs/alexnet_keras_mnist.yaml has no training: section"
    assert said["target"].startswith("archspec: no target 'numpy'; there are torch, keras, ")
    assert said["classes"] == "archspec: 10 classes, and net tells 3"
    assert "holds neither train/ and val/" in said["data"]
