"""AlexNet's numbers, from the paper and from other tools."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from math import prod

import pytest
from helpers import ROOT, network

import archspec
from archspec import analysis

ALEXNET = ROOT / "specs" / "alexnet.yaml"


def test_totals_are_those_of_other_tools() -> None:
    """The MACs of FlopCounterMode / 2, fvcore and thop for the grouped network, and the parameters of PyTorch."""
    total = analysis.totals(archspec.load(ALEXNET))

    assert total.params == 60_965_224
    assert total.macs == 724_406_816
    assert total.flops == 1_448_813_632
    assert total.neurons == 659_272  # 290,400 + 186,624 + 2 * 64,896 + 43,264 + 2 * 4,096 + 1,000
    assert total.param_bytes == 243_860_896  # 4 * 60,965,224
    # conv, relu and norm 3 * (290,400 + 186,624), pools 69,984 + 43,264 + 9,216, conv and relu 2 * (2 * 64,896 +
    # 43,264), hidden layers 2 * 3 * 4,096, logits 1,000: 1,925,224 values of 4 bytes
    assert total.activation_bytes == 7_700_896


def test_layers_are_those_of_the_paper() -> None:
    """Feature maps, weights, biases and MACs of each layer in Krizhevsky et al. (2012), section 3.5, and Caffe."""
    layers = {node.name: node for node in archspec.load(ALEXNET).nodes}
    rows = {
        name: (node.output_shape, prod(node.trainable["weight"]), prod(node.trainable["bias"]), node.macs)
        for name, node in layers.items()
        if node.trainable
    }

    assert rows == {
        "conv1": ((96, 55, 55), 34_848, 96, 105_415_200),
        "conv2": ((256, 27, 27), 307_200, 256, 223_948_800),
        "conv3": ((384, 13, 13), 884_736, 384, 149_520_384),
        "conv4": ((384, 13, 13), 663_552, 384, 112_140_288),
        "conv5": ((256, 13, 13), 442_368, 256, 74_760_192),
        "fc6": ((4096,), 37_748_736, 4_096, 37_748_736),
        "fc7": ((4096,), 16_777_216, 4_096, 16_777_216),
        "fc8": ((1000,), 4_096_000, 1_000, 4_096_000),
    }
    maps = ["conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5"]
    assert [layers[name].output_shape[1] for name in maps] == [55, 27, 27, 13, 13, 13, 13, 6]


def test_initializers_are_those_of_section_5() -> None:
    """Weights are normal(0, 0.01); biases are 1 in conv2, conv4, conv5 and the hidden layers, else 0."""
    graph = archspec.load(ALEXNET)
    nodes = [node for node in graph.nodes if node.trainable]
    weights = [graph.initializer(node, "weight") for node in nodes]
    biases = {node.name: graph.initializer(node, "bias").rule for node in nodes}

    assert {(rule.rule, rule.std) for rule in weights} == {("normal", 0.01)}  # type: ignore[union-attr]
    ones = {name for name, rule in biases.items() if rule == "ones"}
    assert ones == {"conv2", "conv4", "conv5", "fc6", "fc7"}
    assert {biases[name] for name in set(biases) - ones} == {"zeros"}


def test_a_graph_can_branch() -> None:
    """`from` names the inputs of a layer, a layer can have several readers, and the last layer is the output."""
    graph = network(
        """
        {name: left, op: conv2d, out_channels: 4, kernel_size: 1}
        {name: right, op: conv2d, out_channels: 5, kernel_size: 1, from: input}
        {name: both, op: concat, from: [right, left, right]}
        """
    )

    assert [node.name for node in graph.output.inputs] == ["right", "left", "right"]
    assert graph.output.output_shape == (14, 9, 7)
    with pytest.raises(FrozenInstanceError):
        graph.nodes = ()  # type: ignore[misc]
