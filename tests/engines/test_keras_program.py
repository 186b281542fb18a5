"""The training program for Keras: exact resumption, the data and random draws of the PyTorch program, optimizers.

The programs run in a process that imports TensorFlow once, and in one of their own where it is killed.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers.programs import (
    ALEXNET_RECIPE,
    IMAGES,
    RGB,
    KerasServer,
    identical,
    keras_checkpoint,
    logged_values,
    program_modules,
    read_log,
    require,
    start_program,
    truncate,
    wait_for,
    write_image,
    write_program,
)
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

require("keras", "tensorflow")
pytestmark = [pytest.mark.frameworks, pytest.mark.xdist_group("keras")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KerasServer]:
    """The process that runs the programs."""
    with KerasServer(tmp_path_factory.mktemp("server") / "log") as running:
        yield running


class Runs(NamedTuple):
    """A program, an uninterrupted run, and one that was killed, stopped by Ctrl-C and resumed to the end."""

    path: Path
    uninterrupted: Path
    resumed: Path
    killed_state: dict[str, Any]
    interrupted_state: dict[str, Any]
    messages: list[str]  # of the resumption that is stopped, of one without --resume, and of the last one


@pytest.fixture(scope="module")
def runs(server: KerasServer, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Two runs of six epochs. The resumption is stopped in its 30th step."""
    folder = tmp_path_factory.mktemp("program")
    path = write_program(folder, "keras")
    uninterrupted, resumed = folder / "uninterrupted", folder / "resumed"
    killed = start_program(path, "--output", resumed)
    try:
        wait_for(resumed / "last.npz", killed)
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    killed_state = keras_checkpoint(resumed)
    assert server.run(path, "--output", uninterrupted) == ""
    messages = [server.run(path, "--output", resumed, "--resume", interrupt_at=30)]
    interrupted_state = keras_checkpoint(resumed)
    messages += [server.run(path, "--output", resumed), server.run(path, "--output", resumed, "--resume")]
    return Runs(path, uninterrupted, resumed, killed_state, interrupted_state, messages)


def test_a_run_learns_and_is_logged(runs: Runs) -> None:
    """Six epochs on the digits reach an accuracy above 0.75; log, events, curves and two checkpoints are written."""
    output, log = runs.uninterrupted, read_log(runs.uninterrupted)

    assert [record["epoch"] for record in log] == [1, 2, 3, 4, 5, 6]
    assert log[-1]["validation_accuracy"] > 0.75 > log[0]["validation_accuracy"]  # chance is 0.1
    assert [record["learning_rate"] for record in log] == pytest.approx([0.05] * 3 + [0.005] * 3)
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((output / "events").iterdir())
    best = load_file(output / "best.safetensors")
    shapes = {"conv1.weight": (16, 1, 3, 3), "conv1.bias": (16,), "fc.weight": (10, 1024), "fc.bias": (10,)}
    assert {name: weight.shape for name, weight in best.items()} == shapes
    assert [path.name for path in output.iterdir() if path.name.startswith(".")] == [".lock"]


def test_a_run_resumes_exactly(runs: Runs) -> None:
    """After kill -9, Ctrl-C within an epoch and two resumptions, the state is bit for bit an uninterrupted run's."""
    last = runs.resumed / "last.npz"
    stopped, resumed = runs.killed_state["run"], runs.interrupted_state["run"]

    assert 1 <= stopped["epoch"] < 5
    assert runs.messages == [
        f"interrupted; resume with --resume from {last}",
        f"{last} exists: resume with --resume, or choose another --output",
        "",
    ]
    assert stopped["step"] == 0
    assert (resumed["epoch"], resumed["step"]) == (stopped["epoch"] + 1, 7)  # 23 batches an epoch
    assert identical(keras_checkpoint(runs.resumed), keras_checkpoint(runs.uninterrupted))


def test_tensorboard_shows_every_epoch(runs: Runs) -> None:
    """The events of a resumed run are the records of log.jsonl."""
    log, shown = read_log(runs.resumed), logged_values(runs.resumed)

    assert [record["epoch"] for record in log] == [1, 2, 3, 4, 5, 6]
    assert shown.keys() == log[0].keys()
    for tag, steps in shown.items():
        assert dict(steps) == {record["epoch"]: pytest.approx(record[tag]) for record in log}


def test_a_broken_image_is_an_error(server: KerasServer, tmp_path: Path) -> None:
    """An image that cannot be read ends the program with its path. That pixels are PyTorch's is a check of `verify`."""
    path = write_program(tmp_path, "keras", ALEXNET_RECIPE, RGB)
    for i, name in enumerate(IMAGES):
        write_image(tmp_path / "data" / f"{name}.png", i)
    broken = tmp_path / "data" / "val" / "b" / "0.png"
    truncate(broken)
    message = server.run(path, "--data", tmp_path / "data", "--output", tmp_path / "bad")
    assert message.startswith(f"{broken} cannot be read as an image: "), message
    assert "\n" not in message


