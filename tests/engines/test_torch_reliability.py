"""The PyTorch program where something goes wrong: devices, options, divergence, signals, checkpoints, two runs."""

from __future__ import annotations

import json
import math
import os
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.programs import (
    ONE_THREAD,
    flipped_bits,
    free_ports,
    identical,
    largest_difference,
    program_modules,
    rank_environment,
    read_log,
    run_program,
    start_program,
    torch_checkpoint,
    training_examples,
    without_dropout,
    write_image,
    write_program,
)

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")
from safetensors.torch import load_file  # noqa: E402  imports PyTorch

from archspec.engines.torch import checkpoint, distributed, files, layers, options  # noqa: E402
from archspec.engines.torch.errors import DataError  # noqa: E402

pytestmark = [pytest.mark.frameworks, pytest.mark.xdist_group("torch")]
QUICK = ("--epochs", 1, "--limit-batches", 3, "--log-every", 2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A program without dropout, and the output of a run of one epoch of three batches."""
    path = without_dropout(write_program(tmp_path_factory.mktemp("program")))
    output = path.parent.parent / "run"
    assert run_program(path, "--output", output, *QUICK) == ""
    return path, output


# --- devices ---------------------------------------------------------------------------------------------------------


def test_each_process_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under torchrun a process selects the GPU of its local rank before NCCL starts, and gives it to NCCL."""
    calls: list[Any] = []
    for name, value in (("RANK", "3"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(("set_device", device)))
    monkeypatch.setattr(distributed, "new_store", lambda rank, world_size: "store")
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, **more: calls.append((backend, more)))
    processes = distributed.Processes("cuda")
    gpu = torch.device("cuda", 1)

    assert processes.device == gpu
    assert calls[0] == ("set_device", gpu)
    assert calls[1][0] == "nccl"
    assert calls[1][1] == {
        "store": "store", "rank": 3, "world_size": 4, "timeout": distributed.TIMEOUT, "device_id": gpu,
    }  # fmt: skip


def test_a_checkpoint_reads_the_random_state_of_one_gpu(
    run: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state has the random state of this process's GPU; reading that of all would open a context on each."""
    gpu = torch.device("cuda", 1)
    asked: list[Any] = []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: asked.append(device) or torch.zeros(2))
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: pytest.fail("a context on every GPU"))
    made = object.__new__(checkpoint.Run)
    parts = {"device": gpu, "sharded": False, "gather": staticmethod(lambda value: [value])}
    network = torch.nn.Linear(1, 1)
    made.__dict__.update(
        processes=type("Processes", (), parts),
        network=network,
        optimizer=torch.optim.SGD(network.parameters()),
        **dict.fromkeys(("scaler", "scheduler"), None),
        **dict.fromkeys(("settings", "epoch", "step", "images", "sums", "history"), 0),
    )
    state = made.state()

    assert asked == [gpu]
    assert torch.equal(state["random_cuda"][0], torch.zeros(2))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--batch-size 0", "argument --batch-size: must be an integer from 1, not '0'"),
        ("--batch-size -5", "argument --batch-size: must be an integer from 1, not '-5'"),
        ("--epochs 0", "argument --epochs: must be an integer from 1, not '0'"),
        ("--workers -1", "argument --workers: must be an integer from 0, not '-1'"),
        ("--seed -1", "argument --seed: must be an integer from 0 to 4294967295, not '-1'"),
        ("--seed 9999999999999", "argument --seed: must be an integer from 0 to 4294967295, not '9999999999999'"),
        ("--lr nan", "argument --lr: must be a number from 0, not 'nan'"),
        ("--device foo", "argument --device: 'foo' is not cpu, cuda or cuda:N"),
        ("--device cuda", "argument --device: cuda: PyTorch finds 0 GPUs, and each process needs one"),
        ("--data nowhere", "no such folder: nowhere"),
        ("--weights nowhere", "no such file: nowhere"),
        ("--predict nowhere", "no such file: nowhere"),
        ("--head new", "--head new needs --weights"),
        ("--output {file}", "--output {file} is not a folder"),
    ],
)
def test_wrong_options_are_one_line(
    words: str, message: str, run: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong value is an error that names the option, before anything is written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    file = tmp_path / "file"
    file.touch()

    arguments = words.format(file=file).split()
    assert run_program(run[0], *arguments) == f"train.py: {message.format(file=file)}"
    assert list(tmp_path.iterdir()) == [file]


def test_more_processes_than_gpus_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third process of a machine with two GPUs has none."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")

    assert options.device("cuda:1") == "cuda:1"
    with pytest.raises(Exception, match="cuda: PyTorch finds 2 GPUs, and each process needs one"):
        options.device("cuda")


