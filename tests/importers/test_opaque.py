"""Imports of models that the language lacks words for: counted, and not computed."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import ROOT, archspec_command

import archspec
from archspec import analysis, importers
from archspec.importers.proof import is_possible
from archspec.targets import TARGETS, files

pytestmark = [pytest.mark.frameworks, pytest.mark.xdist_group("importers")]
MODELS = ROOT / "tests" / "data" / "models" / "opaque.py"


def imported(name: str) -> importers.Imported:
    """Return a model of opaque.py."""
    pytest.importorskip("torchvision")
    return importers.import_model(f"{MODELS}:{name}", input_shape=(3, 32, 32), opaque=True)


@pytest.mark.usefixtures("in_process")
def test_a_swin_transformer_has_opaque_attention() -> None:
    """All parameters are counted, as PyTorch counts them, and what the language has words for stays as it is."""
    found = imported("swin")
    ops = {node.name: node.op.op for node in found.graph.nodes}

    assert (
        analysis.totals(found.graph).params == found.parameters == 35005
    )  # sum(p.numel() for p in model.parameters())
    assert [name for name, op in ops.items() if op == "opaque"] == [
        "features_1.0.attn", "features_1.1.attn", "features_2", "features_3.0.attn", "features_3.1.attn",
    ]  # fmt: skip
    assert found.folded
    assert "{name: attn, op: opaque, kind: ShiftedWindowAttention, parameters: 1186}" in found.text
    assert "op: opaque, kind: PatchMerging, shape: [32, 8, 8], parameters: 2176}" in found.text
    # of the convolution, the linear layers at 16 * 16 and 8 * 8 places, and the head; not of attention
    assert analysis.totals(found.graph).macs == 256 * 16 * 12 + 256 * 2 * 2 * 16 * 64 + 64 * 2 * 2 * 32 * 128 + 32 * 5


@pytest.mark.usefixtures("in_process")
def test_a_module_of_two_outputs_is_opaque_with_the_one_around_it() -> None:
    """8 scales, and 8 * 8 + 8 of the convolution in the mixer."""
    found = imported("Fourier")

    assert "{name: mixer, op: opaque, kind: Mixer, parameters: 80}" in found.text


@pytest.mark.usefixtures("in_process")
def test_nothing_is_proven_generated_or_saved() -> None:
    """There is no code for it, and so no weights that fit."""
    found = imported("Fourier")

    assert not is_possible(found)
    assert found.canonical_weights() == {}
    for target in TARGETS.values():
        with pytest.raises(archspec.SpecError, match="mixer: an opaque layer is counted, not computed"):
            files(found.graph, target)


@pytest.mark.usefixtures("in_process")
def test_an_operator_outside_of_all_modules_is_still_a_report() -> None:
    """The whole network would be opaque."""
    with pytest.raises(importers.UnsupportedModelError) as caught:
        imported("Outside")

    assert [one.target for one in caught.value.found] == ["cumsum"]


@pytest.mark.slow
def test_the_command_writes_a_spec_that_can_be_counted(tmp_path: Path) -> None:
    """check warns, report and draw work, verify and --weights-out refuse; ONNX has no opaque layers."""
    pytest.importorskip("torchvision")
    source = f"{MODELS}:Fourier"
    run = archspec_command("import", source, "--input-shape", "3,32,32", cwd=tmp_path)
    assert (run.returncode, "`archspec import --opaque` counts them" in run.stderr) == (1, True)
    options = ["--input-shape", "3,32,32", "--opaque"]
    run = archspec_command("import", source, *options, "-o", "net.yaml", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    run = archspec_command("check", "net.yaml", cwd=tmp_path)
    assert (run.returncode, "warning[opaque-layer]: mixer: " in run.stderr) == (0, True)
    assert archspec_command("draw", "net.yaml", "-o", "net.svg", cwd=tmp_path).returncode == 0
    assert archspec_command("report", "net.yaml", "-o", "net.html", cwd=tmp_path).returncode == 0
    assert "error[unsupported-by-target]" in archspec_command("verify", "net.yaml", cwd=tmp_path).stderr
    run = archspec_command("import", source, *options, "--weights-out", "w.safetensors", cwd=tmp_path)
    assert (run.returncode, "has opaque layers: no weights to write" in run.stderr) == (2, True)
    (tmp_path / "net.prototxt").write_text("")
    assert (
        "only PyTorch models can have opaque layers"
        in archspec_command("import", "net.prototxt", "--opaque", cwd=tmp_path).stderr
    )
