"""Model parallelism on two ranks: the whole network's outputs, gradients and training, and the transfers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, archspec_command, network, source
from helpers.programs import ONE_THREAD, free_ports, rank_environment, require

import archspec
from archspec.graph import build
from archspec.graph.model_parallel import shard, transfers
from archspec.language.source import SpecError
from archspec.targets import TARGETS, files, model_parallel

pytestmark = [pytest.mark.frameworks, pytest.mark.xdist_group("torch")]

NET = """{name: conv1, op: conv2d, out_channels: 12, kernel_size: 5, stride: 2}
{name: relu1, op: relu}
{name: norm1, op: local_response_norm, size: 5, alpha: 0.3, k: 2}
{name: pool1, op: max_pool2d, kernel_size: 3, stride: 2}
{name: conv2, op: conv2d, out_channels: 16, kernel_size: 3, padding: 1, groups: 2}
{name: relu2, op: relu}
{name: norm2, op: local_response_norm, size: 3, alpha: 0.5, beta: 0.6, groups: 2}
{name: conv3, op: conv2d, out_channels: 20, kernel_size: 3}
{name: relu3, op: relu}
{name: conv4, op: conv2d, out_channels: 12, kernel_size: 3, padding: 1, groups: 2}
{name: relu4, op: relu}
{name: flatten, op: flatten}
{name: fc6, op: linear, out_features: 32}
{name: relu6, op: relu}
{name: drop6, op: dropout}
{name: fc8, op: linear, out_features: 10}"""
SIZE = "{channels: 3, height: 31, width: 27}"
RECIPE = """multipliers: {bias: {lr: 2, decay: 0}}
training: {optimizer: {caffe_sgd: {lr: 0.01, momentum: 0.9, weight_decay: 5e-4}}}
"""
STEPS, BATCH = 20, 4
VARIANTS = {  # replacements in model_parallel.py, and the measure in which each is detected
    "unaltered": ("", "", ""),
    "gradients": ("gather(x, summed=True)", "gather(x, summed=False)", "gradients"),
    "edges": ("edges[:, half:]), 1)", "0 * edges[:, half:]), 1)", "outputs"),
}


@pytest.fixture(scope="module")
def comparisons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """How far the two ranks' shards are from the whole network, for each variant of their code."""
    require("torch")
    folder = tmp_path_factory.mktemp("model_parallel")
    (folder / "net.yaml").write_text(source(NET, SIZE, RECIPE).text)
    for variant, (old, new, _) in VARIANTS.items():
        words = ("--target", "torch", "--placement", "model-parallel", "--out", folder / variant)
        done = archspec_command("generate", folder / "net.yaml", *words)
        assert done.returncode == 0, done.stderr
        path = folder / variant / "net" / "pytorch" / "model_parallel.py"
        assert old in path.read_text()
        if old:
            path.write_text(path.read_text().replace(old, new))
    script = Path(__file__).parent.parent / "helpers" / "compare_shards.py"
    (port,) = free_ports(1)
    folders = [str(folder / variant / "net" / "pytorch") for variant in VARIANTS]
    command = [sys.executable, str(script), str(STEPS), str(BATCH), "3,31,27", *folders]
    running = [
        subprocess.Popen(
            command,
            env={**ONE_THREAD, **rank_environment(rank, 2, port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        ends = [process.communicate(timeout=300) for process in running]
    finally:
        for process in running:
            process.kill()
    assert all(process.returncode == 0 for process in running), ends
    return dict(zip(VARIANTS, json.loads(ends[0][0]), strict=True))


@pytest.mark.slow
def test_two_ranks_train_as_the_whole_network(comparisons: dict[str, dict[str, float]]) -> None:
    """Outputs, gradients, and weights after 20 steps are the whole network's to rounding, with the counted transfers."""
    found = comparisons["unaltered"]

    assert max(found[key] for key in ("outputs", "gradients", "losses", "weights")) < 1e-11
    assert found["loss_decrease"] > 0.01
    planned = transfers(shard(network(NET, SIZE, RECIPE)))
    for direction in ("forward", "backward"):
        assert found[f"{direction}_bytes"] == 8 * BATCH * sum(getattr(one, direction) for one in planned)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["gradients", "edges"])
def test_a_missing_sum_or_neighbor_is_detected(variant: str, comparisons: dict[str, dict[str, float]]) -> None:
    """Without the sum of both ranks' gradients, or the other rank's channels in the LRN, values differ."""
    assert comparisons[variant][VARIANTS[variant][2]] > 1e-6


def test_alexnets_transfers_are_the_papers() -> None:
    """The ranks exchange before conv3, fc6, fc7, fc8, as in figure 2; and in norm1, norm2 if their LRN spans both."""
    whole = {one.layer: one for one in transfers(shard(archspec.load(ROOT / "specs" / "alexnet.yaml")))}
    authors = {one.layer: one for one in transfers(shard(archspec.load(ROOT / "specs" / "alexnet_2012_code.yaml")))}

    assert list(authors) == ["conv3", "fc6", "fc7", "fc8"]
    assert list(whole) == ["norm1", "norm2", *authors]
    assert whole["conv3"].forward == 256 * 13 * 13
    assert [whole[name].forward for name in ("fc6", "fc7", "fc8")] == [9216, 4096, 4096]
    assert (whole["norm1"].forward, whole["norm2"].backward) == (4 * 55 * 55, 4 * 27 * 27)
    assert (whole["fc7"].backward, whole["fc8"].backward) == (4096, 0)


def test_transfers_are_reported() -> None:
    """`report --placement model-parallel` lists them in bytes a batch; the committed file is the generated one."""
    path = ROOT / "specs" / "alexnet.yaml"
    words = ("report", path, "--placement", "model-parallel", "--batch", 128)
    found = json.loads(archspec_command(*words, "--format", "json").stdout)["specs"][0]["transfers"]
    shown = archspec_command(*words).stdout
    unsupported = archspec_command("report", ROOT / "specs" / "alexnet_towers.yaml", "--placement", "model-parallel")

    # 128 * 4 * 256 * 13**2
    assert {"layer": "conv3", "forward": 22151168, "backward": 22151168, "what": "pool2"} in found
    assert "Transfers between two ranks, batch 128 in float32" in shown
    assert "all       38,752,256      36,655,104" in shown
    assert (unsupported.returncode, "error[unsupported-by-target]" in unsupported.stderr) == (1, True)
    for name, text in model_parallel(archspec.load(path)).items():
        assert (ROOT / "generated" / "alexnet" / name).read_text() == text


def test_the_shards_file_is_generated_beside_the_program() -> None:
    """model_parallel.py imports the generated model, which is in the same folder."""
    graph = archspec.load(ROOT / "specs" / "alexnet.yaml")
    (path,) = model_parallel(graph)

    assert path == "pytorch/model_parallel.py"
    assert "pytorch/model.py" in files(graph, TARGETS["torch"])


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            "{name: c, op: conv2d, out_channels: 3, kernel_size: 3}\n{name: f, op: flatten}\n{name: fc, op: linear, out_features: 2}",
            "c has out_channels=3, which is not even",
        ),
        (
            "{name: c, op: conv2d, out_channels: 6, kernel_size: 3, groups: 3}\n{name: f, op: flatten}\n{name: fc, op: linear, out_features: 2}",
            "c is a conv2d, which cannot be split by channels",
        ),
        ("{name: f, op: flatten}\n{name: r, op: relu}", "r has no layer with parameters before it to split"),
    ],
    ids=["odd", "groups", "no parameters"],
)
def test_a_network_without_equal_halves_is_an_error(layers: str, message: str) -> None:
    """The error names the layer, with its position in the spec."""
    with pytest.raises(SpecError) as caught:
        shard(build(source(layers, "{channels: 3, height: 8, width: 8}")))
    assert message in str(caught.value)
    assert re.search(r":\d+:\d+: error\[unsupported-by-target\]", str(caught.value))
