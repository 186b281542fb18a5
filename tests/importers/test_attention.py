"""Attention that a model writes out is one layer where it is torch.nn.MultiheadAttention, and a report elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
from helpers import ROOT

from archspec import importers
from archspec.importers import Imported
from archspec.importers.proof import prove

pytestmark = [pytest.mark.frameworks, pytest.mark.xdist_group("importers"), pytest.mark.usefixtures("in_process")]
MODELS = ROOT / "tests" / "data" / "models" / "attention.py"


def imported(core: str, **arguments: Any) -> Imported:
    """Return an imported network of attention.py."""
    return importers.import_model(
        f"{MODELS}:net", input_shape=(3, 12, 8), arguments={"core": core, **arguments}, name="net"
    )


@pytest.mark.parametrize(
    ("core", "arguments"),
    [
        ("fused", {}),
        ("fused", {"order": "chunks"}),
        ("fused", {"qkv_bias": False, "proj_bias": False}),
        ("scaled_queries", {}),
        ("scaled_scores", {}),
        ("batches", {}),
        ("two_products", {}),
    ],
)
def test_multi_head_attention_is_recognized(core: str, arguments: dict[str, Any]) -> None:
    """It is one layer, with the place of the module in the code, and proven."""
    found = imported(core, **arguments)
    bias = "" if arguments.get("qkv_bias", True) else ", bias: false"

    assert f"{{name: attention, op: multihead_attention, num_heads: 3{bias}}}" in found.text
    assert prove(found).failures == []


@pytest.mark.parametrize(
    ("core", "arguments"),
    [
        ("values_first", {}),
        ("fused", {"order": "heads"}),
        ("fused", {"qkv_bias": False}),
        ("fused", {"proj_bias": False}),
    ],
)
def test_attention_with_other_projections_is_read_in_parts(core: str, arguments: dict[str, Any]) -> None:
    """Of one linear layer, splits, dot_product_attention and another linear layer; and proven."""
    found = imported(core, **arguments)

    assert "op: dot_product_attention, num_heads: 3, from: [" in found.text
    assert prove(found).failures == []


@pytest.mark.parametrize(
    ("core", "arguments", "why"),
    [
        ("other_scale", {}, "a scale of 0.25, not 0.5"),
        ("without_scale", {}, "a scale of 1, not 0.5"),
        ("causal", {}, "a mask or a dropout"),
        ("masked", {}, ""),
        ("without_softmax", {}, "without a softmax"),
        ("of_queries", {}, ""),
        ("read_twice", {}, ""),
        ("fused", {"merge": "features"}, "heads of attention as an axis"),
    ],
)
def test_other_attention_is_a_report(core: str, arguments: dict[str, Any], why: str) -> None:
    """It says in what the attention differs, where that is known."""
    with pytest.raises(importers.UnsupportedModelError) as error:
        imported(core, **arguments)

    assert why in "; ".join(one.why for one in error.value.found)