def test_a_full_disk_leaves_no_checkpoint(server: KerasServer, tmp_path: Path) -> None:
    """A checkpoint that cannot be written is a one-line error, and no part of it is left."""
    path = write_program(tmp_path, "keras")
    message = server.run(path, "--output", tmp_path / "full", "--epochs", 1, file_limit=8192)

    assert message.endswith("File too large")
    assert "\n" not in message
    assert not [one for one in (tmp_path / "full").iterdir() if one.is_file() and one.suffix == ".npz"]


def test_a_full_disk_keeps_the_last_checkpoint(server: KerasServer, runs: Runs, tmp_path: Path) -> None:
    """The checkpoint before the one that cannot be written is kept."""
    import shutil

    shutil.copytree(runs.uninterrupted, tmp_path / "full")
    before = (tmp_path / "full" / "last.npz").read_bytes()
    message = server.run(runs.path, "--output", tmp_path / "full", "--resume", "--epochs", 7, file_limit=8192)

    assert message.endswith("File too large")
    assert (tmp_path / "full" / "last.npz").read_bytes() == before
    assert not list((tmp_path / "full").glob(".*partial"))


def test_initial_weights_are_loaded(server: KerasServer, tmp_path: Path) -> None:
    """--weights loads a safetensors file in PyTorch's layouts; one that does not match is an error."""
    path = write_program(tmp_path, "keras")
    random = np.random.default_rng(0)
    shapes = {"conv1.weight": (16, 1, 3, 3), "conv1.bias": (16,), "fc.weight": (10, 1024), "fc.bias": (10,)}
    weights = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(weights, tmp_path / "good.safetensors")
    save_file({"conv1.weight": np.zeros(1, np.float32)}, tmp_path / "bad.safetensors")
    words = ("--epochs", 1, "--limit-batches", 1, "--lr", 0, "--weights", tmp_path / "good.safetensors")
    assert server.run(path, "--output", tmp_path / "a", *words) == ""
    message = server.run(path, "--output", tmp_path / "b", "--weights", tmp_path / "bad.safetensors")
    best = load_file(tmp_path / "a" / "best.safetensors")
    assert best.keys() == weights.keys()
    assert all(np.array_equal(best[name], weight) for name, weight in weights.items())

    assert message.startswith(f"{tmp_path / 'bad.safetensors'}: weights do not match the model: ")


RESIZED = """training:
  optimizer: {sgd: {lr: 0.1}}
  preprocessing: [rescale]
  augmentation: [{random_resized_crop: {size: 16, scale: [0.2, 0.9], ratio: [0.5, 1.5]}}]
  evaluation: [{resize: 20}, {center_crop: 16}]
"""


