"""Importing files of torch.export: read as data, proven, and refused where they are not what they should be."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, archspec_command

from archspec import importers
from archspec.importers.proof import is_possible, prove

pytestmark = [pytest.mark.frameworks, pytest.mark.xdist_group("importers")]
MODELS = ROOT / "tests" / "data" / "models"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convs of networks.py, exported for images of 32 x 32."""
    torch = pytest.importorskip("torch")
    from data.models import networks

    path = tmp_path_factory.mktemp("exported") / "convs.pt2"
    torch.manual_seed(0)
    program = torch.export.export(networks.Convs().eval(), (torch.zeros(2, 3, 32, 32),), strict=False)
    torch.export.save(program, path)
    return path


def altered(path: Path, to: Path, change: Callable[[str, bytes], bytes | None], mode: int = zipfile.ZIP_STORED) -> Path:
    """Write a copy of an archive with other members; None leaves one out."""
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(to, "w", mode) as after:
        for name in before.namelist():
            content = change(name, before.read(name))
            if content is not None:
                after.writestr(name, content)
    return to


def graph_with(change: Callable[[Any], None]) -> Callable[[str, bytes], bytes]:
    """Return a change of the graph's JSON."""

    def alter(name: str, content: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return content
        data = json.loads(content)
        change(data["graph_module"])
        return json.dumps(data).encode()

    return alter


@pytest.mark.usefixtures("in_process")
def test_a_file_of_torch_export_is_imported_and_proven(exported: Path) -> None:
    """The layers and weights of the model itself, in both modes, as if its class had been imported."""
    found = importers.import_model(str(exported))
    same = importers.import_model(f"{MODELS / 'networks.py'}:Convs", input_shape=(3, 32, 32))

    assert [(n.name, n.op.op) for n in found.graph.nodes] == [(n.name, n.op.op) for n in same.graph.nodes]
    assert found.parameters == same.parameters
    proof = prove(found)
    assert proof.failures == []
    assert set(proof.differences) >= {"outputs, training", "gradients, training", "running statistics"}
    assert {name: value.shape for name, value in found.canonical_weights().items()} == {
        name: value.shape for name, value in same.canonical_weights().items()
    }


@pytest.mark.usefixtures("in_process")
def test_an_altered_graph_is_rejected_by_the_proof(exported: Path, tmp_path: Path) -> None:
    """The spec of a graph whose norms have another epsilon beside the graph itself."""
    found = importers.import_model(str(exported))

    def epsilon(module: Any) -> None:
        for node in module["graph"]["nodes"]:
            for one in node["inputs"]:
                if one["name"] == "eps":
                    one["arg"]["as_float"] = 1e-3

    other = importers.import_model(str(altered(exported, tmp_path / "convs.pt2", graph_with(epsilon))))
    found.source["captured"]["nodes"] = other.source["captured"]["nodes"]  # type: ignore[index]

    assert any(failure.startswith("outputs") for failure in prove(found).failures)


def test_nothing_in_the_file_is_unpickled(exported: Path, tmp_path: Path) -> None:
    """The sample inputs are a pickle, which torch.export.load would run; pickled weights are left out."""
    mark = tmp_path / "ran"

    class Canary:
        def __reduce__(self) -> Any:
            return (Path.touch, (mark,))

    def change(name: str, content: bytes) -> bytes:
        if "sample_inputs" in name or name.endswith("weight_0"):
            return pickle.dumps(Canary())
        return (
            content.replace(b'"use_pickle": false', b'"use_pickle": true') if name.endswith("config.json") else content
        )

    found = importers.import_model(str(altered(exported, tmp_path / "convs.pt2", change)))

    assert not mark.exists()
    assert found.weights == {}
    assert not is_possible(found)
    assert "Its weights are pickles, which are not read." in found.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name, content: None if name.endswith("model.json") else content, "has no graph"),
        (lambda name, content: b"{}" if name.endswith("model.json") else content, "is not as torch.export writes"),
        (
            lambda name, content: b"[" * 100_000 if name.endswith("model.json") else content,
            "is not as torch.export writes",
        ),
        (lambda name, content: content[:8] if name.endswith("weight_0") else content, "too short for its tensor"),
        (graph_with(lambda module: module["signature"]["input_specs"].pop()), "reads 0 inputs"),
        (graph_with(lambda module: module["graph"]["nodes"].pop(3)), "UnsupportedModelError"),
    ],
    ids=["no graph", "empty", "deep", "short", "no input", "a hole"],
)
def test_a_damaged_file_is_one_error(exported: Path, tmp_path: Path, change: Any, message: str) -> None:
    """Never a traceback."""
    path = altered(exported, tmp_path / "convs.pt2", change)
    with pytest.raises((importers.ImportFailedError, importers.UnsupportedModelError)) as caught:
        importers.import_model(str(path))

    assert message in f"{caught.type.__name__}: {caught.value}"


def test_compressed_weights_are_not_unpacked(exported: Path, tmp_path: Path) -> None:
    """torch.export stores; a compressed member may be a bomb."""
    path = altered(exported, tmp_path / "convs.pt2", lambda name, content: content, zipfile.ZIP_DEFLATED)
    with pytest.raises(importers.ImportFailedError, match="is compressed"):
        importers.import_model(str(path))


def test_the_command_takes_a_pt2_file(exported: Path, tmp_path: Path) -> None:
    """Another input shape than the file's is refused; a file of something else too."""
    shutil.copy(exported, tmp_path / "net.pt2")
    run = archspec_command("check", "net.pt2", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    (tmp_path / "text.pt2").write_text("no archive")

    assert (
        "exported for inputs of (3, 32, 32), not of"
        in archspec_command("import", "net.pt2", "--input-shape", "3,64,64", cwd=tmp_path).stderr
    )
    run = archspec_command("import", "text.pt2", cwd=tmp_path)
    assert (run.returncode, "text.pt2 is no file of torch.export" in run.stderr) == (1, True)
