"""Importing Keras models: read as data, proven beside Keras, and proofs that altered imports do not pass."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, archspec_command

import archspec
from archspec import importers
from archspec.graph import build
from archspec.importers import Imported, process
from archspec.importers.proof import prove
from archspec.language.source import Source
from archspec.workers import torch_import

pytestmark = [pytest.mark.frameworks, pytest.mark.xdist_group("importers")]
MODELS = ROOT / "tests" / "data" / "models" / "keras_networks.py"
_references: dict[str, tuple[dict[str, Any], bytes]] = {}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models of keras_networks.py, saved by Keras in its three formats."""
    for package in ("keras", "torch", "h5py"):
        if importlib.util.find_spec(package) is None:  # Keras is not imported here, with the user's backend
            pytest.skip(f"{package} is not installed")
    folder = tmp_path_factory.mktemp("keras")
    subprocess.run([sys.executable, MODELS, folder], check=True, capture_output=True)
    return folder


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run generated code in this process, and each Keras model once."""
    run = process.ask

    def ask(worker: str, request: dict[str, Any], folder: Path) -> dict[str, Any]:
        if worker == "torch_import.py":
            return torch_import.run(request)
        key = json.dumps([request["job"], {k: v for k, v in request["source"].items() if k != "path"}])
        if key not in _references:
            answer = run(worker, request, folder)
            _references[key] = answer, Path(request["arrays"]).read_bytes()
        answer, content = _references[key]
        Path(request["arrays"]).write_bytes(content)
        return answer

    monkeypatch.setattr(process, "ask", ask)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convs.keras", "nested.h5", "chain.keras"])
def test_a_model_in_a_file_is_proven(name: str, files: Path) -> None:
    """Outputs and gradients in both modes, running statistics, MACs and parameters are those of Keras' model."""
    found = importers.import_model(str(files / name))
    proof = prove(found)

    assert proof.failures == []
    assert set(proof.differences) >= {f"{w}, {m}" for w in ("outputs", "gradients") for m in ("evaluation", "training")}
    assert ("running statistics" in proof.differences) == name.startswith("convs")
    assert found.folded


def test_formats_have_the_same_network_and_weights(files: Path) -> None:
    """.keras, .h5 and .json are one model; the last has no weights."""
    import numpy as np

    archive, legacy, text = (importers.import_model(str(files / f"convs.{end}")) for end in ("keras", "h5", "json"))

    assert archive.text.splitlines()[4:] == legacy.text.splitlines()[4:]
    assert [n.op for n in archive.graph.nodes] == [n.op for n in text.graph.nodes]
    assert text.canonical_weights() == {}
    for name, value in archive.canonical_weights().items():
        np.testing.assert_array_equal(value, legacy.canonical_weights()[name])


def test_the_weights_that_the_command_writes_are_the_models(files: Path, tmp_path: Path) -> None:
    """Keras' kernels are turned into PyTorch's layout in the file too, not only in memory."""
    import numpy as np
    from safetensors.numpy import load_file

    out = tmp_path / "w.safetensors"
    words = ("import", files / "convs.keras", "-o", tmp_path / "convs.yaml", "--weights-out", out, "--no-prove")
    run = archspec_command(*words)

    assert run.returncode == 0, run.stderr
    found, expected = load_file(out), importers.import_model(str(files / "convs.keras")).canonical_weights()
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, name)


def test_the_spec_says_what_keras_has_otherwise(files: Path) -> None:
    """Momentum and epsilon in PyTorch's words, padding in the layer, zeros before a pool, blocks that repeat."""
    text = importers.import_model(str(files / "convs.keras")).text

    assert "# The model begins with (0.0110" in text
    assert (
        "{name: conv, op: conv2d, out_channels: 12, kernel_size: 3, stride: 2, padding: {bottom: 1, left: 1, right: 2}"
        in text
    )
    assert "{name: norm, op: batch_norm2d, eps: 0.01, momentum: 0.2}" in text
    assert "{name: pool_pad, op: zero_pad2d, padding: 1}" in text
    assert "op: avg_pool2d, kernel_size: 3, stride: 1, padding: 1, count_include_pad: false" in text
    assert "op: stochastic_depth, p: p" in text
    assert "{name: stage_2, op: block, p: 0.2}" in text
    assert "# Norms without a scale or a shift have one here, of ones or zeros." in text