@pytest.mark.parametrize("size", [(60, 40), (64, 14)])
def test_resized_crops_are_torchvisions(size: tuple[int, int], server: KerasServer, tmp_path: Path) -> None:
    """The same crops, of 200 draws: also where few crops fit, and the center is taken."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchvision")
    from archspec.engines.torch.data import Images
    from archspec.engines.torch.transforms import Statistics

    count, shape = 200, "{channels: 3, height: 16, width: 16}"
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    np.save(tmp_path / "image.npy", image)
    path = write_program(tmp_path, "keras", RESIZED, shape)
    server(
        "resized_crops", folder=path.parent, image=tmp_path / "image.npy", count=count, output=tmp_path / "crops.npz"
    )
    keras = dict(np.load(tmp_path / "crops.npz"))

    with program_modules(write_program(tmp_path, "torch", RESIZED, shape).parent) as load:
        prepare, augment, evaluate = load("recipe").make_transforms(Statistics())
    pixels = torch.from_numpy(image).permute(2, 0, 1).expand(count, -1, -1, -1)
    source = torch.utils.data.TensorDataset(pixels, torch.zeros(count))
    drawn = Images(source, prepare, augment, 0).__getitems__([(0, i) for i in range(count)])
    augmented = np.stack([crop.permute(1, 2, 0).numpy() for crop, _ in drawn])
    evaluated = Images(source, prepare, evaluate, 0).__getitems__([(0, 0)])[0][0].permute(1, 2, 0).numpy()

    assert np.abs(evaluated - keras["evaluated"]).max() < 1e-5
    assert np.abs(augmented - keras["augmented"]).max() < 1e-4
    assert len({crop.tobytes() for crop in augmented}) > (150 if size == (60, 40) else 50)


@pytest.mark.parametrize("groups", [2, 8])
def test_split_groups_changes_no_values(groups: int, server: KerasServer, runs: Runs, tmp_path: Path) -> None:
    """Weights stay bit for bit; outputs and gradients of a grouped convolution stay to rounding in float64."""
    path = tmp_path / "arrays.npz"
    assert server("split_groups", folder=runs.path.parent, groups=groups, output=path) is True
    arrays = dict(np.load(path))
    names = [name.partition(".")[2] for name in arrays if name.startswith("before.")]

    assert sorted(names) == ["gradient0", "gradient1", "outputs", "weight0", "weight1"]
    for name in names:
        before, after = arrays[f"before.{name}"], arrays[f"after.{name}"]
        if name.startswith("weight"):
            assert np.array_equal(before, after)
        else:
            assert np.abs(before - after).max() < 1e-12 * np.abs(before).max()


Array = NDArray[np.float64]
State = tuple[Array, Array]


def caffe_sgd(w: Array, g: Array, state: State, rate: float, decay: float, step: int) -> tuple[Array, State]:
    """v = momentum * v - rate * (g + decay * w); w = w + v."""
    v = 0.9 * state[0] - rate * (g + decay * w)
    return w + v, (v, v)


def plain_sgd(w: Array, g: Array, state: State, rate: float, decay: float, step: int) -> tuple[Array, State]:
    """w = w - rate * (g + decay * w)."""
    return w - rate * (g + decay * w), state


def sgd(w: Array, g: Array, state: State, rate: float, decay: float, step: int) -> tuple[Array, State]:
    """b = momentum * b + g + decay * w; w = w - rate * b."""
    b = 0.9 * state[0] + g + decay * w
    return w - rate * b, (b, b)


def nesterov(w: Array, g: Array, state: State, rate: float, decay: float, step: int) -> tuple[Array, State]:
    """b = momentum * b + g + decay * w; w = w - rate * (g + decay * w + momentum * b)."""
    b = 0.9 * state[0] + g + decay * w
    return w - rate * (g + decay * w + 0.9 * b), (b, b)


def adam(w: Array, g: Array, state: State, rate: float, decay: float, step: int) -> tuple[Array, State]:
    """Algorithm 1 of Kingma and Ba (2015), with betas 0.8 and 0.95 and epsilon 1e-3, on g + decay * w."""
    g = g + decay * w
    m, v = 0.8 * state[0] + 0.2 * g, 0.95 * state[1] + 0.05 * g**2
    return w - rate * (m / (1 - 0.8**step)) / (np.sqrt(v / (1 - 0.95**step)) + 1e-3), (m, v)


def adamw(w: Array, g: Array, state: State, rate: float, decay: float, step: int) -> tuple[Array, State]:
    """w = w - rate * decay * w; then Adam on g."""
    return adam(w - rate * decay * w, g, state, rate, 0.0, step)


@pytest.mark.parametrize(
    ("name", "arguments", "formula"),
    [
        ("CaffeSGD", {"momentum": 0.9}, caffe_sgd),
        ("CaffeSGD", {}, plain_sgd),
        ("SGD", {"momentum": 0.9}, sgd),
        ("SGD", {"momentum": 0.9, "nesterov": True}, nesterov),
        ("SGD", {}, plain_sgd),
        ("Adam", {"betas": [0.8, 0.95], "eps": 1e-3}, adam),
        ("AdamW", {"betas": [0.8, 0.95], "eps": 1e-3}, adamw),
    ],
)
@pytest.mark.parametrize("multipliers", [None, [[1.0, 1.0], [2.0, 0.0]]], ids=["alike", "multipliers"])
def test_optimizers_are_their_formulas(
    name: str,
    arguments: dict[str, Any],
    formula: Any,
    multipliers: list[list[float]] | None,
    server: KerasServer,
    runs: Runs,
    tmp_path: Path,
) -> None:
    """In float64 ten steps are NumPy's, with a rate that falls and an optimizer made anew from its configuration."""
    random = np.random.default_rng(0)
    weights: list[Array] = [random.normal(size=shape) for shape in ((3, 4), (5,))]
    gradients: list[Array] = [random.normal(size=(10, *weight.shape)) for weight in weights]
    arrays = {
        f"{kind}{i}": values for kind, both in (("w", weights), ("g", gradients)) for i, values in enumerate(both)
    }
    np.savez(tmp_path / "inputs.npz", **arrays)
    rates = [0.1] * 4 + [0.01] * 6
    options = {**arguments, "weight_decay": 0.03, "multipliers": multipliers}
    config = server(
        "update_steps",
        folder=runs.path.parent,
        name=name,
        arguments=options,
        rates=rates,
        inputs=tmp_path / "inputs.npz",
        output=tmp_path / "outputs.npz",
    )
    found = dict(np.load(tmp_path / "outputs.npz"))

    assert json.loads(json.dumps(config)) == options
    states: list[State] = [(np.zeros_like(weight), np.zeros_like(weight)) for weight in weights]
    for step, rate in enumerate(rates):
        for i, (scale, decay) in enumerate(multipliers or [[1.0, 1.0], [1.0, 1.0]]):
            weights[i], states[i] = formula(
                weights[i], gradients[i][step], states[i], rate * scale, 0.03 * decay, step + 1
            )
            assert np.allclose(found[f"{step}.w{i}"], weights[i], rtol=1e-12, atol=1e-13)
