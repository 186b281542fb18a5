"""A network on two devices: the whole network's outputs, gradients and training, and what crosses between them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, spec
from test_cli import run
from test_distributed import ONE_THREAD

import archspec
from archspec.emit import emit_towers
from archspec.emit.towers import crossings, towers
from archspec.source import SpecError
from archspec.verify.distributed import _ports

pytestmark = pytest.mark.frameworks

# Both processes make the whole network from one seed, and hold their tower against their part of it.
COMPARE = """
import json, sys, torch
from torch import distributed
import torch_model, torch_train, torch_two_tower as t
distributed.init_process_group("gloo")
steps, batch = int(sys.argv[1]), int(sys.argv[2])
sent = {"forward": 0, "backward": 0}
def counting(name, way):
    original = getattr(distributed, name)
    def call(a, b, *more):
        lists = [x for x in (a, b) if isinstance(x, list)]
        sent[way] += sum(x.numel() * x.element_size() for x in lists[0])
        return original(a, b, *more)
    setattr(distributed, name, call)
counting("all_gather", "forward"); counting("reduce_scatter", "backward")
torch.manual_seed(0)
whole = getattr(torch_model, sys.argv[3])().double()
for p in whole.parameters():
    torch.nn.init.normal_(p, std=(1 / p[0].numel()) ** 0.5 if p.ndim > 1 else 0.1)
tower = t.Tower().double()
t.load_part(tower, whole.state_dict())
for network in (whole, tower):
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
inputs = 0.3 * torch.randn(steps, batch, *map(int, sys.argv[4].split(",")), dtype=torch.float64)
labels = torch.randint(0, 10, (steps, batch))
def far(a, b):
    return float((a - b).abs().max() / b.abs().max())
found = {}
scores = [network(inputs[0]) for network in (tower, whole)]
found["outputs"] = far(*scores)
found["sent"] = dict(sent)
for s in scores:
    torch_train.criterion(s, labels[0]).backward()
found["sent"]["backward"] = sent["backward"]
grads = {n: p.grad for n, p in whole.named_parameters()}
found["gradients"] = max(far(p.grad, t.part(n, grads[n])) for n, p in tower.named_parameters())
optimizers = [torch_train.make_optimizer(network) for network in (tower, whole)]
losses = [[float(torch_train.train_step(n, o, x, y)[0]) for n, o in zip((tower, whole), optimizers)] for x, y in zip(inputs, labels)]
found["losses"] = max(abs(a - b) / abs(b) for a, b in losses)
weights = dict(whole.named_parameters())
found["weights"] = max(far(p, t.part(n, weights[n])) for n, p in tower.named_parameters())
found["moved"] = losses[0][1] - losses[-1][1]
if distributed.get_rank() == 0:
    print(json.dumps(found))
