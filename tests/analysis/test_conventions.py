"""Counting conventions: the integers that tools print, and counts by kind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, archspec_command, network

import archspec
from archspec import analysis
from archspec.analysis.conventions import CONVENTIONS, totals
from archspec.graph import Graph
from archspec.language.names import class_name
from archspec.targets import TARGETS, model_source


def published(name: str) -> Graph:
    return archspec.load(ROOT / "specs" / f"{name}.yaml")


def ungrouped_1000() -> Graph:
    """Return alexnet_ungrouped with the 1000 classes of its source, on which the tools were run."""
    text = (ROOT / "specs" / "alexnet_ungrouped.yaml").read_text().split("claims:")[0]
    return archspec.loads(text.replace("out_features: 21", "out_features: 1000"))


# The integers that the tools printed; `says` in archspec/analysis/conventions.py has their versions.
PRINTED = {
    "alexnet": {
        "mac": 724_406_816,
        "fvcore": 724_406_816,
        "thop": 724_406_816,
        "mac+bias": 725_066_088,
        "torchinfo": 725_066_088,
        "ptflops-aten": 725_066_088,
        "ptflops": 729_346_320,
        "calflops-macs": 724_406_816,
        "calflops": 1_452_565_384,
        "flop": 1_448_813_632,
        "FlopCounterMode": 1_448_813_632,
        "FlopCounterMode-training": 4_957_309_056,
        "training": 4_135_610_496,
        "netscope": 726_791_936,
        "convnet-burden": 727_362_344,
    },
    "alexnet_ungrouped": {
        "mac": 1_135_256_096,
        "fvcore": 1_135_256_096,
        "thop": 1_135_256_096,
        "torchinfo": 1_135_915_368,
        "ptflops-aten": 1_135_915_368,
        "ptflops": 1_140_195_600,
        "calflops": 2_274_263_944,
        "FlopCounterMode": 2_270_512_192,
        "FlopCounterMode-training": 6_600_706_176,
        "training": 6_600_706_176,
        "darknet": 2_153_268_288,  # 2 x (1,135,256,096 - 58,621,952): "2.153 BFLOPs" of alexnet.cfg
    },
    "alexnet_torchvision": {
        "mac": 714_188_480,
        "fvcore": 714_197_696,
        "thop": 714_206_912,
        "torchinfo": 714_682_664,
        "ptflops-aten": 714_682_664,
        "ptflops": 716_441_128,
        "calflops-macs": 714_188_480,
        "calflops": 1_429_741_184,
        "FlopCounterMode": 1_428_376_960,
        "FlopCounterMode-training": 4_144_577_280,
    },
    "caffenet": {"netscope": 724_973_056, "calflops": 1_451_098_856},
    "resnet50": {
        "fvcore": 4_111_512_576,
        "thop": 4_133_742_592,
        "torchinfo": 4_089_238_376,
        "ptflops": 4_132_436_968,
        "ptflops-aten": 4_089_185_256,
        "calflops": 8_211_108_352,
        "calflops-macs": 4_089_184_256,
        "FlopCounterMode": 8_178_368_512,
        "FlopCounterMode-training": 24_299_077_632,
    },
    "mobilenet_v2": {
        "fvcore": 314_193_216,
        "thop": 327_550_720,
        "torchinfo": 300_809_384,
        "ptflops": 320_362_728,
        "calflops": 614_967_488,
        "FlopCounterMode": 601_548_544,
        "FlopCounterMode-training": 12_279_700_992,  # depthwise kernels' gradients not divided by their groups
    },
    "densenet121": {
        "fvcore": 2_865_546_752,
        "thop": 2_897_058_304,
        "torchinfo": 2_834_246_312,
        "ptflops": 2_899_943_400,
        "calflops": 5_716_881_152,
        "FlopCounterMode": 5_668_323_328,
    },
    "googlenet": {
        "fvcore": 1_582_722_048,
        "thop": 1_582_723_072,
        "torchinfo": 1_585_899_032,
        "ptflops": 1_601_439_480,
        "calflops": 3_177_958_304,
        "FlopCounterMode": 3_165_343_744,
    },
    "efficientnet_b0": {
        "fvcore": 401_659_392,
        "thop": 415_145_024,
        "torchinfo": 385_867_108,
        "ptflops": 410_196_896,
        "calflops": 793_641_400,
        "FlopCounterMode": 771_629_504,
    },
    "mobilenet_v3_large": {
        "fvcore": 226_033_824,
        "thop": 234_838_456,
        "torchinfo": 216_621_520,
        "ptflops": 231_320_472,
        "calflops": 444_948_112,
        "FlopCounterMode": 433_179_520,
    },
    "vit_b_16": {
        "fvcore": 16_867_412_736,
        "thop": 11_286_254_592,
        "thop-params": 58_067_176,  # of 86,567,656
        "torchinfo": 173_384_680,
        "ptflops": 17_606_030_584,
        "ptflops-aten": 16_864_992_232,
        "calflops": 33_723_326_208,
        "calflops-macs": 16_848_500_736,
        "FlopCounterMode": 35_127_656_448,
        "FlopCounterMode-training": 105_151_758_336,
    },
    "swin_t": {
        "fvcore": 4_509_232_128,
        "thop": 2_963_197_440,
        "thop-params": 19_596_424,  # of 28,288,354
        "torchinfo": 8_037_185_512,
        "ptflops": 2_982_126_568,
        "ptflops-aten": 4_503_738_856,
        "calflops": 8_732_686_848,
        "calflops-macs": 4_350_425_088,
        "FlopCounterMode": 8_981_133_312,
        "FlopCounterMode-training": 26_914_498_560,
    },
    "convnext_tiny": {
        "thop-params": 28_566_184,  # of 28,589,128
        "fvcore": 4_470_437_376,
        "thop": 4_455_569_664,
        "torchinfo": 4_468_989_832,
        "ptflops": 4_486_202_344,
        "calflops": 8_947_983_360,
        "FlopCounterMode": 8_911_062_528,
    },
}


@pytest.mark.parametrize("name", PRINTED)
def test_a_convention_gives_the_integer_that_its_tool_printed(name: str) -> None:
    """The totals are equal to the integer, known double counts included, and are sums over the layers."""
    graph = ungrouped_1000() if name == "alexnet_ungrouped" else published(name)

    assert {convention: CONVENTIONS[convention].total(graph) for convention in PRINTED[name]} == PRINTED[name]
    assert totals(graph) == {convention: c.total(graph) for convention, c in CONVENTIONS.items()}
    assert totals(graph) == {c.name: sum(map(c.count, graph.nodes)) for c in CONVENTIONS.values()}


def test_every_convention_has_an_integer_of_its_tool() -> None:
    """PRINTED has every convention."""
    assert {convention for printed in PRINTED.values() for convention in printed} == set(CONVENTIONS)


@pytest.mark.frameworks
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("alexnet", marks=pytest.mark.slow),
        *(
            pytest.param(name, marks=pytest.mark.zoo)
            for name in (
                *("alexnet_ungrouped", "mobilenet_v2", "alexnet_torchvision", "resnet50", "densenet121", "googlenet"),
                *("efficientnet_b0", "mobilenet_v3_large", "convnext_tiny", "vit_b_16", "swin_t"),
            )
        ),
    ],
)
def test_a_convention_gives_the_integer_that_its_tool_prints(name: str, tmp_path: Path) -> None:
    """The installed tools print the totals of their conventions for the generated network."""
    pytest.importorskip("torch")
    graph = published(name)
    (tmp_path / "model.py").write_text(model_source(graph, TARGETS["torch"]))
    counters = ROOT / "tests" / "helpers" / "counters.py"
    arguments = [tmp_path / "model.py", class_name(graph.name), *map(str, graph.input.output_shape)]
    run = subprocess.run([sys.executable, counters, *arguments], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    printed = json.loads(run.stdout.splitlines()[-1])

    assert {"FlopCounterMode", "fvcore", "ptflops", "thop", "torchinfo"} <= set(printed)
    assert {tool: CONVENTIONS[tool].total(graph) for tool in printed} == printed


@pytest.mark.parametrize(
    ("layer", "printed"),
    [
        (
            "op: layer_norm",
            {"fvcore": 1800, "thop": 1440, "thop-params": 720, "torchinfo": 720, "ptflops": 360, "calflops": 1800},
        ),
        ("op: layer_norm, elementwise_affine: false", {"fvcore": 1440, "thop": 720, "ptflops": 360, "calflops": 1440}),
        ("op: gelu", {"ptflops": 720, "calflops": 360}),
        ("op: layer_scale", {"torchinfo": 360}),
    ],
)
def test_layers_of_vectors_count_as_the_tools_print(layer: str, printed: dict[str, int]) -> None:
    """Of 360 values; the tools know nn.LayerNorm, which reads vectors, and not its subclass for maps."""
    graph = network(f"{{name: flat, op: flatten}}\n{{name: one, {layer}}}", "{channels: 10, height: 6, width: 6}")
    others = {"mac", "mac+bias", "flop", "training", "netscope", "convnet-burden", "darknet"}
    found = {tool: c.total(graph) for tool, c in CONVENTIONS.items() if tool not in others}

    assert {tool: count for tool, count in found.items() if count} == printed


@pytest.mark.parametrize(
    ("layer", "printed"),
    [
        (
            "op: conv_transpose2d, out_channels: 6, kernel_size: 3, stride: 2, padding: 1, output_padding: 1",
            {"fvcore": 6480, "thop": 25920, "thop-params": 330, "torchinfo": 26400, "ptflops": 6960, "calflops": 12996},
        ),
        (
            "op: upsample, scale_factor: 2, mode: bilinear",
            {"fvcore": 1920, "thop": 5280, "ptflops": 960, "calflops": 120},
        ),
        ("op: upsample, scale_factor: 2", {"fvcore": 480, "thop": 480, "ptflops": 960, "calflops": 120}),
    ],
)
def test_enlarging_layers_count_as_the_tools_print(layer: str, printed: dict[str, int]) -> None:
    """Of 6 maps of 5 x 4, without the convolution of 720 MACs and 36 parameters that calflops needs to run at all."""
    graph = network(f"{{name: one, {layer}}}", "{channels: 6, height: 5, width: 4}")

    assert {tool: CONVENTIONS[tool].total(graph) for tool in printed} == printed


def test_counts_by_kind_of_a_small_network() -> None:
    """The counts of the forward and backward pass are those by hand."""
    graph = network(
        """
        {name: conv, op: conv2d, out_channels: 4, kernel_size: 3, groups: 2}
        {name: relu, op: relu}
        {name: norm, op: local_response_norm, size: 3}
        {name: pool, op: max_pool2d, kernel_size: 2}
        {name: flatten, op: flatten}
        {name: fc, op: linear, out_features: 5}
        {name: drop, op: dropout}
        {name: prob, op: softmax}
        """
    )
    # 6 x 9 x 7 to 4 x 7 x 5 = 140, whose pool gives 4 x 3 x 2 = 24 values
    forward = {node.name: node.op.counts(*node.input_shapes) for node in graph.nodes}
    assert forward == {
        "conv": {"mac": 140 * 3 * 9, "bias_add": 140},
        "relu": {"compare": 140},
        "norm": {"mul": 280, "add": 420, "pow": 140, "div": 140, "padded": 6 * 35},
        "pool": {"compare": 24 * 4, "stride_area": 24 * 4},
        "flatten": {},
        "fc": {"mac": 120, "bias_add": 5},
        "drop": {"random": 5},
        "prob": {"exp": 5, "add": 4, "div": 5},
    }
    backward = {node.name: analysis.backward_counts(node) for node in graph.nodes}
    assert backward == {
        "conv": {"mac": 3_780, "bias_add": 140},  # no gradient of the network's input
        "relu": {"compare": 140},
        "norm": {"pow": 140, "mul": 560, "div": 140, "add": 420},
        "pool": {"add": 24},
        "flatten": {},
        "fc": {"mac": 240, "bias_add": 5},  # of its weights and of its input
        "drop": {"mul": 5},
        "prob": {"mul": 10, "add": 9},
    }
    trainable = 4 * 3 * 9 + 4 + 24 * 5 + 5
    assert analysis.optimizer_counts(graph) == {"mul": 3 * trainable, "add": 3 * trainable}


def test_report_prints_conventions() -> None:
    """One convention layer by layer, all conventions side by side, and both as JSON."""
    one = archspec_command("report", "specs/alexnet.yaml", "--convention", "netscope")
    assert "726,791,936" in one.stdout
    assert "norm1" in one.stdout
    every = archspec_command("report", "specs/alexnet.yaml", "--conventions")
    for number in ("724,406,816", "725,066,088", "726,791,936", "727,362,344", "729,346,320", "1,452,565,384"):
        assert number in every.stdout
    data = json.loads(archspec_command("report", "specs/alexnet.yaml", "--conventions", "--format", "json").stdout)[
        "specs"
    ][0]
    assert {c["convention"]: c["total"] for c in data["conventions"]}["fvcore"] == 724_406_816
    assert data["counts"]["forward"]["mac"] == 724_406_816
    data = json.loads(
        archspec_command("report", "specs/alexnet.yaml", "--convention", "mac", "--format", "json").stdout
    )["specs"][0]
    assert (data["total"], data["layers"][0]) == (724_406_816, {"name": "conv1", "op": "conv2d", "count": 105_415_200})
    assert archspec_command("report", "specs/alexnet.yaml", "--convention", "stones").returncode == 2
