"""Many processes with a part of every batch each: the same weights as one, and what happens when one is killed."""

from __future__ import annotations

import ast
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import spec
from test_keras_program import ENVIRONMENT, until
from test_program import LAYERS, RECIPE, module, program, start, state

import archspec
from archspec.emit import emit_training
from archspec.verify import Workers, distributed
from archspec.verify.distributed import _ports

torch = pytest.importorskip("torch")
pytest.importorskip("tensorflow")
pytestmark = pytest.mark.frameworks
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.parametrize(
    ("target", "old", "new"),
    [
        ("torch", "", ""),
        ("keras", "", ""),
        ("keras-jax", "", ""),
        (
            "torch",
            "        (loss * share).backward()",
            "        loss.backward()",
        ),  # the last batch's parts are not of one size
        ("keras", "= len(padded) / len(batch)", "= 1"),
    ],
)
def test_many_processes_end_as_one(target: str, old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, two processes and one agree to rounding; a fault in how batches are shared out is seen."""

    def faulty(*words: Any) -> str:
        text = emit_training(*words)
        assert not old or text.count(old) == 1
        return text.replace(old, new) if old else text

    monkeypatch.setattr(distributed, "emit_training", faulty)
    graph = archspec.build(spec(LAYERS, "{channels: 1, height: 8, width: 8}", RECIPE))
    with Workers([target]) as workers:
        (found,) = distributed.distributed(graph, workers, 2, 200)

    assert found.agrees == (not old), str(found)
    assert found.apart < 1e-13 or old
    assert found.steps == 6


def test_every_image_is_in_one_part(tmp_path: Path) -> None:
    """Over any number of processes, the parts of a batch are the batch: each image once; the weights say so in Keras."""
    path = program(tmp_path)
    torchs = module(path)
    text = emit_training(
        (graph := archspec.build(spec(LAYERS, "{channels: 1, height: 8, width: 8}", RECIPE))),
        "keras",
        graph.spec.training,  # type: ignore[arg-type]
    )
    function = next(n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and n.name == "parts")
    names: dict[str, Any] = {"np": np, "Part": tuple}
    exec(compile(ast.Module([function], []), "parts", "exec"), names)
    for count, size, ranks in itertools.product((1, 7, 12, 13), (3, 4, 12), (1, 2, 3, 5)):
        every = [torchs.Batches(count, size, 5, rank, ranks) for rank in range(ranks)]
        order = [[number for _, number in batch] for batch in torchs.Batches(count, size, 5)]
        for i, parts in enumerate(zip(*every, strict=True)):
            counts = [batches.counts(i)[0] for batches in every]
            mine = [number for part, n in zip(parts, counts, strict=True) for _, number in part[:n]]
            assert sorted(mine) == sorted(order[i])
            assert all(part for part in parts)
        numbers = np.random.default_rng(0).permutation(count)
        shares = [names["parts"](numbers, size, rank, ranks, ranks) for rank in range(ranks)]
        for i, own in enumerate(zip(*shares, strict=True)):
            assert len({len(part) for part, _ in own}) == 1
            batch = numbers[i * size : (i + 1) * size]
            assert sorted(n for part, weights in own for n in part[weights > 0]) == sorted(batch)
            assert sum(weights.sum() for _, weights in own) / sum(map(len, (p for p, _ in own))) == pytest.approx(1)


def torchrun(path: Path, *words: object) -> list[str]:
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        *map(str, words[:2]),
        str(path),
        *map(str, words[2:]),
    ]


def ranks(output: Path) -> Iterator[tuple[int, str]]:
    """Yield the processes that train into a folder: number, rank."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str(output) in (folder / "cmdline").read_text() and "LOCAL_RANK" in (
                words := (folder / "environ").read_text()
            ):
                yield int(folder.name), dict(w.partition("=")[::2] for w in words.split("\0"))["LOCAL_RANK"]
        except OSError:
            continue


