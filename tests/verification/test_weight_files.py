"""Weights in the files of PyTorch, Keras and NumPy: bit for bit the same, or a message that says what does not fit."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import OP_SPECS, ROOT, archspec_command
from helpers.reduced import reduced

import archspec
from archspec.graph import Graph
from archspec.verification import Workers, canonical_weights, weight_files
from archspec.verification.processes import WorkerError

pytestmark = [pytest.mark.frameworks, pytest.mark.xdist_group("workers")]
WITH_WEIGHTS = [path for path in OP_SPECS if any(node.params for node in archspec.load(path).nodes)]
NETWORKS = {"resnet18": 32, "vit_b_16": 32}


def drawn(graph: Graph) -> dict[str, Any]:
    """Return weights none of which is another's."""
    random = np.random.default_rng(1)
    shapes = canonical_weights.shapes(graph)
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def assert_equal(found: dict[str, Any], weights: dict[str, Any]) -> None:
    assert list(found) == list(weights)
    for name, value in weights.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value, name)


@pytest.mark.parametrize("path", WITH_WEIGHTS, ids=lambda path: path.stem)
def test_weights_of_every_op_come_back_from_keras(path: Path, workers: Workers, tmp_path: Path) -> None:
    """Canonical weights written as Keras' file, and read again, are the same bits."""
    graph = archspec.load(path)
    weights = drawn(graph)
    weight_files.write(graph, weights, tmp_path / "net.weights.h5", workers)

    assert_equal(weight_files.read(graph, tmp_path / "net.weights.h5", workers), weights)


@pytest.mark.parametrize("name", ["vit_b_16", pytest.param("resnet18", marks=pytest.mark.slow)])
def test_weights_come_back_from_every_format(name: str, workers: Workers, tmp_path: Path) -> None:
    """From one format to the next and back, the weights of a network are the same bits."""
    graph = reduced(ROOT / "specs" / f"{name}.yaml", NETWORKS[name])
    weights = found = drawn(graph)
    for suffix in (".pt", ".keras", ".npz", ".weights.h5", ".safetensors", ".pth"):
        path = tmp_path / f"net{suffix}"
        weight_files.write(graph, found, path, workers)
        found = weight_files.read(graph, path, workers)

    assert_equal(found, weights)


def test_torchvisions_state_dict_is_read_and_the_generated_model_loads_what_is_written(tmp_path: Path) -> None:
    """A ResNet-18 of torchvision, as .pt of a DataParallel checkpoint; .pt loads strict=True into torchvision's again."""
    torch = pytest.importorskip("torch")
    models = pytest.importorskip("torchvision").models
    model = models.resnet18()
    state = model.state_dict()
    checkpoint = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}
    torch.save(checkpoint, tmp_path / "in.pt")
    run = archspec_command("weights", tmp_path / "in.pt", tmp_path / "out.pt", "--spec", "specs/resnet18.yaml")

    assert run.returncode == 0, run.stderr
    assert "out.pt: 102 arrays, 11,699,112 values" in run.stderr.replace("\n", " ")
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    models.resnet18().load_state_dict(found, strict=True)
    assert all(torch.equal(found[name], value) for name, value in state.items() if "num_batches" not in name)


def test_what_does_not_fit_is_named(workers: Workers, tmp_path: Path) -> None:
    """Missing, surplus and of another shape, each with the nearest name."""
    graph = archspec.load(ROOT / "specs" / "lenet.yaml")
    weights = drawn(graph)
    first, second, *_ = weights
    weights[f"{first}s"] = weights.pop(first)
    weights[second] = weights[second][:2]
    np.savez(tmp_path / "bad.npz", **weights)
    with pytest.raises(weight_files.WeightsError) as error:
        weight_files.read(graph, tmp_path / "bad.npz", workers)
    lines = str(error.value).splitlines()

    assert lines[0] == "the weights in bad.npz are not those of lenet:"
    assert lines[1:] == [
        f"  {first} is missing; did you mean '{first}s'?",
        f"  {first}s is not of this network; did you mean '{first}'?",
        f"  {second} is 2, not 6",
    ]


class Opens:
    """A pickle that would run a command."""

    def __reduce__(self) -> Any:
        return print, ("A PICKLE WAS RUN",)


@pytest.mark.parametrize("suffix", [".pt", ".npz", ".safetensors", ".weights.h5"])
def test_a_hostile_file_is_not_run(suffix: str, workers: Workers, tmp_path: Path, capfd: Any) -> None:
    """A pickle in any format's place is an error."""
    path = tmp_path / f"net{suffix}"
    path.write_bytes(pickle.dumps(Opens()))
    with pytest.raises((weight_files.WeightsError, WorkerError)):
        weight_files.read(archspec.load(ROOT / "specs" / "lenet.yaml"), path, workers)

    assert "A PICKLE WAS RUN" not in "".join(capfd.readouterr())


def test_a_file_of_no_known_format_is_a_usage_error(tmp_path: Path) -> None:
    """The message has the formats; nothing is written."""
    (tmp_path / "net.bin").write_bytes(b"")
    run = archspec_command("weights", tmp_path / "net.bin", tmp_path / "out.npz", "--spec", "specs/lenet.yaml")

    assert run.returncode == 2
    assert "must end in .safetensors, .pt" in run.stderr
    assert not (tmp_path / "out.npz").exists()