# --- divergence and signals ------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_ends_the_run(
    run: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is named, the status is not 0, and the last good checkpoint stays as it is."""
    path, _ = run
    assert run_program(path, "--output", tmp_path, *QUICK) == ""
    before = {file.name: file.read_bytes() for file in tmp_path.glob("*.*") if file.is_file()}
    with program_modules(path.parent) as load:
        train = load("train")
        original, steps = train.train_step, 0

        def train_step(*arguments: Any) -> Any:
            nonlocal steps
            steps += 1
            loss, logits = original(*arguments)
            return loss * (math.nan if steps == 2 else 1), logits

        train.train_step = train_step
        words = ("--output", tmp_path, *QUICK, "--resume", "--epochs", 2)
        monkeypatch.setattr(sys, "argv", ["train.py", *map(str, words)])
        with pytest.raises(SystemExit) as exit:
            train.main()
    last = tmp_path / "last.pt"

    assert exit.value.code == f"epoch 2, batch 2: the loss is nan: training diverged; {last} is unchanged"
    for name in ("last.pt", "best.safetensors", "log.jsonl"):
        assert (tmp_path / name).read_bytes() == before[name]


def test_sigterm_writes_a_checkpoint(run: tuple[Path, Path], tmp_path: Path) -> None:
    """Slurm, Kubernetes and torchrun end a process by SIGTERM: it ends after the batch, and resumes exactly."""
    path, output = run
    options = (*QUICK, "--log-every", 100)
    message = run_program(path, "--output", tmp_path, *options, interrupt_at=2, number=signal.SIGTERM)

    assert message == f"interrupted; resume with --resume from {tmp_path / 'last.pt'}"
    assert torch_checkpoint(tmp_path)["step"] == 2
    assert run_program(path, "--output", tmp_path, *options, "--resume") == ""
    assert identical(torch_checkpoint(tmp_path), torch_checkpoint(output))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_status_tells_the_signal(number: int, status: int, run: tuple[Path, Path], tmp_path: Path) -> None:
    """As shells have it, the status of an interrupted run is 128 and the signal."""
    process = start_program(run[0], "--output", tmp_path, "--epochs", 10_000)
    try:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("epoch 1/10000 step 20"):
                process.send_signal(number)
                break
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()

    assert process.returncode == status
    assert (tmp_path / "last.pt").exists()


# --- checkpoints -----------------------------------------------------------------------------------------------------


def damaged(kind: str, good: bytes, path: Path) -> None:
    """Write a damaged checkpoint."""
    state = torch.load(path, weights_only=True)
    if kind in ("key", "spec", "old"):
        if kind == "key":
            del state["epoch"]
        elif kind == "old":
            del state["settings"]
        else:
            state["model"]["fc.weight"] = torch.zeros(3)
        torch.save(state, path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"epoch": 1}))
    elif kind == "list":
        torch.save([1], path)
    else:
        contents = {"empty": b"", "text": b"hello\n", "truncated": good[:-1000], "half": good[: len(good) // 2]}
        path.write_bytes(contents[kind])


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "half", "pickle", "list", "key", "spec", "old"])
def test_a_damaged_checkpoint_is_a_clear_error(kind: str, run: tuple[Path, Path], tmp_path: Path) -> None:
    """It is one line with the file's name, and the file is left as it is."""
    path, output = run
    last = tmp_path / "last.pt"
    last.write_bytes((output / "last.pt").read_bytes())
    damaged(kind, last.read_bytes(), last)
    before = last.read_bytes()
    message = run_program(path, "--output", tmp_path, *QUICK, "--resume", "--epochs", 2)

    assert message.startswith(f"{last} "), message
    assert re.search("not a checkpoint|damaged|does not fit", message), message
    assert "\n" not in message
    assert last.read_bytes() == before


