"""The arithmetic behind shapes, parameters and MACs: what is shown is what was computed, for every op."""

from __future__ import annotations

from math import prod
from pathlib import Path

import pytest
from helpers import OP_SPECS, SPECS, network

import archspec
from archspec.report.arithmetic import MAX_LENGTH, arithmetic

# Attributes that are no integers, or not only: split counts its sections or lists them.
WITHOUT = {("split", "channels")}


NETWORKS = [path for path in SPECS if path.stem in ("alexnet", "efficientnet_b0", "inception_v3", "swin_t", "vit_b_16")]


@pytest.mark.parametrize("path", [*NETWORKS, *OP_SPECS], ids=lambda path: path.stem)
def test_formulas_have_the_values_of_the_graph(path: Path) -> None:
    """A formula in numbers, evaluated, is the size, the number of parameters or the MACs of the graph."""
    for node in archspec.load(path).nodes:
        formulas = [f for f in arithmetic(node) if not f.subject.startswith("padding, ")]
        expected = [*node.output_shape, *(prod(param.shape) for param in node.params.values())]
        assert [f.value for f in formulas] == expected + ([node.macs] if node.macs else [])
        for formula in formulas:
            assert formula.names or (node.op.op, formula.subject) in WITHOUT, formula
            assert not formula.names or eval(formula.numbers) == formula.value, formula


def test_the_formulas_of_a_convolution() -> None:
    """Padding, groups and dilation are in them; the size of the output is computed once."""
    graph = network("{name: c, op: conv2d, out_channels: 4, kernel_size: [3, 2], padding: 1, stride: 2, groups: 2}")
    lines = [" = ".join(map(str, formula)) for formula in arithmetic(graph.nodes[0])]

    assert lines == [
        "channels = out_channels = 4 = 4",
        "height = (height + top + bottom - dilation * (kernel_size - 1) - 1) // stride + 1 = (9 + 1 + 1 - 1 * (3 - 1) - 1) // 2 + 1 = 5",
        "width = (width + left + right - dilation * (kernel_size - 1) - 1) // stride + 1 = (7 + 1 + 1 - 1 * (2 - 1) - 1) // 2 + 1 = 4",
        "weight = out_channels * (channels // groups) * kernel_size * kernel_size = 4 * (6 // 2) * 3 * 2 = 72",
        "bias = out_channels = 4 = 4",
        "MACs = out_channels * output_height * output_width * (channels // groups) * kernel_size * kernel_size = 4 * 5 * 4 * (6 // 2) * 3 * 2 = 1440",
    ]


def test_the_padding_of_same_has_its_own_formulas() -> None:
    """`same` is computed from the input: two rows below and none above, for a stride of 2 and 4 rows."""
    graph = network("{name: c, op: conv2d, out_channels: 1, kernel_size: 3, padding: same}")
    found = {formula.subject: formula for formula in arithmetic(graph.nodes[0])}

    assert [found[f"padding, {side}"].value for side in ("top", "bottom", "left", "right")] == [1, 1, 1, 1]
    assert eval(found["padding, bottom"].numbers) == 1


def test_a_formula_that_is_too_long_is_left_out() -> None:
    """The sum of the channels of many layers has a value, and no formula."""
    layers = "\n".join(f"{{name: r{i}, op: relu, from: input}}" for i in range(60))
    names = ", ".join(f"r{i}" for i in range(60))
    graph = network(f"{layers}\n{{name: all, op: concat, from: [{names}]}}")
    channels = arithmetic(graph.output)[0]

    assert (channels.names, channels.numbers, channels.value) == ("", "", 360)
    assert all(len(f.names) <= MAX_LENGTH for f in arithmetic(graph.output))
