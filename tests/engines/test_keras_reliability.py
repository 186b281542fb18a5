"""The Keras program where something goes wrong, and what it prints and writes: as the PyTorch program."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ROOT
from helpers.programs import (
    ALEXNET_RECIPE,
    IMAGES,
    RGB,
    KerasServer,
    flipped_bits,
    identical,
    keras_checkpoint,
    read_log,
    require,
    training_examples,
    write_image,
    write_program,
)
from safetensors.numpy import load_file

from archspec.engines.keras import files
from archspec.engines.keras.errors import DataError

require("keras", "tensorflow")
pytestmark = [pytest.mark.frameworks, pytest.mark.xdist_group("keras")]
QUICK = ("--epochs", 1, "--limit-batches", 3, "--log-every", 2)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KerasServer]:
    """The process that runs the programs."""
    with KerasServer(tmp_path_factory.mktemp("server") / "log") as running:
        yield running


@pytest.fixture(scope="module")
def run(server: KerasServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """A program, the output of a run of one epoch of three batches, and what it printed."""
    path = write_program(tmp_path_factory.mktemp("program"), "keras")
    output = path.parent.parent / "run"
    return path, output, server.run(path, "--output", output, *QUICK, output=True).splitlines()


Run = tuple[Path, Path, list[str]]


def test_the_engines_share_files() -> None:
    """What does not depend on the framework is the same text in both engines."""
    torch, keras = (ROOT / "archspec" / "engines" / name for name in ("torch", "keras"))
    for name in ("arguments.py", "errors.py", "run.py"):
        assert (torch / name).read_text() == (keras / name).read_text(), name
    ours, theirs = ((folder / "files.py").read_text().partition("@contextmanager")[2] for folder in (keras, torch))
    assert ours.startswith(theirs.rstrip())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--batch-size 0", "argument --batch-size: must be an integer from 1, not '0'"),
        ("--epochs 0", "argument --epochs: must be an integer from 1, not '0'"),
        ("--seed 4294967296", "argument --seed: must be an integer from 0 to 4294967295, not '4294967296'"),
        ("--device foo", "argument --device: 'foo' is not cpu, cuda or cuda:N"),
        ("--device cuda", "argument --device: cuda: tensorflow finds 0 GPUs"),
        ("--device cpu --distribute", "--distribute uses all devices: leave out --device"),
        ("--data /nowhere", "no such folder: /nowhere"),
        ("--weights /nowhere", "no such file: /nowhere"),
    ],
)
def test_wrong_options_are_one_line(words: str, message: str, server: KerasServer, run: Run) -> None:
    """A wrong value is an error that names the option, before anything starts."""
    assert server.run(run[0], *words.split()) == f"train.py: {message}"


def test_a_loss_that_is_not_finite_ends_the_run(server: KerasServer, run: Run, tmp_path: Path) -> None:
    """The batch is named, and the last good checkpoint stays as it is."""
    path = run[0]
    assert server.run(path, "--output", tmp_path, *QUICK) == ""
    before = {name: (tmp_path / name).read_bytes() for name in ("last.npz", "best.safetensors", "log.jsonl")}
    message = server.run(path, "--output", tmp_path, *QUICK, "--resume", "--epochs", 2, diverge_at=2)

    last = tmp_path / "last.npz"
    assert message == f"epoch 2, batch 2: the loss is nan: training diverged; {last} is unchanged"
    assert all((tmp_path / name).read_bytes() == content for name, content in before.items())


def test_sigterm_writes_a_checkpoint(server: KerasServer, run: Run, tmp_path: Path) -> None:
    """The run ends after the batch, and resumes exactly."""
    path, output, _ = run
    message = server.run(path, "--output", tmp_path, *QUICK, interrupt_at=2, number=int(signal.SIGTERM))

    assert message == f"interrupted; resume with --resume from {tmp_path / 'last.npz'}"
    assert keras_checkpoint(tmp_path)["run"]["step"] == 2
    assert server.run(path, "--output", tmp_path, *QUICK, "--resume") == ""
    assert identical(keras_checkpoint(tmp_path), keras_checkpoint(output))


def damaged(kind: str, good: bytes, path: Path) -> bytes:
    """Return a damaged checkpoint."""
    contents = {"empty": b"", "text": b"hello\n", "truncated": good[:-1000], "half": good[: len(good) // 2]}
    if kind in contents:
        return contents[kind]
    with np.load(path) as arrays:
        state: dict[str, Any] = dict(arrays)
    values = json.loads(str(state["run"]))
    if kind == "array":
        del state["arr_0"]
    elif kind == "shape":
        state["arr_0"] = np.zeros((2, 2), np.float32)
    elif kind == "order":
        values["weights"].reverse()
    else:
        del values["epoch" if kind == "key" else "settings"]
    np.savez(path, **{**state, "run": json.dumps(values)})
    return path.read_bytes()


KINDS = ["empty", "text", "truncated", "half", "array", "shape", "order", "key", "old"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_checkpoint_is_a_clear_error(kind: str, server: KerasServer, run: Run, tmp_path: Path) -> None:
    """It is one line with the file's name, and the file is left as it is."""
    path, output, _ = run
    last = tmp_path / "last.npz"
    last.write_bytes((output / "last.npz").read_bytes())
    content = damaged(kind, last.read_bytes(), last)
    last.write_bytes(content)
    message = server.run(path, "--output", tmp_path, *QUICK, "--resume", "--epochs", 2)

    assert message.startswith(f"{last} "), message
    assert re.search("not a checkpoint|damaged|does not fit", message), message
    assert "\n" not in message
    assert last.read_bytes() == content