# Text of the spec, and what stands there after a mistake of an importer.
MUTANTS = {
    "momentum not inverted": ("eps: 0.01, momentum: 0.2}", "eps: 0.01, momentum: 0.8}"),
    "PyTorch's eps": ("eps: 0.01, momentum: 0.2}", "momentum: 0.2}"),
    "Keras' default of eps lost": ("eps: 0.001, momentum: 0.01", "momentum: 0.01"),
    "a pad dropped": ("padding: {bottom: 1, left: 1, right: 2}", "padding: {bottom: 1, left: 2, right: 1}"),
    "minus infinity for zeros": ("{name: pool, op: max_pool2d, kernel_size: 3, stride: 2}", "{name: pool, op: max_pool2d, kernel_size: 5, stride: 2, padding: 1}"),
    "padding counted": (", count_include_pad: false", ""),
    "relu6 to relu": ("op: relu6", "op: relu"),
    "hardswish to silu": ("op: hardswish", "op: silu"),
    "hardsigmoid to sigmoid": ("op: hardsigmoid", "op: sigmoid"),
    "slope of leaky_relu": ("negative_slope: 0.1", "negative_slope: 0.3"),
    "groups of a norm": ("num_groups: 3", "num_groups: 9"),
    "nearest for bilinear": (", mode: bilinear", ""),
    "elu to relu": ("op: elu", "op: relu"),
    "dropout's rate": ("p: 0.4", "p: 0.5"),
    "tanh to sigmoid": ("op: tanh", "op: sigmoid"),
    "softmax lost": ("  - {name: scores_softmax, op: softmax}\n", ""),
    "branches swapped": ("from: [mean, leaky]", "from: [leaky, mean]"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_an_altered_import_is_rejected(mutant: str, files: Path) -> None:
    """The proof of a spec in which one thing is otherwise fails, or it cannot be made."""
    old, new = MUTANTS[mutant]
    found = importers.import_model(str(files / "convs.keras"))
    assert old in found.text, found.text
    graph = build(Source.parse(found.text.replace(old, new), "altered.yaml"))

    assert _rejected(replace(found, graph=graph))


LAYOUTS = {
    "a flatten's order of channels": ("fc1.weight", {"before": None, "axes": (1, 0)}),
    "a kernel flipped": ("conv.weight", {"axes": (3, 2, 1, 0)}),
    "a depthwise kernel of the other axes": ("stage_1.depthwise.weight", {"axes": (2, 3, 1, 0)}),
    "statistics of another norm": ("stage_1.norm.running_mean", {"key": "stage_block2_norm/2"}),
    "mean and variance exchanged": ("norm.running_mean", {"key": "norm/3"}),
    "gamma and beta exchanged": ("norm.weight", {"key": "norm/1"}),
    "a transposed convolution's channels": ("larger.bias", {"key": "enlarged/0"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("mutant", LAYOUTS)
def test_a_weight_in_the_wrong_place_is_rejected(mutant: str, files: Path) -> None:
    """The proof with one weight read otherwise fails."""
    name, changes = LAYOUTS[mutant]
    found = importers.import_model(str(files / "convs.keras"))
    origins = {**found.origins, name: found.origins[name]._replace(**changes)}

    assert _rejected(replace(found, origins=origins))


def _rejected(altered: Imported) -> bool:
    try:
        return bool(prove(altered).failures)
    except (importers.ImportFailedError, RuntimeError, KeyError, ValueError, torch_import.SourceError):
        return True


def test_unsupported_layers_are_named_at_once_and_a_lambda_is_not_run(files: Path) -> None:
    """Each with its name and why; what reads them is not counted again."""
    run = archspec_command("check", files / "unsupported.json")

    assert run.returncode == 1
    for text in ("Conv2D: the activation selu", "Lambda", "in mine", "is used more than once", "has 3 outputs"):
        assert text in run.stderr
    assert "A LAMBDA WAS RUN" not in run.stdout + run.stderr


def test_configurations_of_keras_1_and_2_are_read(tmp_path: Path) -> None:
    """LeNet in the words of Keras 1 and of Keras 2 is one network."""
    one = [
        ("Convolution2D", {"nb_filter": 6, "nb_row": 5, "nb_col": 5, "border_mode": "same", "subsample": [1, 1]}),
        ("MaxPooling2D", {"pool_size": [2, 2], "strides": [2, 2], "border_mode": "valid"}),
        ("Flatten", {}),
        ("Dropout", {"p": 0.25}),
        ("Dense", {"output_dim": 10, "activation": "softmax", "bias": True}),
    ]
    two = [
        ("Conv2D", {"filters": 6, "kernel_size": [5, 5], "padding": "same", "strides": [1, 1]}),
        ("MaxPooling2D", {"pool_size": [2, 2], "strides": [2, 2], "padding": "valid"}),
        ("Flatten", {}),
        ("Dropout", {"rate": 0.25}),
        ("Dense", {"units": 10, "activation": "softmax", "use_bias": True}),
    ]
    found = []
    for number, rows in enumerate((one, two), 1):
        layers = [{"class_name": c, "config": {"name": f"l{i}", **config}} for i, (c, config) in enumerate(rows)]
        layers[0]["config"]["batch_input_shape"] = [None, 28, 28, 1]
        body = layers if number == 1 else {"name": "lenet", "layers": layers}
        path = tmp_path / f"net{number}.json"
        path.write_text(json.dumps({"class_name": "Sequential", "config": body, "keras_version": f"{number}.2.2"}))
        found.append(importers.import_model(str(path)).graph)

    assert [node.op for node in found[0].nodes] == [node.op for node in found[1].nodes]
    # 6 x (5 x 5 + 1) and 10 x (6 x 14 x 14 + 1)
    assert archspec.check(found[0]).totals.params == 156 + 11_770


BAD: Mapping[str, tuple[bytes, str]] = {
    "not.json": (b'{"class_name": ', "is no JSON"),
    "list.json": (b'["class_name"]', "is no configuration of a Keras model"),
    "deep.json": (b'{"class_name": ' + b"[" * 100_000, "is no JSON"),
    "empty.json": (b'{"class_name": "Functional", "config": {}}', "is not one of Keras"),
    "text.keras": (b"hello", "is no .keras file"),
    "text.h5": (b"hello", "is no HDF5 file"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_model_is_an_error(name: str, tmp_path: Path) -> None:
    """A message says what is wrong with it."""
    pytest.importorskip("h5py")
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(importers.ImportFailedError, match=message):
        importers.import_model(str(tmp_path / name))


def test_weights_in_another_file_are_refused(files: Path, tmp_path: Path) -> None:
    """A link from a model's HDF5 to another file is not followed."""
    import h5py

    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["kernel"] = [1.0]
    with h5py.File(files / "chain.h5") as file, h5py.File(tmp_path / "linked.h5", "w") as copy:
        for key, value in file.attrs.items():
            copy.attrs[key] = value
        copy["model_weights"] = h5py.ExternalLink(str(secret), "/")
    with pytest.raises(importers.ImportFailedError, match="is a link to another file"):
        importers.import_model(str(tmp_path / "linked.h5"))


def test_weights_of_another_shape_are_an_error(files: Path, tmp_path: Path) -> None:
    """A configuration that does not fit its weights is named with the layer."""
    path = tmp_path / "wide.keras"
    with zipfile.ZipFile(files / "chain.keras") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, content.replace(b'"units": 10', b'"units": 11') if name == "config.json" else content)
    with pytest.raises(importers.ImportFailedError, match=r"dense\S*/0 has shape"):
        importers.import_model(str(path))


@pytest.mark.zoo
@pytest.mark.parametrize(
    "name",
    [
        *(
            "VGG16",
            "VGG19",
            "ResNet50",
            "ResNet101",
            "ResNet50V2",
            "InceptionV3",
            "Xception",
            "DenseNet121",
            "MobileNet",
        ),
        *("MobileNetV2", "MobileNetV3Small", "MobileNetV3Large", "EfficientNetB0", "EfficientNetV2B0", "ConvNeXtTiny"),
    ],
)
def test_models_of_keras_applications_are_proven(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters are Keras' own, outputs and gradients its outputs and gradients."""
    monkeypatch.undo()
    if importlib.util.find_spec("keras") is None:
        pytest.skip("keras is not installed")
    found = importers.import_model(f"keras.applications:{name}")

    assert prove(found).failures == []
