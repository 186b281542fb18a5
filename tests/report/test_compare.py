"""The comparison of two networks."""

from __future__ import annotations

import json

import pytest
from helpers import archspec_command


def test_compare_prints_differences() -> None:
    """Layers are aligned by op: Caffe's two AlexNets differ in the order of pools and norms and in initializers."""
    run = archspec_command("compare", "specs/alexnet_caffe.yaml", "specs/caffenet.yaml")
    assert run.returncode == 0, run.stderr
    lines = [line for line in run.stdout.splitlines() if "  ---" not in line]
    assert [line.split()[1] for line in lines if line.startswith("-")] == ["pool1", "pool2"]
    assert [line.split()[1] for line in lines if line.startswith("+")] == ["pool1", "pool2"]
    assert [line.split()[1] for line in lines if line.endswith("  init")] == ["conv2", "conv4", "conv5", "fc6", "fc7"]
    data = json.loads(
        archspec_command("compare", "specs/alexnet.yaml", "specs/alexnet_ungrouped.yaml", "--format", "json").stdout
    )
    differ = {layer["a"]["name"]: layer["differs"] for layer in data["layers"] if layer["differs"]}
    assert differ == {
        "conv2": ["attributes", "params", "macs"],
        "conv4": ["attributes", "params", "macs"],
        "conv5": ["attributes", "params", "macs"],
        "fc8": ["attributes", "output", "params", "macs", "init"],
    }
    assert data["totals"]["macs"]["ratio"] == pytest.approx(1_131_246_112 / 724_406_816)
    assert archspec_command("compare", "specs/alexnet.yaml", "specs").returncode == 2