def test_a_flipped_bit_is_noticed(run: Run, tmp_path: Path) -> None:
    """A bit anywhere in last.npz is an error, or makes no difference."""
    good, last = (run[1] / "last.npz").read_bytes(), tmp_path / "last.npz"
    state, noticed = keras_checkpoint(run[1]), 0
    for content in flipped_bits(good):
        last.write_bytes(content)
        try:
            files.check_archive(last)
        except DataError:
            noticed += 1
        else:
            assert identical(keras_checkpoint(tmp_path), state)
    assert noticed > 150


@pytest.mark.parametrize(
    ("words", "difference"),
    [
        (("--batch-size", 32), "with --batch-size 64"),
        (("--seed", 1), "with --seed 0"),
        (("--lr", 0.1), "with --lr 0.05"),
        (("--precision", "bf16"), "with --precision fp32"),
    ],
)
def test_other_settings_do_not_resume(words: tuple[Any, ...], difference: str, server: KerasServer, run: Run) -> None:
    """A resumption with another setting is refused, and the difference is said."""
    path, output, _ = run
    message = server.run(path, "--output", output, *QUICK, "--resume", *words, "--epochs", 2)

    hint = "resume with the same options, or choose another --output"
    assert message == f"{output / 'last.npz'} was written {difference}: {hint}"


