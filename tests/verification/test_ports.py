"""Models that somebody else wrote beside a spec: matched whatever their names are, and altered ones rejected."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, archspec_command

import archspec
from archspec.graph import Graph

pytestmark = [pytest.mark.frameworks, pytest.mark.xdist_group("ports")]
PORTS = ROOT / "tests" / "data" / "ports"
# By class of torch_ports.py: the first layer that parts, and a part of what is said of it.
ALTERED = {
    "Momentum": ("", "dropouts: rates [0.5] in the spec, [0.4] in the model"),
    "Alpha": ("norm1", "alpha 0.1 -> 0.5"),
    "NoActivation": ("relu1", "removed"),
    "branches_swapped": ("both", "permutation"),
    "Biased": ("", "stem.0 has a bias, which conv1 has not"),
    "Narrow": ("conv2", "conv2 (weight 16 x 16 x 3 x 3, bias 16) is no module of the model; merge comes nearest"),
    "Unpadded": ("conv1", "mat1 and mat2 shapes cannot be multiplied (2x784 and 1024x12), at torch_ports.py:"),
}


def compared(names: list[str]) -> dict[str, Any]:
    """Return the comparisons of models with the spec, by name."""
    from archspec.verification import Workers
    from archspec.verification.ports import compare_ports

    graph = archspec.load(PORTS / "port.yaml")
    assert isinstance(graph, Graph)
    with Workers(("torch",)) as workers:
        evidence = compare_ports(graph, names, workers, sensitive=False)
    return {port.source.rpartition(":")[2]: port for port in evidence.ports}


QUICK = ("Net", "Alpha")


def models(names: Iterable[str]) -> list[Any]:
    """Return models of torch_ports.py; each takes a process that imports PyTorch, and most are slow."""
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]


@pytest.fixture(scope="module")
def torch_ports(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The models of torch_ports.py that the selected tests are of."""
    pytest.importorskip("torch")
    selected = " ".join(item.nodeid for item in request.session.items if item.path == request.path)
    selected = selected.replace("inverted_momentum", "[Momentum]")  # a test of that one
    names = [name for name in ("Net", "ChannelsLast", *ALTERED) if f"[{name}]" in selected]
    return compared([f"{PORTS / 'torch_ports.py'}:{name}" for name in names])


@pytest.mark.parametrize("name", models(["Net", "ChannelsLast"]))
def test_a_port_with_other_names_is_the_network(torch_ports: dict[str, Any], name: str) -> None:
    """Modules are matched by what they read: the two convolutions of a branch stand in the other order here."""
    port = torch_ports[name]

    assert port.failures == []
    assert port.renamed == {
        "conv1": "stem.0",
        "bn1": "stem.1",
        "left": "a",
        "right": "b",
        "conv2": "merge",
        "fc1": "head.0",
        "fc2": "head.1",
    }
    # 8*3*9 + 2*8 + (8*8 + 8) + (8*9 + 8) + (16*16*9 + 16) + (1024*12 + 12) + (12*5 + 5)
    assert port.parameters == 216 + 16 + 72 + 80 + 2320 + 12300 + 65
    assert set(port.differences) == {
        *(f"{what}, {mode}" for what in ("outputs", "gradients") for mode in ("evaluation", "training")),
        "running statistics",
    }
    assert all(value < 1e-13 for value, _ in port.differences.values())
    assert port.assigned["head.0"]["flattened"] is (name == "ChannelsLast")


@pytest.mark.parametrize("name", models(ALTERED))
def test_an_altered_port_is_rejected_at_its_layer(torch_ports: dict[str, Any], name: str) -> None:
    """The first layer that parts is named, and the attribute that reproduces what the model computes."""
    port, (layer, words) = torch_ports[name], ALTERED[name]

    assert not port.agrees
    assert (port.first.layer if port.first else "") == layer
    said = " ".join((*port.failures, port.first.looks_like, port.first.reproduced_by) if port.first else port.failures)
    assert words in said


@pytest.mark.slow
def test_only_running_statistics_show_an_inverted_momentum(torch_ports: dict[str, Any]) -> None:
    """Outputs and gradients agree: a comparison of outputs would have passed it."""
    differences = torch_ports["Momentum"].differences

    assert [what for what, (value, bound) in differences.items() if value > bound] == ["running statistics"]


@pytest.mark.slow
def test_keras_models_are_compared_with_a_spec() -> None:
    """A class whose weights are made when it is called, and a functional model with Keras' own running variance."""
    pytest.importorskip("torch")
    if not find_spec("keras"):
        pytest.skip("Keras is not installed")
    ports = compared([f"keras:{PORTS / 'keras_ports.py'}:{name}" for name in ("Subclassed", "functional")])

    assert ports["Subclassed"].failures == []
    # of a variance of n = 2 * 16 * 16 values the Bessel term is 1 / 511, of which momentum takes a tenth
    (failure,) = ports["functional"].failures
    assert failure.startswith("running statistics")
    assert 0 < ports["functional"].differences["running statistics"][0] < 1 / 511
    assert ports["functional"].assigned["dense"] == {
        "layer": "fc1",
        "class": "Dense",
        "flattened": True,
        "surplus": {},
        "lacking": [],
    }


@pytest.mark.slow
def test_the_command_prints_the_layer_and_exits_with_1(tmp_path: Path) -> None:
    """As a user sees it; the JSON has the same."""
    pytest.importorskip("torch")
    sources = [f"{PORTS / 'torch_ports.py'}:{name}" for name in ("Net", "Alpha")]
    words = ["verify", str(PORTS / "port.yaml"), *(word for source in sources for word in ("--against", source))]
    run = archspec_command(*words, "-o", str(tmp_path / "ports.json"), cwd=tmp_path)

    assert run.returncode == 1
    assert f"{sources[0]} is the network of port" in run.stdout
    assert f"{sources[1]} is not the network of port" in run.stdout
    assert re.search(r"the first layer that parts is norm1 \(at torch_ports.py:\d+\)", run.stderr)
    assert "norm1 with alpha 0.1 -> 0.5 gives what the model computes" in run.stderr
    assert f"{sources[0]} and {sources[1]}: outputs differ by" in run.stdout
    assert "bn1: momentum 0.1 -> 0.05 (training-mode would)" in run.stdout
    content = json.loads((tmp_path / "ports.json").read_text())
    assert [port["agrees"] for port in content["ports"]] == [True, False]
    assert content["ports"][1]["first"]["layer"] == "norm1"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param(
            "torch_ports.py:Nett", "torch_ports.py has no 'Nett'; did you mean 'Net'?", marks=pytest.mark.slow
        ),
        ("missing.py:Net", "there is no file "),
        ("deploy.prototxt", "there is no file "),
    ],
)
def test_a_source_that_cannot_be_made_is_one_error(source: str, message: str) -> None:
    """A user's mistake: one line, status 1."""
    pytest.importorskip("torch")
    run = archspec_command("verify", str(PORTS / "port.yaml"), "--against", f"{PORTS / source}", "--quick")

    assert run.returncode == 1
    assert message in run.stderr
    assert "Traceback" not in run.stderr