def test_a_flipped_bit_is_noticed(run: tuple[Path, Path], tmp_path: Path) -> None:
    """A bit anywhere in last.pt is an error, or makes no difference."""
    good = (run[1] / "last.pt").read_bytes()
    state, last = torch_checkpoint(run[1]), tmp_path / "last.pt"
    noticed = 0
    for content in flipped_bits(good):
        last.write_bytes(content)
        try:
            files.check_archive(last)
            checkpoint.read(last)
        except DataError:
            noticed += 1
        else:
            assert identical(torch_checkpoint(tmp_path), state)
    assert noticed > 150


@pytest.mark.parametrize(
    ("words", "difference"),
    [
        (("--batch-size", 32), "with --batch-size 64"),
        (("--seed", 1), "with --seed 0"),
        (("--lr", 0.1), "with --lr 0.05"),
        (("--momentum", 0.5), "with --momentum 0.9"),
        (("--weight-decay", 0), "with --weight-decay 0.0001"),
        (("--precision", "fp64"), "with --precision fp32"),
        (("--limit-batches", 2), "with --limit-batches 3"),
        (
            ("--data",),
            "for 1437 training images, 360 validation images, 10 classes, "
            "not 2 training images, 2 validation images, 2 classes",
        ),
    ],
)
def test_other_settings_do_not_resume(
    words: tuple[Any, ...], difference: str, run: tuple[Path, Path], tmp_path: Path
) -> None:
    """A resumption with another setting is refused, and the difference is said."""
    path, output = run
    if words == ("--data",):
        for name in ("train/a/0", "train/b/0", "val/a/0", "val/b/0"):
            write_image(tmp_path / f"{name}.png", 0)
        words = ("--data", tmp_path)
    message = run_program(path, "--output", output, *QUICK, "--resume", *words, "--epochs", 2)

    hint = "resume with the same options, or choose another --output"
    assert message == f"{output / 'last.pt'} was written {difference}: {hint}"


def test_a_finished_run_says_so(run: tuple[Path, Path]) -> None:
    """Resuming a finished run says how to go on; there is nothing to resume where no run was."""
    path, output = run
    assert run_program(path, "--output", output, *QUICK, "--resume") == "1 of 1 epochs are done: --epochs trains more"
    message = run_program(path, "--output", output / "new", *QUICK, "--resume")
    assert message == f"{output / 'new' / 'last.pt'} does not exist: there is nothing to resume"


def test_two_runs_do_not_share_a_folder(run: tuple[Path, Path], tmp_path: Path) -> None:
    """A folder that another process writes to is refused; unfinished files of processes that are gone are removed."""
    unfinished = tmp_path / ".last.pt.1234.partial"
    unfinished.touch()
    lock = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(); time.sleep(99)"
    other = subprocess.Popen([sys.executable, "-c", lock, str(tmp_path / ".lock")], stdout=subprocess.PIPE)
    try:
        assert other.stdout
        other.stdout.readline()
        message = run_program(run[0], "--output", tmp_path, *QUICK)
        assert unfinished.exists()
    finally:
        other.kill()
        other.communicate()

    assert message == f"another run is writing to {tmp_path}: choose another --output"
    assert run_program(run[0], "--output", tmp_path, *QUICK) == ""
    assert not unfinished.exists()


@pytest.mark.slow
def test_the_first_process_decides_on_resumption(run: tuple[Path, Path], tmp_path: Path) -> None:
    """With disks of their own, and restart counts that differ, both go on from rank 0's checkpoint.

    The weights, and the metrics of the validation images, of which each evaluates a part, are those of one process.
    """
    path, _ = run
    options = (*QUICK, "--epochs", 2, "--precision", "fp64")
    assert run_program(path, "--output", tmp_path / "0", *options, "--epochs", 1) == ""
    assert run_program(path, "--output", tmp_path / "one", *options) == ""
    (port,) = free_ports(1)
    counts = ({"TORCHELASTIC_RESTART_COUNT": "1"}, {})
    pair = [
        start_program(
            path,
            *("--output", tmp_path / str(rank), *options),
            environment={**ONE_THREAD, **counts[rank], **rank_environment(rank, 2, port)},
        )
        for rank in range(2)
    ]
    try:
        for process in pair:
            message = process.communicate(timeout=200)[1]
            assert process.returncode == 0, message
    finally:
        for process in pair:
            process.kill()
            process.communicate()
    one, two = torch_checkpoint(tmp_path / "one"), torch_checkpoint(tmp_path / "0")

    assert not (tmp_path / "1").exists()
    assert largest_difference(one["model"], two["model"]) < 1e-12
    for a, b in zip(one["history"], two["history"], strict=True):
        assert a == pytest.approx(b, rel=1e-9)


