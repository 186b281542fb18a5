"""Published networks: numbers from outside, and the same network in both frameworks."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ALEXNETS, FRAMEWORKS, ROOT, network

import archspec
from archspec import analysis
from archspec.graph import Graph
from archspec.targets import TARGETS, model_source
from archspec.verification import QUICK, Workers
from archspec.verification.canonical_weights import for_forward_check
from archspec.verification.run import verify


def published(name: str) -> Graph:
    return archspec.load(ROOT / "specs" / f"{name}.yaml")


def ungrouped_1000() -> Graph:
    """Return alexnet_ungrouped with the 1000 classes of its source, on which the tools were run."""
    text = (ROOT / "specs" / "alexnet_ungrouped.yaml").read_text().split("claims:")[0]
    return archspec.loads(text.replace("out_features: 21", "out_features: 1000"))


# Parameters, MACs and neurons of each variant, built and run in its own framework: PyTorch 2.13, Keras 3.15, MXNet 1.9.1,
# torchvision 0.29.1, and Caffe's prototxts in PyTorch with Caffe's semantics, checked against OpenCV reading them.
TOTALS = {
    "alexnet": (60_965_224, 724_406_816, 659_272),
    "alexnet_towers": (60_965_224, 724_406_816, 659_272),
    "alexnet_2012_code": (60_965_224, 724_406_816, 659_272),
    "alexnet_caffe": (60_965_224, 724_406_816, 659_272),
    "caffenet": (60_965_224, 724_406_816, 659_272),
    "alexnet_torchvision": (61_100_840, 714_188_480, 494_184),
    "alexnet_d2l": (46_764_746, 938_146_176, 608_650),
    "alexnet_gluon": (50_844_008, 1_009_945_728, 609_640),
    "alexnet_keras_mnist": (24_744_650, 245_429_760, 163_594),
    "alexnet_ungrouped": (58_367_381, 1_131_246_112, 658_293),
    "lenet": (61_706, 416_520, 6_518),
}


@pytest.mark.parametrize("name", TOTALS)
def test_totals_are_those_of_the_variant_in_its_own_framework(name: str) -> None:
    """Parameters, MACs and neurons are those of the network in its own framework."""
    total = analysis.totals(published(name))

    assert (total.params, total.macs, total.neurons) == TOTALS[name]


def test_every_published_network_has_totals() -> None:
    """TOTALS has every AlexNet but alexnet_tiny, which is archspec's own."""
    assert {path.stem for path in ALEXNETS} == set(TOTALS) | {"alexnet_tiny"}


def test_the_ungrouped_network_with_1000_classes_is_62_million() -> None:
    """Without groups there are 62,378,344 parameters and 1,135,256,096 MACs."""
    total = analysis.totals(ungrouped_1000())

    assert (total.params, total.macs) == (62_378_344, 1_135_256_096)


@pytest.mark.parametrize(
    ("name", "layers", "sizes"),
    [
        ("alexnet_2012_code", "conv1 pool1 conv2 pool2 conv3 conv5 pool5", [55, 27, 27, 13, 13, 13, 6]),
        ("alexnet_d2l", "conv1 pool1 conv2 pool2 conv3 conv5 pool5", [54, 26, 26, 12, 12, 12, 5]),
        ("alexnet_gluon", "conv1 pool1 conv2 pool2 conv3 conv5 pool5", [54, 26, 26, 12, 12, 12, 5]),
        ("alexnet_keras_mnist", "conv1 pool1 conv2 pool2 conv3 conv5 pool5", [28, 13, 13, 6, 6, 6, 2]),
        ("alexnet_torchvision", "conv1 pool1 conv2 pool2 conv3 conv5 pool5 avgpool", [55, 27, 27, 13, 13, 13, 6, 6]),
        ("caffenet", "norm1 norm2", [27, 13]),
        ("lenet", "conv1 pool1 conv2 pool2", [28, 14, 10, 5]),
    ],
)
def test_feature_maps_have_the_sizes_of_the_frameworks(name: str, layers: str, sizes: list[int]) -> None:
    """Heights layer by layer, as the frameworks print them."""
    shapes = {node.name: node.output_shape for node in published(name).nodes}

    assert [shapes[layer][1] for layer in layers.split()] == sizes


