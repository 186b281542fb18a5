"""The families of specs/, made small: PyTorch, Keras and NumPy agree on their structure, outputs and gradients."""

from __future__ import annotations

import pytest
from helpers import ROOT
from helpers.reduced import reduced

from archspec.verification import QUICK, Workers, verify

pytestmark = [pytest.mark.frameworks, pytest.mark.xdist_group("workers")]

# One network of each family, with the side of its images. `make verify-zoo` verifies all of them whole.
SIMILAR = (  # to others here
    "inception_v3",
    "resnext50",
    "preact_resnet50",
    "se_resnet50",
    "xception",
    "mobilenet_v1",
    "mnasnet1_0",
    "regnet_x_400mf",
    "zfnet",
    "efficientnet_v2_s",
    "unet",
    "efficientnet_b0",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "swin_t",
)
FAMILIES = {
    "vgg11_bn": 32,
    "nin": 67,
    "zfnet": 64,
    "googlenet": 32,
    "inception_v3": 75,
    "squeezenet1_1": 32,
    "resnet18": 32,
    "resnext50": 32,
    "preact_resnet50": 32,
    "se_resnet50": 32,
    "cifar_resnet20": 16,
    "densenet121": 32,
    "xception": 71,
    "mobilenet_v1": 32,
    "mobilenet_v2": 32,
    "shufflenet_v2": 32,
    "mnasnet1_0": 32,
    "regnet_x_400mf": 32,
    "regnet_y_400mf": 32,
    "mobilenet_v3_small": 32,
    "efficientnet_b0": 32,
    "efficientnet_v2_s": 32,
    "convnext_tiny": 32,
    "vit_b_16": 32,
    "mixer_b_16": 32,
    "swin_t": 64,
    "unet": 188,
}


@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param(*family, marks=pytest.mark.zoo if family[0] in SIMILAR else pytest.mark.slow)
        for family in FAMILIES.items()
    ],
)
def test_a_small_member_of_the_family_agrees(name: str, size: int, workers: Workers) -> None:
    """With a quarter of the channels and two of what is repeated, the blocks of the family agree."""
    multiple = {"multiple": 48} if name == "swin_t" else {}  # its numbers of heads have to divide them
    graph = reduced(ROOT / "specs" / f"{name}.yaml", size, **multiple)

    # the last maps are 1 x 1: of two values a batch norm would only have the sign of their difference
    evidence = verify(graph, workers, batch=8, checks=QUICK, dtypes=("float64",))

    assert evidence.agrees, (evidence.first, evidence.failures)
    assert {c.check for c in evidence.comparisons} == set(evidence.checks)
