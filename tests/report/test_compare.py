"""The comparison of two networks."""

from __future__ import annotations

import json

import pytest
from helpers import ROOT, archspec_command

import archspec
from archspec.report.compare import compare_lines


def test_compare_goes_by_the_rows_of_the_text() -> None:
    """Blocks are aligned by their names, and say what their layers differ in; --depth unfolds them.

    ResNet-101 is ResNet-50 with 23 blocks instead of 6 in its third stage; ResNeXt-50 has twice the width of each
    block, and 32 groups.
    """
    rows = compared("resnet50", "resnet101")
    assert len(rows) == 11
    assert {row.split()[1]: row.split()[-1] for row in rows if row[0] != "="} == {"layer3": "layers"}
    rows = compared("resnet50", "resnext50")
    differing = {row.split()[1]: row.partition("  attributes, ")[2] for row in rows if row[0] != "="}
    assert differing == dict.fromkeys(("layer1", "layer2", "layer3", "layer4"), "output, params, macs")

    rows = compared("resnet50", "resnet101", "--depth", "1")
    assert [row.split()[1] for row in rows if row[0] == "+"] == [f"layer3.{i}" for i in range(6, 23)]
    assert next(row for row in rows if "layer2.0" in row).split("  ")[2].strip() == "bottleneck width 128, stride 2"
    assert next(row for row in rows if "layer2.1" in row).split("  ")[2].strip() == "bottleneck width 128"


def test_blocks_of_other_names_are_compared_row_by_row() -> None:
    """A block that is called otherwise is the block at its place: --depth shows its layers side by side."""
    text = (ROOT / "specs" / "resnet18.yaml").read_text()
    changed = archspec.loads(text.replace("basic", "unit"))
    rows = list(compare_lines(archspec.load(ROOT / "specs" / "resnet18.yaml"), changed, None))

    assert not [row for row in rows if row.startswith(("-  ", "+  ")) and "----" not in row]


def test_compare_sees_a_difference_inside_a_block() -> None:
    """Blocks with equal shapes and parameters differ where an attribute of a layer in them does."""
    text = (ROOT / "specs" / "resnet50.yaml").read_text()
    changed = archspec.loads(text.replace("{name: bn2, op: batch_norm2d}", "{name: bn2, op: batch_norm2d, eps: 1e-3}"))
    rows = [row for row in compare_lines(archspec.loads(text), changed) if row.startswith("!")]
    assert [(row.split()[1], row.split()[-1]) for row in rows] == [(f"layer{i}", "attributes") for i in range(1, 5)]


def compared(a: str, b: str, *options: str) -> list[str]:
    """Return the rows of the table of two specs."""
    run = archspec_command("compare", f"specs/{a}.yaml", f"specs/{b}.yaml", *options)
    assert run.returncode == 0, run.stderr
    return run.stdout.split("\n\n")[0].splitlines()[2:]


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
