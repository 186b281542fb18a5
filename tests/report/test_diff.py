"""What changed between two versions of a network: which layers are paired, and what is said of a pair."""

from __future__ import annotations

import random

import pytest
from helpers import ROOT, network

import archspec
from archspec.graph import Graph
from archspec.report import diff
from archspec.report.diff import SpecDiff, align_versions, diff_lines, layer_changes

CONV = "{{name: {}, op: conv2d, out_channels: {}, kernel_size: 3, padding: 1}}"


def net(*layers: tuple[str, int] | str) -> Graph:
    """Return a network of convolutions, each a name and its channels, and of other layers as they are written."""
    return network("\n".join(one if isinstance(one, str) else CONV.format(*one) for one in layers))


def kinds(a: Graph, b: Graph) -> list[str]:
    """Return the changes as `kind before after differs`."""
    found = []
    for change in layer_changes(a, b):
        names = [node.name if node else "-" for node in (change.before, change.after)]
        found.append(" ".join([change.kind, *names, *change.differs]))
    return found


def test_a_renamed_layer_is_the_same_layer() -> None:
    """Even where all layers are alike."""
    assert kinds(net(("a", 8), ("b", 8), ("c", 8)), net(("a", 8), ("x", 8), ("c", 8))) == ["renamed b x name"]


def test_an_added_layer_does_not_shift_those_of_its_kind() -> None:
    """The names of the others have stayed, though every layer has the same op and attributes."""
    before, after = net(("a", 8), ("b", 8), ("c", 8)), net(("a", 8), ("new", 8), ("b", 8), ("c", 8))

    assert kinds(before, after) == ["added - new"]
    assert kinds(after, before) == ["removed new -"]


def test_layers_whose_numbers_were_shifted_are_found_by_their_attributes() -> None:
    """A layer at the front gives every name to another layer; each is renamed, and none is called changed."""
    relu = "{{name: r{}, op: relu}}"
    before = net(("l1", 8), relu.format(1), ("l2", 16), relu.format(2), ("l3", 32))
    after = net(("l1", 4), relu.format(1), ("l2", 8), relu.format(2), ("l3", 16), relu.format(3), ("l4", 32))

    found = kinds(before, after)

    assert found[:3] == ["added - l1", "added - r1", "changed l1 l2 name params macs"]  # it reads 4 channels, not 6
    assert [one.split()[0] for one in found[3:]] == ["renamed"] * 4


def test_a_layer_with_another_op_keeps_its_name() -> None:
    """A ReLU that became a SiLU is changed, not removed and added."""
    relu, silu = "{name: act, op: relu}", "{name: act, op: silu}"
    assert kinds(net(("a", 8), relu, ("b", 8)), net(("a", 8), silu, ("b", 8))) == ["changed act act op"]


def test_a_changed_attribute_shows_what_follows_from_it() -> None:
    """More channels: another output and other parameters, and in the next layer other parameters."""
    assert kinds(net(("a", 8), ("b", 8)), net(("a", 9), ("b", 8))) == [
        "changed a a attributes output params macs",
        "changed b b params macs",
    ]


def test_a_layer_that_reads_another_is_changed() -> None:
    """A skip connection that was rerouted; not a layer that reads what was put before it."""
    skip = "{{name: sum, op: add, from: [c, {}]}}"
    before, after = (net(("a", 8), ("b", 8), ("c", 8), skip.format(read)) for read in "ab")

    assert kinds(before, after) == ["changed sum sum reads"]
    longer = net(("a", 8), "{name: r, op: relu}", ("b", 8), ("c", 8), "{name: sum, op: add, from: [c, r]}")
    assert kinds(before, longer) == ["added - r"]
    assert kinds(longer, before) == ["removed r -"]


def test_another_initializer_is_a_change() -> None:
    """Of the layer itself, or of all by the network's own."""
    a, b = net(("a", 8)), network(CONV.format("a", 8), head="init: {weight: xavier_normal}")
    assert kinds(a, b) == ["changed a a init"]