# --- weights, evaluation, prediction ---------------------------------------------------------------------------------


def test_a_runs_weights_are_read_back(
    run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """best.safetensors has the model's names; --evaluate of it, or of last.pt, prints the run's last metrics."""
    path, output = run
    capsys.readouterr()
    printed = []
    for words in ((), ("--weights", output / "best.safetensors"), ("--weights", output / "last.pt")):
        assert run_program(path, "--output", output, *QUICK, "--evaluate", *words) == ""
        printed.append(capsys.readouterr().out)
    record = read_log(output)[-1]

    assert set(load_file(output / "best.safetensors")) == {"conv1.weight", "conv1.bias", "fc.weight", "fc.bias"}
    names = ("loss", "accuracy", "top5")
    assert printed == [" ".join(f"{name} {record[f'validation_{name}']:.4f}" for name in names) + "\n"] * 3
    message = run_program(path, "--output", tmp_path, "--evaluate")
    assert message == f"{tmp_path / 'best.safetensors'} does not exist: train first, or give --weights"


def test_a_new_head_keeps_the_other_weights(run: tuple[Path, Path], tmp_path: Path) -> None:
    """--head new initializes the last layer, for another number of classes; without it that is an error."""
    path, output = run
    for name in ("train/a/0", "train/b/0", "val/a/0", "val/b/0"):
        write_image(tmp_path / "data" / f"{name}.png", 0, (8, 8))
    weights = output / "best.safetensors"
    words = ("--data", tmp_path / "data", "--output", tmp_path / "out", *QUICK, "--weights", weights, "--lr", 0)
    message = run_program(path, *words, "--workers", 0)
    assert message.startswith(f"{weights}: weights do not match the model: size mismatch for fc.weight"), message
    assert run_program(path, *words, "--workers", 0, "--head", "new") == ""
    before, after = load_file(weights), load_file(tmp_path / "out" / "best.safetensors")

    assert torch.equal(before["conv1.weight"], after["conv1.weight"])
    assert after["fc.weight"].shape == (2, 1024)


def test_published_state_dicts_load_by_their_names(tmp_path: Path) -> None:
    """A state dict of torch.save loads, with num_batches_tracked or without; what has none is an error."""
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    other = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    other[1].running_mean += 1
    torch.save(other.state_dict(), tmp_path / "published.pth")
    checkpoint.load_weights(network, tmp_path / "published.pth")
    assert identical(network.state_dict(), other.state_dict())
    other[1].running_mean += 1
    checkpoint.save_weights(other.state_dict(), tmp_path / "ours.safetensors")
    checkpoint.load_weights(network, tmp_path / "ours.safetensors")
    assert torch.equal(network[1].running_mean, other[1].running_mean)
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "text.safetensors").write_text("no weights")
    (tmp_path / "text.pt").write_text("no weights")
    for name, message in (
        ("list.pt", "has no state dict"),
        ("text.pt", "is not a file of PyTorch, or damaged"),
        ("text.safetensors", "is not a safetensors file: "),
    ):
        with pytest.raises(DataError, match=re.escape(f"{tmp_path / name} {message}")):
            checkpoint.load_weights(network, tmp_path / name)


