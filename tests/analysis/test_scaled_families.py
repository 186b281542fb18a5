"""Networks of a family are whole files; they differ in what the paper scales, and in nothing else."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
from helpers import ROOT

from archspec.language.source import Source

# Tan and Le (2019), equation 3, as in the authors' code: width, depth, dropout; the sizes of the images are torchvision's.
EFFICIENTNETS = {
    1: (1.0, 1.1, 0.2, 240),
    2: (1.1, 1.2, 0.3, 288),
    3: (1.2, 1.4, 0.3, 300),
    4: (1.4, 1.8, 0.4, 380),
    5: (1.6, 2.2, 0.4, 456),
    6: (1.8, 2.6, 0.5, 528),
    7: (2.0, 3.1, 0.5, 600),
}
# Liu et al. (2022), section 3 of the paper and table 5: channels, blocks, rate of stochastic depth.
CONVNEXTS = {
    "small": ((96, 192, 384, 768), (3, 3, 27, 3), 0.4),
    "base": ((128, 256, 512, 1024), (3, 3, 27, 3), 0.5),
}
# He et al. (2016), table 1: blocks of the four stages, and the network that they scale.
RESNETS = {
    "resnet34": ("resnet18", (3, 4, 6, 3)),
    "resnet101": ("resnet50", (3, 4, 23, 3)),
    "resnet152": ("resnet50", (3, 8, 36, 3)),
}


def network(name: str) -> dict[str, Any]:
    """Return the data of a spec without its name, source and claims."""
    data = Source.read(ROOT / "specs" / f"{name}.yaml").data
    return {key: value for key, value in copy.deepcopy(data).items() if key not in ("name", "source", "claims")}


def rounded(channels: float) -> int:
    """Return the multiple of 8 nearest to a number of channels, and at least nine tenths of it (Tan and Le's rule)."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def scaled_drops(rows: list[dict[str, Any]], rate: float, last: int) -> None:
    """Write the rate of stochastic depth of each stage: it grows with the number of the block."""
    before = 0
    for row in rows:
        key = "d" if "d" in row else "drop"  # of EfficientNet, and of ConvNeXt
        if key in row:
            row[key] = f"{rate} * ({before} + index) / {last}" if before else f"{rate} * index / {last}"
            before += row["repeat"]


@pytest.mark.parametrize("number", EFFICIENTNETS)
def test_an_efficientnet_is_b0_scaled(number: int) -> None:
    """Channels by the width, rounded to a multiple of 8; blocks by the depth, rounded up; B5 on has other norms."""
    width, depth, dropout, size = EFFICIENTNETS[number]
    expected = network("efficientnet_b0")
    expected["input"] |= {"height": size, "width": size}
    for row in expected["layers"]:
        if "c" in row:
            row["c"] = 4 * rounded(320 * width) if row["name"] == "conv2" else rounded(row["c"] * width)
        if "repeat" in row:
            row["repeat"] = math.ceil(row["repeat"] * depth)
        if row["op"] == "dropout":
            row["p"] = dropout
    scaled_drops(expected["layers"], 0.2, sum(row.get("repeat", 0) for row in expected["layers"]))
    if number >= 5:
        (norm,) = (row for row in expected["blocks"]["conv"]["layers"] if row["op"] == "batch_norm2d")
        norm |= {"eps": 1e-3, "momentum": 0.01}

    assert network(f"efficientnet_b{number}") == expected


@pytest.mark.parametrize("size", CONVNEXTS)
def test_a_convnext_is_the_tiny_one_scaled(size: str) -> None:
    """Channels and numbers of blocks of the four stages, and the rate of stochastic depth."""
    channels, blocks, rate = CONVNEXTS[size]
    expected = network("convnext_tiny")
    rows = expected["layers"]
    rows[0]["out_channels"] = channels[0]
    for row, number in zip([row for row in rows if row["op"] == "downsample"], channels[1:], strict=True):
        row["channels"] = number
    for row, number in zip([row for row in rows if row["op"] == "block"], blocks, strict=True):
        row["repeat"] = number
    scaled_drops(rows, rate, sum(blocks) - 1)

    assert network(f"convnext_{size}") == expected


@pytest.mark.parametrize("name", RESNETS)
def test_a_resnet_is_a_smaller_one_with_more_blocks(name: str) -> None:
    """The numbers of blocks in the four stages."""
    smaller, blocks = RESNETS[name]
    expected = network(smaller)
    for row, number in zip([row for row in expected["layers"] if "repeat" in row], blocks, strict=True):
        row["repeat"] = number

    assert network(name) == expected


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_a_vgg_with_norms_is_the_same_with_norms(depth: int) -> None:
    """A batch normalization after each convolution, and nothing else in the layers."""
    plain, normed = network(f"vgg{depth}"), network(f"vgg{depth}_bn")
    rows = [row for row in flat(normed) if row["op"] != "batch_norm2d"]

    assert flat(plain) == rows
    assert sum(row["op"] == "batch_norm2d" for row in flat(normed)) == depth - 3


def flat(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the layers of a network by their ops and attributes, without names."""
    import archspec

    graph = archspec.graph.build(Source("spec", "", {"name": "net", **data}))
    return [node.op.model_dump(exclude={"name", "from_", "allow", "init"}) for node in graph.nodes]