@pytest.mark.parametrize("seed", range(30))
def test_random_edits_are_found(seed: int) -> None:
    """Layers with channels of their own are paired as they were edited: renamed, added and removed ones."""
    draw = random.Random(seed)
    old = [(f"n{i}", 10 + i) for i in range(draw.randint(1, 12))]
    edited: list[tuple[tuple[str, int] | None, tuple[str, int] | None]] = []
    for i, layer in enumerate(old):
        if draw.random() < 0.25:
            edited.append((None, (f"new{i}", 100 + i)))
        kept = draw.random()
        edited.append((layer, None if kept < 0.25 else (f"other{i}", layer[1]) if kept < 0.5 else layer))
    new = [b for _, b in edited if b]
    if not new:
        return
    expected = {(a and a[0], b and b[0]) for a, b in edited}

    found = {(a and a.name, b and b.name) for a, b in align_versions(net(*old), net(*new))}

    kept = {pair for pair in expected if all(pair)}
    assert kept <= found
    # one that was removed may be paired with one that was added at its place, as a change
    assert {name for pair in found for name in pair if name} == {name for pair in expected for name in pair if name}


def test_many_layers_are_aligned_by_position(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more pairs than MAX_CELLS would be weighed: by op alone, so that one that was added first is found last."""
    before = [(f"a{i}", 8) for i in range(20)]
    after = [("first", 9), *((f"b{i}", 8) for i in range(20))]

    weighed = [one.split()[0] for one in kinds(net(*before), net(*after))]
    monkeypatch.setattr(diff, "MAX_CELLS", 10)
    by_position = [one.split()[0] for one in kinds(net(*before), net(*after))]

    assert weighed == ["added", "changed"] + ["renamed"] * 19
    assert by_position == ["changed"] * 2 + ["renamed"] * 18 + ["added"]


def test_layers_that_did_not_change_need_no_weighing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that was added to many: the others stay where they are, whatever MAX_CELLS is."""
    monkeypatch.setattr(diff, "MAX_CELLS", 2)
    layers = [(f"a{i}", 8 + i) for i in range(20)]

    found = kinds(net(*layers), net(*layers[:10], ("new", 8), *layers[10:]))

    assert found == ["added - new", "changed a10 a10 params macs"]


def test_layers_of_blocks_that_changed_alike_are_one_row() -> None:
    """ResNet-18 has 2 blocks in each of 4 stages: one row a stage, with the number of its layers."""
    text = (ROOT / "specs" / "resnet18.yaml").read_text()
    before, after = (
        archspec.loads(text),
        archspec.loads(text.replace("{name: relu2, op: relu}", "{name: relu2, op: mish}")),
    )

    lines = list(diff_lines([SpecDiff("a.yaml", "a.yaml", before, after)], "HEAD", ""))

    rows = [line.split()[1:4] for line in lines if line.startswith("!")]
    assert rows == [[f"layer{i}.*.relu2", "(2", "layers)"] for i in (1, 2, 3, 4)]
    assert len(layer_changes(before, after)) == 8


def test_the_table_has_what_the_layers_gained() -> None:
    """The parameters and multiply-accumulates of a layer, and the totals, from 6 channels of 9 x 7."""
    before, after = net(("a", 8)), net(("a", 9), ("b", 2))
    lines = list(diff_lines([SpecDiff("a.yaml", "a.yaml", before, after)], "main", "HEAD"))

    a, b = (next(line.split() for line in lines if line.startswith(mark)) for mark in "!+")
    assert lines[0] == "1 spec changed from main to HEAD"
    assert "+55" in a  # a kernel of 6 x 9 and a bias
    assert f"+{6 * 9 * 63:,}" in a
    assert "+164" in b  # 2 x (9 x 9 + 1)
    assert next(line.split() for line in lines if line.startswith("parameters")) == [
        "parameters",
        "440",
        "659",
        "+49.8%",
    ]


def test_a_table_has_a_hundred_rows() -> None:
    """More are counted."""
    before, after = net(*((f"a{i}", 8) for i in range(120))), net(*((f"b{i}", 8) for i in range(120)))
    lines = list(diff_lines([SpecDiff("a.yaml", "a.yaml", before, after)], "HEAD", ""))

    assert sum(line.startswith(">") for line in lines) == 100
    assert any("and 20 more" in line for line in lines)
