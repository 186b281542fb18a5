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
    write_cifar,
    write_idx,
    write_image,
    write_program,
)
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from archspec.engines.keras import data
from archspec.engines.keras.errors import DataError

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


def test_images_equal_those_of_the_pytorch_program(server: KerasServer, tmp_path: Path) -> None:
    """Ten crops minus the mean, of image files, are those of the PyTorch program; augmentation repeats by epoch."""
    pytest.importorskip("torchvision")
    from archspec.engines.torch import data as torch_data
    from archspec.engines.torch import transforms as torch_transforms

    path = write_program(tmp_path, "keras", ALEXNET_RECIPE, RGB)
    for i, name in enumerate(IMAGES):
        write_image(tmp_path / "data" / f"{name}.png", i, (14, 13) if i % 2 else (9, 17))
    server("transform_images", folder=path.parent, data=tmp_path / "data", output=tmp_path)
    found = {name: dict(np.load(tmp_path / f"{name}.npz")) for name in ("evaluated", "augmented")}
    keras, augmented = found["evaluated"], found["augmented"]

    with program_modules(write_program(tmp_path, "torch", ALEXNET_RECIPE, RGB).parent) as load:
        recipe = load("recipe")
    source = torch_data.read_data(tmp_path / "data")
    statistics = torch_transforms.measure(source.train, recipe.measured(), tmp_path / "statistics.pt")
    prepare, _, evaluate = recipe.make_transforms(statistics)
    expected = {f"arr_{i}": evaluate(prepare(source.validation[i][0])).permute(0, 2, 3, 1).numpy() for i in range(2)}
    expected["mean"] = statistics.mean.permute(1, 2, 0).numpy()

    assert expected["arr_0"].shape == (10, 8, 8, 3)
    for key, values in expected.items():
        # resized pixels are rounded to integers, which may differ by one
        assert np.abs(values - keras[key]).max() <= 2  # of 255: one of an image's, one of the mean's
        assert np.abs(values - keras[key]).mean() < 0.5
    assert np.allclose(np.abs(statistics.colors.numpy()) / 255, np.abs(keras["colors"]) / 255, atol=0.5)
    assert augmented["arr_0"].shape == (2, 8, 8, 3)
    assert np.array_equal(augmented["arr_0"], augmented["arr_2"])
    assert not np.array_equal(augmented["arr_0"], augmented["arr_1"])

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


def test_mnists_and_cifars_files_are_read(tmp_path: Path) -> None:
    """The arrays are those of the PyTorch engine, with the channels last; a truncated file is an error."""
    images, labels = np.arange(5 * 6 * 7, dtype=np.uint8).reshape(5, 6, 7), np.array([3, 1, 4, 1, 2], np.uint8)
    write_idx(tmp_path, images, labels)
    found = data.read_data(tmp_path)
    for pixels, numbers in (found.train, found.validation):
        assert np.array_equal(pixels[..., 0], images)
        assert numbers.tolist() == labels.tolist()
    assert found.num_classes == 5
    for name in ("t10k-images-idx3-ubyte", "train-images-idx3-ubyte.gz"):
        path = tmp_path / name
        content = path.read_bytes()
        for bad in (content[:-1], b"\0\0\x09" + content[3:], b""):
            path.write_bytes(bad)
            with pytest.raises(DataError, match=f"{name}: truncated or invalid (idx|gzip) file"):
                data.read_data(tmp_path)
        path.write_bytes(content)

    write_cifar(tmp_path)
    pixels, numbers = data.read_data(tmp_path).train
    assert pixels.shape == (10, 32, 32, 3)
    assert numbers.tolist() == [7] * 10
    assert pixels[0, 2, 3, 1] == (1024 + 2 * 32 + 3) % 251  # red, green, blue; by rows
    content = (tmp_path / "test_batch.bin").read_bytes()
    for bad in (content[:-1], b""):
        (tmp_path / "test_batch.bin").write_bytes(bad)
        with pytest.raises(DataError, match=r"test_batch\.bin: truncated or invalid CIFAR-10 file"):
            data.read_data(tmp_path)


def test_a_missing_data_set_is_an_error(tmp_path: Path) -> None:
    """A folder that does not exist, or without images, or with different classes is an error with its path."""
    empty, no_images, different = (tmp_path / name for name in ("empty", "no_images", "different"))
    empty.mkdir()
    for part in ("train", "val"):
        (no_images / part / "a").mkdir(parents=True)
    for name in ("train/a/0", "val/b/0"):
        write_image(different / f"{name}.png", 0)
    for folder, message in (
        (tmp_path / "nowhere", f"no such folder: {tmp_path / 'nowhere'}"),
        (empty, f"{empty} has neither train/ and val/, nor MNIST's or CIFAR-10's files"),
        (no_images, f"{no_images / 'train'}: no images found"),
        (different, f"{different}: train/ and val/ have different classes"),
    ):
        with pytest.raises(DataError) as caught:
            data.read_data(folder)
        assert str(caught.value) == message


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
def test_resized_crops_have_torchvisions_distribution(
    size: tuple[int, int], server: KerasServer, tmp_path: Path
) -> None:
    """Areas, aspect ratios and places are distributed as torchvision's, also where few crops fit."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchvision")
    from scipy.stats import ks_2samp

    from archspec.engines.torch.data import Images
    from archspec.engines.torch.transforms import Statistics

    count, shape = 1500, "{channels: 3, height: 16, width: 16}"
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.uint8)
    image = np.stack([2 * rows, 2 * columns, rows + columns], axis=-1)
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
    expected = {
        "augmented": np.stack([crop.permute(1, 2, 0).numpy() for crop, _ in drawn]),
        "evaluated": Images(source, prepare, evaluate, 0).__getitems__([(0, 0)])[0][0].permute(1, 2, 0).numpy(),
    }

    assert np.abs(expected["evaluated"] - keras["evaluated"]).max() < 1e-5
    for a, b in zip(*map(measured_crops, (expected["augmented"], keras["augmented"])), strict=True):
        assert ks_2samp(a, b).pvalue > 1e-3


def measured_crops(crops: NDArray[np.float32]) -> list[NDArray[np.float64]]:
    """Return area, logarithm of the aspect ratio, and middle of crops of an image whose pixels are linear ramps."""
    row, column = crops[..., 0] * 255 / 2, crops[..., 1] * 255 / 2
    height, width = (row[:, 10, 8] - row[:, 5, 8]) * 16 / 5, (column[:, 8, 10] - column[:, 8, 5]) * 16 / 5
    middle = (row[:, 7, 8] + row[:, 8, 8]) / 2, (column[:, 8, 7] + column[:, 8, 8]) / 2
    return [np.round(values, 2) for values in (height * width, np.log(width / height), *middle)]


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