"""

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
RECIPE = """multipliers: {bias: {lr: 2, decay: 0}}
training: {optimizer: {sgd: {lr: 0.01, momentum: 0.9, weight_decay: 5e-4}}}
"""


def compared(folder: Path, name: str, shape: str, steps: int, batch: int) -> dict[str, float]:
    """Run both towers; return how far they are from the whole."""
    ports, running = _ports(1), []
    for rank in range(2):
        own = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(ports[0])}
        words = [sys.executable, "-c", COMPARE, str(steps), str(batch), name, shape]
        running.append(
            subprocess.Popen(
                words, cwd=folder, env={**ONE_THREAD, **own}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    try:
        ends = [process.communicate(timeout=300) for process in running]
    finally:
        for process in running:
            process.kill()
    assert all(process.returncode == 0 for process in running), ends
    found: dict[str, float] = json.loads(ends[0][0])
    return found


@pytest.mark.parametrize(
    ("old", "new", "seen"),
    [
        ("", "", ""),
        ("gather(x, summed=True)", "gather(x, summed=False)", "gradients"),
        ("edges[:, half:]), 1)", "0 * edges[:, half:]), 1)", "outputs"),
    ],
)
def test_two_towers_are_the_whole(old: str, new: str, seen: str, tmp_path: Path) -> None:
    """Outputs, gradients, 20 steps: as the grouped network's, to rounding; a sum or a neighbour left out is seen."""
    pytest.importorskip("torch")
    source = spec(NET, "{channels: 3, height: 31, width: 27}", RECIPE)
    path = tmp_path / "net.yaml"
    path.write_text(source.text)
    done = run("generate", path, "--target", "torch", "--placement", "two-tower", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "net" / "torch_two_tower.py"
    if old:
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
    found = compared(tmp_path / "net", "Net", "3,31,27", 20, 4)
    if seen:
        assert found[seen] > 1e-6
        return

    assert max(found[key] for key in ("outputs", "gradients", "losses", "weights")) < 1e-11
    assert found["moved"] > 0.01
    planned = crossings(towers(archspec.build(source)))
    for way in ("forward", "backward"):
        assert found["sent"][way] == 8 * 4 * sum(getattr(one, way) for one in planned)  # type: ignore[index]


def test_alexnets_towers_meet_where_the_papers_do() -> None:
    """conv3, fc6, fc7, fc8, as in figure 2; and norm1, norm2 where neighbours are sought across the towers."""
    whole = {one.layer: one for one in crossings(towers(archspec.load(ROOT / "specs" / "alexnet.yaml")))}
    authors = {one.layer: one for one in crossings(towers(archspec.load(ROOT / "specs" / "alexnet_2012_code.yaml")))}

    assert list(authors) == ["conv3", "fc6", "fc7", "fc8"]
    assert list(whole) == ["norm1", "norm2", *authors]
    assert whole["conv3"].forward == 256 * 13 * 13
    assert [whole[name].forward for name in ("fc6", "fc7", "fc8")] == [9216, 4096, 4096]
    assert (whole["norm1"].forward, whole["norm2"].backward) == (4 * 55 * 55, 4 * 27 * 27)
    assert (whole["fc7"].backward, whole["fc8"].backward) == (4096, 0)


def test_what_crosses_is_reported() -> None:
    """`report --placement two-tower` has it in bytes a batch, and the file that is committed is what the spec gives."""
    path = ROOT / "specs" / "alexnet.yaml"
    words = ("report", path, "--placement", "two-tower", "--batch", 128)
    found = json.loads(run(*words, "--format", "json").stdout)["specs"][0]["crossings"]
    shown = run(*words).stdout
    none = run("report", ROOT / "specs" / "alexnet_towers.yaml", "--placement", "two-tower")

    assert {
        "layer": "conv3",
        "forward": 22151168,
        "backward": 22151168,
        "what": "pool2",
    } in found  # 128 * 4 * 256 * 13**2
    assert "Two devices: what crosses, batch 128 in float32" in shown
    assert "all       38,752,256  36,655,104" in shown
    assert (none.returncode, "error[no-spelling]" in none.stderr) == (1, True)
    assert (ROOT / "generated" / "alexnet" / "torch_two_tower.py").read_text() == emit_towers(archspec.load(path))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            "{name: c, op: conv2d, out_channels: 3, kernel_size: 3}\n{name: f, op: flatten}\n{name: fc, op: linear, out_features: 2}",
            "c has 3 outputs: no two halves",
        ),
        (
            "{name: c, op: conv2d, out_channels: 6, kernel_size: 3, groups: 3}\n{name: f, op: flatten}\n{name: fc, op: linear, out_features: 2}",
            "c is a conv2d that two towers cannot share",
        ),
    ],
)
def test_what_has_no_two_halves_is_told(layers: str, message: str, tmp_path: Path) -> None:
    """An error at the layer, in the spec."""
    with pytest.raises(SpecError) as fault:
        towers(archspec.build(spec(layers, "{channels: 3, height: 8, width: 8}")))
    assert message in str(fault.value)
    assert re.search(r":\d+:\d+: error\[no-spelling\]", str(fault.value))