def test_torchrun_starts_again_from_the_checkpoint(tmp_path: Path) -> None:
    """A worker is killed; with --max-restarts all begin again at the last epoch, and end with one process's weights."""
    path = program(tmp_path)
    words = ("--epochs", 4, "--precision", "fp64")
    (tmp_path / "torch_model.py").write_text(
        (tmp_path / "torch_model.py").read_text().replace("nn.Dropout(0.2)", "nn.Dropout(0.0)")
    )
    alone = start(path, *words, "--output", tmp_path / "one", env=ONE_THREAD)
    for attempt in range(3):
        # On a loaded machine gloo now and then waits for ever in the restarted processes' init_process_group.
        output = tmp_path / f"two{attempt}"
        command = torchrun(path, "--max-restarts", 3, *words, "--output", output)
        pair = subprocess.Popen(command, env=ONE_THREAD, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        until(output / "last.pt", pair)
        os.kill(next(number for number, rank in ranks(output) if rank == "1"), 9)
        try:
            said = pair.communicate(timeout=70)[1]
            break
        except subprocess.TimeoutExpired:
            pair.kill()
            for number, _ in list(ranks(output)):
                os.kill(number, 9)
            said = pair.communicate()[1]
    alone.communicate(timeout=200)
    assert (pair.returncode, alone.returncode) == (0, 0), said
    assert "exitcode: -9" in said
    one, two = state(tmp_path / "one"), state(output)

    assert [record["epoch"] for record in two["history"]] == [1, 2, 3, 4]
    for key, weight in one["model"].items():
        assert float((weight - two["model"][key]).abs().max()) < 1e-12


def test_weights_that_are_shared_out_end_as_whole_ones(tmp_path: Path) -> None:
    """An epoch under --fsdp in two processes and one in one process, resumed from it, are two in one."""
    path = program(tmp_path)
    model = tmp_path / "torch_model.py"
    model.write_text(model.read_text().replace("nn.Dropout(0.2)", "nn.Dropout(0.0)"))
    words = ("--precision", "fp64", "--output")
    alone = start(path, *words, tmp_path / "one", "--epochs", 2, env=ONE_THREAD)
    command = torchrun(path, "--max-restarts", 0, "--fsdp", *words, tmp_path / "two", "--epochs", 1)
    pair = subprocess.run(command, env=ONE_THREAD, capture_output=True, text=True, timeout=200)
    assert pair.returncode == 0, pair.stderr
    resumed = start(path, *words, tmp_path / "two", "--epochs", 2, "--resume", env=ONE_THREAD)
    for process in (alone, resumed):
        assert process.wait(200) == 0, process.communicate()
        process.communicate()
    one, two = state(tmp_path / "one"), state(tmp_path / "two")

    assert [record["epoch"] for record in two["history"]] == [1, 2]
    for key, weight in one["model"].items():
        assert float((weight - two["model"][key]).abs().max()) < 1e-12


@pytest.mark.parametrize("target", ["torch", "keras"])
def test_one_killed_process_ends_the_others(target: str, tmp_path: Path) -> None:
    """What is left says that another is gone, and does not wait."""
    from test_keras_program import program as both

    path = both(tmp_path).with_name(f"{target}_train.py")
    ports = _ports(2)
    running = []
    for rank in range(2):
        own = {
            "RANK": str(rank),
            "WORLD_SIZE": "2",
            "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(ports[0]),
        }
        if target == "keras":
            cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
            own = {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": rank}})}
        words = [
            sys.executable,
            path,
            "--epochs",
            "9999",
            "--output",
            tmp_path / "out",
            *(["--distribute"] if target == "keras" else []),
        ]
        running.append(
            subprocess.Popen(
                list(map(str, words)),
                env={**ENVIRONMENT, **ONE_THREAD, **own},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        until(tmp_path / "out" / ("last.pt" if target == "torch" else "last.npz"), running[0])
        running[1].kill()
        said = running[0].communicate(timeout=100)[1]
    finally:
        for process in running:
            process.kill()
            process.communicate()

    assert running[0].returncode == 1, said
    assert [line for line in said.splitlines() if line.startswith("process 0: another is gone: ")], said