# Of their full size, and made of the same layers as others here.
SIMILAR = {path.stem for path in ALEXNETS} - {"alexnet_keras_mnist", "alexnet_tiny", "lenet"}


@pytest.mark.frameworks
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=pytest.mark.zoo if path.stem in SIMILAR else pytest.mark.slow)
        for path in ALEXNETS
        if path.stem != "alexnet"
    ],
)
def test_every_published_network_agrees_in_both_targets(path: Path, workers: Workers) -> None:
    """The committed files of every spec agree layer by layer."""
    graph = archspec.load(path)
    evidence = verify(graph, workers, generated=ROOT / "generated", batch=1, checks=QUICK[:2], dtypes=("float64",))

    assert evidence.agrees, evidence.first
    assert evidence.stale == ()


@pytest.mark.slow
@pytest.mark.frameworks
def test_the_towers_are_alexnet_with_lrn_in_two_groups(workers: Workers, tmp_path: Path) -> None:
    """With the same weights, split in two, figure 2's towers have the logits of the grouped network with LRN in groups."""
    text = (ROOT / "specs" / "alexnet.yaml").read_text().replace("k: 2}", "k: 2, groups: 2}")
    grouped, towers = archspec.loads(text), published("alexnet_towers")
    weights = for_forward_check(grouped, 5)
    cut = {}
    for name, value in weights.items():
        layer, param = name.split(".")
        if layer == "fc8":
            cut[name] = value
        else:
            cut[f"{layer}a.{param}"], cut[f"{layer}b.{param}"] = np.split(value, 2)
    assert set(cut) == set(for_forward_check(towers, 0))

    outputs = [
        verify(graph, workers, seed=5, weights=w, checks=("forward",), dtypes=("float32",)).outputs
        for graph, w in ((grouped, weights), (towers, cut))
    ]

    for target in ("torch", "keras"):
        a, b = (output[target] for output in outputs)
        assert abs(a - b).max() <= 1e-5 * abs(a).max()
    # LRN across both towers differs at channels 46 to 49
    across = verify(
        published("alexnet"), workers, seed=5, weights=weights, checks=("forward",), dtypes=("float32",)
    ).outputs["torch"]
    assert abs(across - outputs[0]["torch"]).max() > 1e-3 * abs(across).max()


@pytest.mark.slow
@pytest.mark.frameworks
def test_multipliers_in_each_framework(tmp_path: Path) -> None:
    """Biases have twice the rate and no decay: PyTorch in two parameter groups, Keras by variable."""
    layers = "{name: conv, op: conv2d, out_channels: 4, kernel_size: 3}"
    head = "multipliers: {weight: {lr: 1, decay: 1}, bias: {lr: 2, decay: 0}}"
    graph = network(layers, head=head)
    for target in FRAMEWORKS:
        (tmp_path / f"{target}_model.py").write_text(model_source(graph, TARGETS[target]))
    scripts = {
        "torch": """
import torch, torch_model
groups = torch.optim.SGD(torch_model.Net().parameter_groups(0.01, 5e-4), momentum=0.9).param_groups
print([(len(g["params"]), g["params"][0].ndim, g["lr"], g["weight_decay"]) for g in groups])
""",
        "keras": """
import keras_model
model = keras_model.Net()
print([(v.name, *m) for v, m in zip(model.trainable_variables, keras_model.multipliers(model))])
""",
    }
    printed = {}
    for target, script in scripts.items():
        if importlib.util.find_spec(target) is None:
            pytest.skip(f"{target} is not installed")
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
        printed[target] = run.stdout.strip() or run.stderr

    assert printed == {
        "torch": "[(1, 4, 0.01, 0.0005), (1, 1, 0.02, 0.0)]",
        "keras": "[('kernel', 1.0, 1.0), ('bias', 2.0, 0.0)]",
    }