def test_two_runs_do_not_share_a_folder(server: KerasServer, run: Run, tmp_path: Path) -> None:
    """A folder that another process writes to is refused."""
    lock = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(); time.sleep(99)"
    with subprocess.Popen([sys.executable, "-c", lock, str(tmp_path / ".lock")], stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        message = server.run(run[0], "--output", tmp_path, *QUICK)
        other.kill()

    assert message == f"another run is writing to {tmp_path}: choose another --output"


def test_a_run_is_reported(run: Run) -> None:
    """Log lines every N steps, the closing line, config.json; best.safetensors has PyTorch's names."""
    _, output, lines = run
    config = json.loads((output / "config.json").read_text())

    assert lines[0] == "net: 10,410 parameters, 1,437 training and 360 validation images of 10 classes, on cpu"
    step = r"epoch 1/1 step 2/3  loss [\d.]+  accuracy 0\.\d+  top5 0\.\d+  [\d,]+ images/s, waiting \d+%, ETA 0:00  "
    assert re.fullmatch(step + r"memory \d+\.\d GB", lines[1])
    assert lines[2].startswith("epoch 1 loss ")
    assert re.fullmatch(r"loss [\d.]+, train acc 0\.\d{3}, test acc 0\.\d{3}", lines[3])
    assert re.fullmatch(r"[\d,]+\.\d examples/sec on cpu", lines[4])
    assert lines[5].endswith(str(output / "best.safetensors"))
    assert config["settings"]["data"] == [1437, 360, 10]
    assert set(load_file(output / "best.safetensors")) == {"conv1.weight", "conv1.bias", "fc.weight", "fc.bias"}


@pytest.mark.slow
def test_weights_are_read_by_the_other_framework(server: KerasServer, run: Run, tmp_path: Path) -> None:
    """--evaluate prints the same metrics of best.safetensors in both programs; --head new replaces the last layer."""
    path, output, _ = run
    torch_path = write_program(tmp_path, "torch")
    words = ("--output", output, "--evaluate", "--limit-batches", "3")
    printed = server.run(path, *words, output=True)
    command = [sys.executable, str(torch_path), *map(str, words)]
    other = subprocess.run(command, capture_output=True, text=True, check=True)
    record = read_log(output)[-1]

    names = ("loss", "accuracy", "top5")
    assert printed == " ".join(f"{name} {record[f'validation_{name}']:.4f}" for name in names) + "\n"
    assert other.stdout == printed

    for name in ("train/a/0", "train/b/0", "val/a/0", "val/b/0"):
        write_image(tmp_path / "data" / f"{name}.png", 0, (8, 8))
    weights = output / "best.safetensors"
    words = ("--data", tmp_path / "data", "--output", tmp_path / "out", *QUICK, "--weights", weights, "--lr", 0)
    message = server.run(path, *words)
    assert message.startswith(f"{weights}: weights do not match the model: size mismatch for fc."), message
    assert server.run(path, *words, "--head", "new") == ""
    before, after = load_file(weights), load_file(tmp_path / "out" / "best.safetensors")
    assert np.array_equal(before["conv1.weight"], after["conv1.weight"])
    assert after["fc.weight"].shape == (2, 1024)


def test_images_are_classified_by_ten_crops(server: KerasServer, tmp_path: Path) -> None:
    """--predict averages the probabilities of the crops; the validation loss is that of their mean."""
    recipe = ALEXNET_RECIPE.replace("subtract_mean", "rescale, subtract_mean")  # not so large that the softmax is 0
    path = write_program(tmp_path, "keras", recipe, RGB)
    for i, name in enumerate(IMAGES):
        write_image(tmp_path / "data" / f"{name}.png", i)
    words = ("--data", tmp_path / "data", "--output", tmp_path / "out")
    assert server.run(path, *words) == ""
    images = [tmp_path / "data" / "val" / name / "0.png" for name in "ab"]
    lines = server.run(path, *words, "--predict", *images, output=True).splitlines()
    found = {line.split()[1]: float(line.split()[0]) for line in lines[1:3]}
    others = {line.split()[1]: float(line.split()[0]) for line in lines[4:6]}

    assert [lines[0], lines[3]] == [str(image) for image in images]
    assert found.keys() == {"a", "b"}
    assert sum(found.values()) == pytest.approx(1, abs=1e-3)
    loss = -(np.log(found["a"]) + np.log(others["b"])) / 2
    assert read_log(tmp_path / "out")[-1]["validation_loss"] == pytest.approx(loss, rel=1e-2)


def test_a_metric_and_a_data_set_of_ones_own(server: KerasServer, run: Run, tmp_path: Path) -> None:
    """The examples of docs/training.md, under 15 lines each, run: the metric is logged, the data set is learned."""
    words = ("--output", tmp_path, "--epochs", 3, "--batch-size", 8)
    assert server.run(run[0], *words, paste=training_examples("keras")) == ""
    record = read_log(tmp_path)[-1]

    assert record["validation_accuracy"] > 0.9
    assert 0.5 < record["validation_confidence"] <= 1
    assert 0.5 < record["confidence"] <= 1
    assert "top5" not in record