def test_images_are_classified(run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--predict prints the five likeliest classes of each image, with their probabilities in order."""
    path, output = run
    images = [tmp_path / f"{name}.png" for name in "ab"]
    for i, image in enumerate(images):
        write_image(image, i)
    capsys.readouterr()
    assert run_program(path, "--output", output, "--predict", *images) == ""
    lines = capsys.readouterr().out.splitlines()

    assert [lines[0], lines[6]] == [str(image) for image in images]
    for block in (lines[1:6], lines[7:]):
        assert len(block) == 5
        probabilities = [float(line.split()[0]) for line in block]
        assert probabilities == sorted(probabilities, reverse=True)
        assert {line.split()[1] for line in block} < {str(i) for i in range(10)}


# --- what a run prints and writes ------------------------------------------------------------------------------------


def test_a_run_is_reported(
    run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log lines every N steps, read from the device as often; the closing line; config.json; deterministic algorithms."""
    reads, read = [], checkpoint.Run.read
    path, _ = run
    capsys.readouterr()
    with program_modules(path.parent) as load:
        train = load("train")
        monkeypatch.setattr(sys, "argv", ["train.py", "--output", str(tmp_path), *map(str, QUICK), "--deterministic"])
        read = train.Run.read
        monkeypatch.setattr(train.Run, "read", lambda self: (reads.append(self.step), read(self)))
        use = torch.are_deterministic_algorithms_enabled
        train.main()
        deterministic = use()
        torch.use_deterministic_algorithms(False)
    lines = capsys.readouterr().out.splitlines()
    config = json.loads((tmp_path / "config.json").read_text())

    assert reads == [2, 3]  # --log-every 2, and the last of three
    assert deterministic
    assert lines[0] == "net: 10,410 parameters, 1,437 training and 360 validation images of 10 classes, on cpu"
    step = r"epoch 1/1 step 2/3  loss [\d.]+  accuracy 0\.\d+  top5 0\.\d+  [\d,]+ images/s, waiting \d+%, ETA 0:00  "
    assert re.fullmatch(step + r"memory \d+\.\d GB", lines[1])
    assert lines[2].startswith("epoch 1 loss ")
    assert re.fullmatch(r"loss [\d.]+, train acc 0\.\d{3}, test acc 0\.\d{3}", lines[3])
    assert re.fullmatch(r"[\d,]+\.\d examples/sec on cpu", lines[4])
    assert re.fullmatch(rf"best: test acc 0\.\d{{3}} in epoch 1: {tmp_path}/best\.safetensors", lines[5])
    assert config["options"]["limit_batches"] == 3
    assert config["settings"]["data"] == [1437, 360, 10]


def test_a_metric_and_a_data_set_of_ones_own(
    run: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The examples of docs/training.md, under 15 lines each, run: the metric is logged, the data set is learned."""
    monkeypatch.setattr(sys, "argv", ["train.py", "--output", str(tmp_path), "--epochs", "3", "--batch-size", "8"])
    with program_modules(run[0].parent) as load:
        train = load("train")
        exec(training_examples("torch"), train.__dict__)
        train.main()
    record = read_log(tmp_path)[-1]

    assert record["validation_accuracy"] > 0.9
    assert 0.5 < record["validation_confidence"] <= 1
    assert 0.5 < record["confidence"] <= 1
    assert "top5" not in record


def test_local_response_normalization_is_computed_in_float32() -> None:
    """With pixels of 0 to 255, squares of activations exceed float16: results are float32's."""
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.LocalResponseNorm(5, k=2.0))
    images = torch.full((1, 3, 2, 2), 300.0)
    torch.nn.init.ones_(network[0].weight)

    def results(enabled: bool) -> list[torch.Tensor]:
        network.zero_grad()
        with torch.autocast("cpu", torch.float16, enabled=enabled):
            outputs = network(images)
            outputs.sum().backward()
        return [outputs.detach().float(), network[0].weight.grad]

    expected = results(enabled=False)
    assert not torch.allclose(results(enabled=True)[0], expected[0], rtol=0.1)
    layers.widen_norms(network)
    for found, values in zip(results(enabled=True), expected, strict=True):
        assert torch.allclose(found, values, rtol=0.01)


def test_image_files_are_loaded_by_a_worker_a_core(run: tuple[Path, Path], tmp_path: Path) -> None:
    """By default up to 16, shared by the processes of a machine; none for images in memory."""
    (tmp_path / "train").mkdir()
    recipe = type("recipe", (), {"NAME": "net", "EPOCHS": 1, "BATCH_SIZE": 1, "LR": 0.1, "WEIGHT_DECAY": 0.0})

    def workers(cores: int, local: str, *words: str) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["train.py", "--output", str(tmp_path / "out"), *words])
            patch.setattr(os, "sched_getaffinity", lambda process: range(cores))
            patch.setenv("LOCAL_WORLD_SIZE", local)
            return int(options.parse_options(recipe).workers)

    data = ("--data", str(tmp_path))
    assert [workers(8, "1", *data), workers(64, "1", *data), workers(64, "8", *data), workers(2, "8", *data)] == [
        8,
        16,
        8,
        1,
    ]
    assert workers(8, "1") == 0
    assert workers(8, "1", *data, "--workers", "3") == 3
