"""A network by the rows of its text."""

from __future__ import annotations

import json

import pytest
from helpers import ROOT, archspec_command

import archspec
from archspec import analysis
from archspec.graph import Node
from archspec.graph.folding import folded
from archspec.report import drawing
from archspec.report.facts import Facts, layers_table


def names(spec: str, depth: int | None) -> list[str]:
    return [item.name for item in folded(archspec.load(ROOT / "specs" / f"{spec}.yaml"), depth)]


def test_a_row_of_the_text_is_a_row_of_the_table() -> None:
    """ResNet-50's are those of table 1 of its paper; a network without blocks is as it was."""
    stem, end = ["conv1", "bn1", "relu1", "maxpool"], ["avgpool", "flatten", "fc"]

    assert names("resnet50", 0) == [*stem, "layer1", "layer2", "layer3", "layer4", *end]
    assert names("resnet50", 1)[4:8] == ["layer1.0", "layer1.1", "layer1.2", "layer2.0"]
    assert names("resnet50", 2)[4:7] == ["layer1.0.conv1", "layer1.0.bn1", "layer1.0.relu1"]
    assert names("mobilenet_v2", 1)[0] == "conv1.0"  # a block that is not repeated has no level for its number
    assert names("alexnet", 0) == names("alexnet", None)


@pytest.mark.parametrize("depth", [0, 1, 2, 3, None])
def test_the_sums_do_not_depend_on_the_depth(depth: int | None) -> None:
    """Parameters and MACs of the rows are those of the network; no layer is lost or counted twice."""
    graph = archspec.load(ROOT / "specs" / "regnet_y_400mf.yaml")
    total = analysis.totals(graph)
    table = layers_table(Facts(graph, depth=depth), ["params", "macs", "activation_bytes"])
    nodes = [n for item in folded(graph, depth) for n in ([item] if isinstance(item, Node) else item.nodes)]

    assert nodes == list(graph.nodes)
    assert [sum(column) for column in zip(*table.values, strict=True)] == [
        total.params,
        total.macs,
        total.activation_bytes,
    ]


def test_densenet201_is_a_screen() -> None:
    """427 layers are 15 rows, and a drawing of as many boxes; --depth unfolds both, and JSON has all layers."""
    graph = archspec.load(ROOT / "specs" / "densenet201.yaml")
    drawn = drawing.draw(graph)

    assert len(graph.nodes) > 400
    assert len(folded(graph)) == 16
    assert drawn
    assert len(drawn.boxes) <= 16
    assert {box.group.op for box in drawn.boxes if box.group} >= {"dense_layer x 48", "transition"}
    assert drawing.draw(graph, 1)
    shallow = archspec_command("check", ROOT / "specs" / "densenet201.yaml").stdout
    deep = archspec_command("check", ROOT / "specs" / "densenet201.yaml", "--depth", "1").stdout
    assert "block3.47 " not in shallow
    assert "block3.47 " in deep
    data = json.loads(archspec_command("check", ROOT / "specs" / "densenet201.yaml", "--format", "json").stdout)
    assert len(data["specs"][0]["layers"]) == len(graph.nodes)
