"""Training in several processes: the weights of one process, and the end of all when one is killed."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ROOT, network
from helpers.programs import (
    GRAY,
    LAYERS,
    ONE_THREAD,
    RECIPE,
    altered_program,
    largest_difference,
    require,
    run_program,
    start_ranks,
    torch_checkpoint,
    wait_for,
    without_dropout,
    write_program,
)

import archspec
from archspec.engines.keras.data import split_batches
from archspec.verification import Workers, multiprocess
from archspec.verification.multiprocess import End, compare_multiprocess

require("torch", "tensorflow")
pytestmark = pytest.mark.frameworks
TORCH, KERAS = pytest.mark.xdist_group("torch"), pytest.mark.xdist_group("keras")


@pytest.fixture(scope="module")
def ends() -> dict[str, End]:
    """The weights after training in one process, by target; of the unaltered programs."""
    return {}


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    """The process that reads PyTorch's checkpoints; the one of Keras does not start."""
    with Workers(("torch", "keras", "keras-jax")) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "file", "old", "new"),
    [
        pytest.param("torch", "", "", "", marks=TORCH),
        pytest.param("keras", "", "", "", marks=KERAS),
        pytest.param("keras-jax", "", "", "", marks=KERAS),
        # the last batch's parts have different sizes
        pytest.param(
            "torch",
            "train.py",
            "        (loss * loss_weight).backward()",
            "        loss.backward()",
            marks=TORCH,
        ),
        pytest.param("keras", "engine/data.py", "= len(padded) / len(batch)", "= 1", marks=KERAS),
    ],
    ids=["torch", "keras", "keras-jax", "torch without weights", "keras without weights"],
)
def test_two_processes_train_as_one(
    target: str,
    file: str,
    old: str,
    new: str,
    ends: dict[str, End],
    workers: Workers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In float64 two processes and one agree to rounding; an error in how they weight a batch is detected.

    Both errors leave training in one process as it is, whose weights are 1.
    """
    generated = multiprocess.files

    def altered_files(*arguments: Any, **options: Any) -> dict[str, str]:
        texts = generated(*arguments, **options)
        (name,) = (name for name in texts if name.partition("/")[2] == file)
        assert texts[name].count(old) == 1
        return {**texts, name: texts[name].replace(old, new)}

    if old:
        monkeypatch.setattr(multiprocess, "files", altered_files)
    graph = network(LAYERS, GRAY, RECIPE)
    monkeypatch.setattr(workers, "targets", (target,))
    (result,) = compare_multiprocess(graph, workers, 2, 200, ends)

    assert result.agrees == (not old), str(result)
    assert result.difference < 1e-13 or old
    assert result.steps == 6


@TORCH
def test_every_image_is_in_one_part() -> None:
    """For any number of processes, the parts of a batch have each of its images once; Keras' weights sum to its size."""
    from archspec.engines.torch.data import Batches

    for count, size, world_size in itertools.product((1, 7, 12, 13), (3, 4, 12), (1, 2, 3, 5)):
        ranks = [Batches(count, size, 5, rank, world_size) for rank in range(world_size)]
        batches = [[index for _, index in batch] for batch in Batches(count, size, 5)]
        assert sorted(itertools.chain(*batches)) == list(range(count))
        for i, parts in enumerate(zip(*ranks, strict=True)):
            counts = [batches.counts(i)[0] for batches in ranks]
            indices = [index for part, n in zip(parts, counts, strict=True) for _, index in part[:n]]
            assert sorted(indices) == sorted(batches[i])
            assert {batches.counts(i)[1] for batches in ranks} == {len(batches[i])}
            assert all(parts)
        order = np.random.default_rng(0).permutation(count)
        shares = [split_batches(order, size, rank, world_size, world_size) for rank in range(world_size)]
        for i, share in enumerate(zip(*shares, strict=True)):
            assert len({len(part) for part, _ in share}) == 1
            batch = order[i * size : (i + 1) * size]
            assert sorted(n for part, weights in share for n in part[weights > 0]) == sorted(batch)
            total = sum(len(part) for part, _ in share)
            assert sum(weights.sum() for _, weights in share) / total == pytest.approx(1)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The PyTorch program without dropout, whose draws differ between ranks."""
    return without_dropout(write_program(tmp_path_factory.mktemp("program")))


@pytest.fixture(scope="module")
def one_process(program: Path) -> Path:
    """The output of four epochs in one process, in float64."""
    output = program.parent.parent / "one"
    assert run_program(program, "--epochs", 4, "--precision", "fp64", "--output", output) == ""
    return output


@TORCH
@pytest.mark.slow
@pytest.mark.parametrize("epochs", [0, 1])
def test_sharded_training_is_that_of_one_process(epochs: int, program: Path, one_process: Path, tmp_path: Path) -> None:
    """Under --fsdp two processes start or resume from one process, and one resumes from them, as one process does."""
    options = ("--precision", "fp64", "--output", tmp_path)
    if epochs:
        assert run_program(program, *options, "--epochs", epochs) == ""
    pair = start_ranks(program, "torch", *options, "--epochs", 3, "--fsdp", *["--resume"] * epochs)
    try:
        for process in pair:
            message = process.communicate(timeout=200)[1]
            assert process.returncode == 0, message
    finally:
        for process in pair:
            process.kill()
    assert run_program(program, *options, "--epochs", 4, "--resume") == ""
    one, two = torch_checkpoint(one_process), torch_checkpoint(tmp_path)

    assert [record["epoch"] for record in two["history"]] == [1, 2, 3, 4]
    assert largest_difference(one["model"], two["model"]) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("target", [pytest.param("torch", marks=TORCH), pytest.param("keras", marks=KERAS)])
def test_one_killed_process_ends_the_others(
    target: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process exits with a message and leaves a checkpoint, from which torchrun's restart resumes."""
    output, torch = tmp_path / "out", target == "torch"
    path = request.getfixturevalue("program") if torch else write_program(tmp_path, target)
    options = ("--precision", "fp64") if torch else ("--distribute",)
    running = start_ranks(path, target, "--epochs", 9999, "--output", output, *options)
    try:
        wait_for(output / ("last.pt" if torch else "last.npz"), running[0])
        running[1].kill()
        message = running[0].communicate(timeout=100)[1]
    finally:
        for process in running:
            process.kill()
            process.communicate()

    assert running[0].returncode == 1, message
    gone = [line for line in message.splitlines() if line.startswith("process 0: another process is gone: ")]
    assert gone, message
    if torch:
        epochs = torch_checkpoint(output)["epoch"]
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
        assert run_program(path, "--epochs", epochs + 1, "--output", output, *options) == ""
        monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT")
        assert run_program(path, "--epochs", epochs + 1, "--output", tmp_path / "one", *options) == ""
        one, two = torch_checkpoint(tmp_path / "one"), torch_checkpoint(output)
        assert [record["epoch"] for record in two["history"]] == list(range(1, epochs + 2))
        assert largest_difference(one["model"], two["model"]) < 1e-12


@TORCH
def test_a_restart_without_a_checkpoint_starts_anew(program: Path, tmp_path: Path) -> None:
    """Restarted by torchrun before the first checkpoint, the program does not resume."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
        assert run_program(program, "--epochs", 1, "--precision", "fp64", "--output", tmp_path) == ""
    assert torch_checkpoint(tmp_path)["epoch"] == 1


def ranks(output: Path) -> Iterator[tuple[int, str]]:
    """Yield the processes that train into a folder: process id, rank."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str(output) not in (folder / "cmdline").read_text():
                continue
            environment = dict(line.partition("=")[::2] for line in (folder / "environ").read_text().split("\0"))
            if "LOCAL_RANK" in environment:
                yield int(folder.name), environment["LOCAL_RANK"]
        except OSError:
            continue


@pytest.mark.slow
@pytest.mark.parametrize("late", ["0", "1"])
@TORCH
def test_torchrun_restarts_from_the_checkpoint(late: str, program: Path, one_process: Path, tmp_path: Path) -> None:
    """With --max-restarts, after one process is killed, all resume from the last epoch and end with one's weights.

    torchrun's store still has the addresses of the killed processes; either rank is late to write its new ones.
    """
    program = altered_program(
        program,
        tmp_path / "pytorch",
        "train.py",
        "    options = parse_options(recipe)",
        f"    import os, time\n    time.sleep(2 * (os.environ.get('RANK') == '{late}'))\n    options = parse_options(recipe)",
    )
    output = tmp_path / "two"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [*torchrun, "--max-restarts", "3", program, "--epochs", 4, "--precision", "fp64", "--output", output]
    pair = subprocess.Popen(
        list(map(str, words)), env=ONE_THREAD, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(output / "last.pt", pair)
        os.kill(next(number for number, rank in ranks(output) if rank == "1"), signal.SIGKILL)
        message = pair.communicate(timeout=100)[1]
    finally:
        pair.kill()
        for number, _ in list(ranks(output)):
            os.kill(number, signal.SIGKILL)
    assert pair.returncode == 0, message
    assert "exitcode: -9" in message
    one, two = torch_checkpoint(one_process), torch_checkpoint(output)

    assert [record["epoch"] for record in two["history"]] == [1, 2, 3, 4]
    assert largest_difference(one["model"], two["model"]) < 1e-12


def test_a_network_with_batch_normalization_is_refused(workers: Workers) -> None:
    """Each process would normalize its own part of a batch."""
    graph = archspec.load(ROOT / "specs" / "cifar_cnn.yaml")

    with pytest.raises(ValueError, match=r"stage1\.1 normalizes by the statistics of a batch"):
        compare_multiprocess(graph, workers, 2, 60)
