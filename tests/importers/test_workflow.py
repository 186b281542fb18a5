"""From a PyTorch model to a Keras model with its weights and a certificate, by the commands of the README."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from helpers import ROOT, archspec_command

pytestmark = [pytest.mark.frameworks, pytest.mark.xdist_group("importer commands")]
COMMANDS = re.findall(
    r"^    archspec ((?:import|generate|weights|verify) .*resnet50.*)$", (ROOT / "README.md").read_text(), re.M
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "shape"),
    [
        (f"{ROOT / 'tests' / 'data' / 'models' / 'networks.py'}:Convs", ["--input-shape", "3,32,32"]),
        ("torchvision:resnet50", []),
    ],
    ids=["a small model", "resnet50"],
)
def test_the_readmes_commands_move_a_model(source: str, shape: list[str], tmp_path: Path) -> None:
    """Import, generate, move the weights, verify with them, certify: each succeeds, and the weights are in the evidence.

    The small model is verified by --quick, without a certificate.
    """
    pytest.importorskip("torchvision")
    assert [command.split()[0] for command in COMMANDS] == ["import", "generate", "weights", "verify"]
    for command in COMMANDS:
        words = [source if word == "torchvision:resnet50" else word for word in shlex.split(command)]
        words = ["--quick" if word == "--certify" and shape else word for word in words]
        run = archspec_command(*words, *(shape if words[0] == "import" else []), cwd=tmp_path)
        assert run.returncode == 0, (command, run.stdout + run.stderr)
    assert "outputs and gradients are those of given weights, sha256 " in run.stdout
    if shape:
        return
    (certificate,) = tmp_path.rglob("verify.json")
    content = json.loads(certificate.read_text())

    assert content["agrees"]
    assert re.fullmatch("[0-9a-f]{64}", content["weights"])
    assert set(content["targets"]) == {"torch", "keras"} | ({"numpy"} & set(content["targets"]))
