"""Arithmetic, views of tensors and stacked branches become layers where they are exactly these, and else a report."""

from __future__ import annotations

import pytest
from helpers import ROOT

import archspec
from archspec import importers
from archspec.graph import build
from archspec.importers import Imported
from archspec.importers.proof import prove
from archspec.importers.views import whole
from archspec.language.source import Source

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.xdist_group("importers"),
    pytest.mark.usefixtures("in_process"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]
MODELS = ROOT / "tests" / "data" / "models" / "views.py"


def imported(name: str) -> Imported:
    """Return an imported network of views.py."""
    return importers.import_model(f"{MODELS}:{name}", input_shape=(3, 8, 12), name="net")


@pytest.mark.parametrize(
    ("name", "ops"),
    [
        ("Arithmetic", ["op: rescaling, scale: 0.17", "op: rescaling, scale: -1", "op: center_crop", "op: maps"]),
        ("Tokens", ["op: maps, height: 4", "op: class_token", "op: avg_pool2d, kernel_size: [1, 4]"]),
        ("Branches", ["op: softmax", "op: maps, height: 1"]),
    ],
)
def test_an_import_is_proven(name: str, ops: list[str]) -> None:
    """Outputs, gradients, MACs and parameters are the model's."""
    found = imported(name)

    assert [op for op in ops if op not in found.text] == []
    assert prove(found).failures == []
    assert archspec.check(found.graph).totals.params == found.parameters


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("Arithmetic", "scale: 0.17", "scale: 0.1700001"),
        ("Arithmetic", "op: zero_pad2d, padding: {top: 2,", "op: zero_pad2d, padding: {bottom: 2,"),
        (
            "Arithmetic",
            "padding: {top: 1, bottom: 2, left: 1, right: 1}",
            "padding: {top: 2, bottom: 1, left: 1, right: 1}",
        ),
        ("Tokens", "height: 4", "height: 6"),
    ],
)
def test_an_altered_import_is_rejected(name: str, old: str, new: str) -> None:
    """The proof of a spec in which one thing is otherwise fails, or it is no spec."""
    found = imported(name)
    assert old in found.text, found.text
    graph = build(Source.parse(found.text.replace(old, new), "altered.yaml"))

    assert prove(Imported(**{**vars(found), "graph": graph})).failures


@pytest.mark.parametrize(
    ("name", "why"),
    [("Reciprocal", ""), ("Rolled", ""), ("Transposed", "embedding is used as an activation")],
)
def test_what_no_layers_are_is_a_report(name: str, why: str) -> None:
    """No reciprocal, no roll, and no embedding that is read in another order."""
    with pytest.raises(importers.UnsupportedModelError) as error:
        imported(name)

    assert why in "; ".join(one.why for one in error.value.found)


def test_a_softmax_over_other_parts_of_channels_is_a_report() -> None:
    """Branches that are not blocks of channels."""
    with pytest.raises(importers.UnsupportedModelError):
        importers.import_model(f"{MODELS}:Branches", input_shape=(3, 8, 12), arguments={"shared": True})


def test_a_view_divides_and_joins_the_axes_of_its_source() -> None:
    """As a reshape, a permutation, a selection and a concatenation of parts do."""
    view = whole("x", (2, 12, 5))
    split = view.reshaped((2, 3, 4, 5))

    assert split
    assert split.shape == (2, 3, 4, 5)
    assert split.reshaped((2, 12, 5)) == view
    assert split.permuted((0, 2, 1, 3)).reshaped((2, 12, 5)) != view
    assert view.reshaped((2, 5, 12)) is None  # 12 does not divide into 5
    second = split.selected(1, 1)
    assert second
    assert second.start == (0, 4, 0)
    parts = view.split(1, (7, 5))
    assert parts
    assert parts[0].followed(1, parts[1]) == view
    assert parts[1].followed(1, parts[0]) is None
