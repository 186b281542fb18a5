"""The training program for PyTorch: exact resumption, data sets, transforms, and checkpoints on a full disk."""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from helpers.programs import (
    ALEXNET_RECIPE,
    IMAGES,
    RGB,
    altered_program,
    full_disk,
    identical,
    logged_values,
    program_modules,
    read_log,
    run_program,
    start_program,
    torch_checkpoint,
    truncate,
    wait_for,
    write_cifar,
    write_idx,
    write_image,
    write_program,
)

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")
from safetensors.torch import load_file  # noqa: E402  imports PyTorch

from archspec.engines.torch import checkpoint, data, optim, transforms  # noqa: E402  imports PyTorch

pytestmark = [pytest.mark.frameworks, pytest.mark.xdist_group("torch")]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A program, and the output of a run of six epochs."""
    folder = tmp_path_factory.mktemp("program")
    path = write_program(folder)
    assert run_program(path, "--output", folder / "uninterrupted") == ""
    return path, folder / "uninterrupted"


@pytest.fixture(scope="module")
def interrupted(uninterrupted: tuple[Path, Path]) -> tuple[Path, str]:
    """The output of the run stopped by Ctrl-C in its 30th step, the 7th of the second epoch; and its message."""
    path, output = uninterrupted
    message = run_program(path, "--output", output.with_name("interrupted"), interrupt_at=30)
    return output.with_name("interrupted"), message


@pytest.fixture
def alexnet_recipe(tmp_path: Path) -> ModuleType:
    """The generated recipe with AlexNet's transforms: mean image, PCA noise, ten crops."""
    path = write_program(tmp_path, recipe=ALEXNET_RECIPE, size=RGB)
    with program_modules(path.parent) as load:
        return load("recipe")


def test_a_run_learns_and_is_logged(uninterrupted: tuple[Path, Path]) -> None:
    """Six epochs on the digits reach an accuracy above 0.75; log, events, curves and two checkpoints are written."""
    _, output = uninterrupted
    log = read_log(output)
    best = load_file(output / "best.safetensors")

    assert [record["epoch"] for record in log] == [1, 2, 3, 4, 5, 6]
    assert log[-1]["validation_accuracy"] > 0.75 > log[0]["validation_accuracy"]  # chance is 0.1
    assert [record["learning_rate"] for record in log] == pytest.approx([0.05] * 3 + [0.005] * 3)
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((output / "events").iterdir())
    assert set(best) == {"conv1.weight", "conv1.bias", "fc.weight", "fc.bias"}
    assert [path.name for path in output.iterdir() if path.name.startswith(".")] == [".lock"]


def test_a_killed_run_resumes_exactly(uninterrupted: tuple[Path, Path], tmp_path: Path) -> None:
    """After kill -9 and a resumption, weights, optimizer and history are bit for bit those of an uninterrupted run."""
    path, output = uninterrupted
    process = start_program(path, "--output", tmp_path, "--epochs", "1000")
    try:
        wait_for(tmp_path / "last.pt", process)
    finally:
        process.kill()
        process.communicate()
    epoch = torch_checkpoint(tmp_path)["epoch"]

    assert 1 <= epoch < 6
    expected = f"{tmp_path / 'last.pt'} exists: resume with --resume, or choose another --output"
    assert run_program(path, "--output", tmp_path) == expected
    assert run_program(path, "--output", tmp_path, "--resume") == ""
    assert identical(torch_checkpoint(tmp_path), torch_checkpoint(output))


def test_ctrl_c_stops_after_the_batch(
    uninterrupted: tuple[Path, Path], interrupted: tuple[Path, str], tmp_path: Path
) -> None:
    """Ctrl-C writes a checkpoint in the middle of an epoch, from which the run resumes bit for bit."""
    path, output = uninterrupted
    state = torch_checkpoint(interrupted[0])
    shutil.copytree(interrupted[0], tmp_path, dirs_exist_ok=True)

    assert interrupted[1] == f"interrupted; resume with --resume from {interrupted[0] / 'last.pt'}"
    assert (state["epoch"], state["step"]) == (1, 7)  # 1,437 images are 23 batches of 64
    assert run_program(path, "--output", tmp_path, "--resume") == ""
    assert identical(torch_checkpoint(tmp_path), torch_checkpoint(output))


def test_tensorboard_shows_every_epoch_once(uninterrupted: tuple[Path, Path], tmp_path: Path) -> None:
    """After resumptions between epochs, within one, and from before a logged epoch, events are log.jsonl's records."""
    path, _ = uninterrupted
    options = ("--output", tmp_path, "--epochs")
    assert run_program(path, *options, 1) == ""
    first = (tmp_path / "last.pt").read_bytes()
    assert run_program(path, *options, 2, "--resume") == ""
    (tmp_path / "last.pt").write_bytes(first)  # as if killed between the second epoch's log and its checkpoint
    assert run_program(path, *options, 4, "--resume", interrupt_at=30) != ""
    assert run_program(path, *options, 4, "--resume") == ""
    log, shown = read_log(tmp_path), logged_values(tmp_path)

    assert [record["epoch"] for record in log] == [1, 2, 3, 4]
    assert shown.keys() == log[0].keys()
    for tag, steps in shown.items():
        assert steps == [(record["epoch"], pytest.approx(record[tag])) for record in log]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("engine/checkpoint.py", 'self.optimizer.load_state_dict(state["optimizer"])', "pass"),
        ("engine/checkpoint.py", 'self.scheduler.load_state_dict(state["scheduler"])', "pass"),
        ("engine/checkpoint.py", 'torch.set_rng_state(state["random"][self.rank].cpu())', "pass"),
        ("engine/checkpoint.py", "sampler.first = self.step", "sampler.first = 0"),
    ],
    ids=["velocity", "schedule", "random state", "position"],
)
def test_incomplete_resumption_is_detected(
    uninterrupted: tuple[Path, Path], interrupted: tuple[Path, str], file: str, old: str, new: str, tmp_path: Path
) -> None:
    """Without the velocity, the schedule, the random state or the position in the epoch, the final weights differ."""
    path, output = uninterrupted
    faulty = altered_program(path, tmp_path / "pytorch", file, old, new)
    shutil.copytree(interrupted[0], tmp_path / "out")
    assert run_program(faulty, "--output", tmp_path / "out", "--resume") == ""

    assert not identical(torch_checkpoint(tmp_path / "out")["model"], torch_checkpoint(output)["model"])


@pytest.mark.parametrize("precision", ["fp16", pytest.param("bf16", marks=pytest.mark.slow)])
def test_16_bit_training_resumes_exactly(precision: str, uninterrupted: tuple[Path, Path], tmp_path: Path) -> None:
    """A run in 16 bits trains and resumes bit for bit; in fp16 the checkpoint has the loss scale."""
    path, output = uninterrupted
    options = ("--precision", precision, "--epochs", 3)
    assert run_program(path, "--output", tmp_path / "uninterrupted", *options) == ""
    assert run_program(path, "--output", tmp_path / "resumed", *options, interrupt_at=30) != ""
    scaler = torch_checkpoint(tmp_path / "resumed")["scaler"]
    assert scaler["scale"] >= 1.0 if precision == "fp16" else scaler == {}
    assert run_program(path, "--output", tmp_path / "resumed", "--resume", *options) == ""
    state = torch_checkpoint(tmp_path / "uninterrupted")

    assert identical(torch_checkpoint(tmp_path / "resumed"), state)
    assert state["history"][-1]["validation_accuracy"] > 0.6  # chance is 0.1
    assert state["history"][:3] != torch_checkpoint(output)["history"][:3]  # of float32


@pytest.mark.slow
def test_random_draws_do_not_depend_on_workers(uninterrupted: tuple[Path, Path], tmp_path: Path) -> None:
    """Two loader processes give the same run as none; another seed gives another run."""
    path, output = uninterrupted
    assert run_program(path, "--output", tmp_path / "two", "--workers", 2) == ""
    assert run_program(path, "--output", tmp_path / "seed", "--seed", 1) == ""

    assert identical(torch_checkpoint(tmp_path / "two"), torch_checkpoint(output))
    assert not identical(torch_checkpoint(tmp_path / "seed")["model"], torch_checkpoint(output)["model"])


def test_a_full_disk_keeps_the_last_checkpoint(uninterrupted: tuple[Path, Path], tmp_path: Path) -> None:
    """A checkpoint that cannot be written is a one-line error; the one before is kept, and no temporary file."""
    path, output = uninterrupted
    shutil.copytree(output, tmp_path / "full")
    before = (tmp_path / "full" / "last.pt").read_bytes()
    with contextlib.redirect_stdout(io.StringIO()), full_disk(4096):
        message = run_program(path, "--output", tmp_path / "full", "--resume", "--epochs", "7")

    assert message.endswith("File too large")
    assert "\n" not in message
    assert (tmp_path / "full" / "last.pt").read_bytes() == before
    assert not list((tmp_path / "full").glob(".*pt*"))
    with full_disk(4096), pytest.raises(OSError, match="File too large"):
        checkpoint.save(torch.zeros(2000), tmp_path / "full" / "last.pt")
    assert (tmp_path / "full" / "last.pt").read_bytes() == before


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named(workers: int, tmp_path: Path) -> None:
    """A program with AlexNet's transforms reads a folder of images; a truncated file is an error with its path."""
    path = write_program(tmp_path, recipe=ALEXNET_RECIPE, size=RGB)
    for i, name in enumerate(IMAGES):
        write_image(tmp_path / "data" / f"{name}.png", i)
    options = ("--data", tmp_path / "data", "--workers", workers)
    if not workers:
        assert run_program(path, *options, "--output", tmp_path / "good") == ""
    broken = tmp_path / "data" / "val" / "b" / "0.png"
    truncate(broken)
    message = run_program(path, *options, "--output", tmp_path / "bad")

    assert message.startswith(f"{broken} cannot be read as an image: "), message
    assert "\n" not in message


def test_initial_weights_are_loaded(tmp_path: Path) -> None:
    """--weights loads a safetensors file with the model's names; one that does not match is an error."""
    from safetensors.torch import save_file

    path = write_program(tmp_path)
    with program_modules(path.parent) as load:
        save_file(load("model").Net(num_classes=10).state_dict(), tmp_path / "good.safetensors")
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "bad.safetensors")
    output = tmp_path / "out"
    assert run_program(path, "--output", output, "--weights", tmp_path / "good.safetensors", "--evaluate") == ""
    with program_modules(path.parent) as load:
        network = load("model").Net(num_classes=10)
        load("engine.checkpoint").load_weights(network, tmp_path / "good.safetensors")
    message = run_program(path, "--output", tmp_path / "no", "--weights", tmp_path / "bad.safetensors")

    assert identical(dict(network.state_dict()), load_file(tmp_path / "good.safetensors"))
    assert message.startswith(f"{tmp_path / 'bad.safetensors'}: weights do not match the model: ")
    assert "size mismatch for conv1.weight" in message


def test_a_missing_data_set_is_an_error(tmp_path: Path) -> None:
    """A folder that does not exist, one without a data set, and one with different classes are errors with the path."""
    path = write_program(tmp_path)
    missing, empty, different = (tmp_path / name for name in ("nowhere", "empty", "different"))
    empty.mkdir()
    for name in ("train/a/0", "val/b/0"):
        write_image(different / f"{name}.png", 0)
    messages = [
        run_program(path, "--data", folder, "--output", tmp_path / "out") for folder in (missing, empty, different)
    ]

    assert messages == [
        f"train.py: no such folder: {missing}",
        f"{empty} has neither train/ and val/, nor MNIST's or CIFAR-10's files",
        f"{different}: train/ and val/ have different classes: a is only in train/",
    ]


def test_arrays_are_channels_first(tmp_path: Path) -> None:
    """MNIST's images are (N, 1, H, W), CIFAR-10's (N, 3, H, W)."""
    images = np.arange(5 * 6 * 7, dtype=np.uint8).reshape(5, 6, 7)
    write_idx(tmp_path, images, np.array([3, 1, 4, 1, 2], np.uint8))
    pixels, labels = data.read_data(tmp_path).train.tensors
    assert np.array_equal(pixels.numpy()[:, 0], images)
    assert labels.tolist() == [3, 1, 4, 1, 2]

    write_cifar(tmp_path)
    pixels, labels = data.read_data(tmp_path).train.tensors
    assert pixels.shape == (10, 3, 32, 32)
    assert pixels[0, 1, 2, 3] == (1024 + 2 * 32 + 3) % 251


def test_statistics_equal_numpys(alexnet_recipe: ModuleType, tmp_path: Path) -> None:
    """The mean image, and eigenvectors times eigenvalues of the colors' covariance; PCA noise has its variance."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3, 12, 12)).astype(np.uint8)
    pixels[:, 1] = pixels[:, 0] // 2 + 20  # correlated colors
    images = torch.utils.data.TensorDataset(torch.from_numpy(pixels), torch.zeros(20))
    statistics = transforms.measure(images, alexnet_recipe.measured(), tmp_path / "statistics.pt")
    colors = np.moveaxis(pixels.astype(np.float64), 1, -1).reshape(-1, 3)
    values, vectors = np.linalg.eigh(np.cov(colors.T, bias=True))
    expected = vectors * values / 255

    assert np.allclose(statistics.mean.numpy(), pixels.mean(axis=0), atol=1e-4)
    assert np.allclose(np.abs(statistics.colors.numpy()) / 255, np.abs(expected), atol=1e-4)
    stored = transforms.measure([], alexnet_recipe.measured(), tmp_path / "statistics.pt")
    assert identical(stored._asdict(), statistics._asdict())
    assert identical(transforms.measure(images, None, tmp_path / "no.pt"), transforms.Statistics())

    torch.manual_seed(0)
    noise = alexnet_recipe.make_transforms(statistics).augment.transforms[-1]
    draws = np.stack([noise(torch.zeros(3, 2, 2)).numpy() for _ in range(4000)])
    assert np.all(draws == draws[:, :, :1, :1])  # one draw an image
    variance = expected @ expected.T * 0.25
    assert np.allclose(np.cov(draws[:, :, 0, 0].T), variance, atol=0.1 * np.abs(variance).max())


def test_ten_crops_are_averaged(tmp_path: Path) -> None:
    """The ten crops are corners, center and reflections; their probabilities are averaged, not their logits."""
    path = write_program(tmp_path, recipe=ALEXNET_RECIPE, size=RGB)
    with program_modules(path.parent) as load:
        train, recipe = load("train"), load("recipe")
        processes = load("engine.distributed").Processes("cpu")
    statistics = transforms.Statistics(torch.zeros(3, 12, 12), torch.zeros(3, 3))
    prepare, _, evaluate = recipe.make_transforms(statistics)
    pixels = torch.arange(3 * 12 * 12, dtype=torch.uint8).view(1, 3, 12, 12)
    image = pixels[0].float()
    places = ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2))
    expected_crops = [side[:, y : y + 8, x : x + 8] for side in (image, image.flip(2)) for y, x in places]
    crops = evaluate(prepare(pixels)[0])

    assert torch.equal(crops, torch.stack(expected_crops))
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))
    batches = [(crops[None] / 432, torch.tensor([4]), 1)]
    with torch.no_grad():
        expected = -float(model(crops / 432).softmax(1).mean(0).log()[4])
    assert train.evaluate(model, batches, processes)["loss"] == pytest.approx(expected, rel=1e-5)
    model[1].weight.data *= 1e4  # where a softmax underflows, and its logarithm was infinite
    assert 200 < train.evaluate(model, batches, processes)["loss"] < 1e4


@pytest.mark.parametrize("fused", [False, True])
def test_caffe_sgd_is_its_formula(fused: bool) -> None:
    """CaffeSGD's velocity has the learning rate of its step, in each parameter group with its rate and decay."""
    random = np.random.default_rng(0)
    weights = [random.normal(size=shape) for shape in ((3, 4), (5,))]
    params = [torch.nn.Parameter(torch.from_numpy(w.copy())) for w in weights]
    rates, decays = [0.1, 0.2], [0.01, 0.0]
    groups = [{"params": [p], "lr": r, "weight_decay": d} for p, r, d in zip(params, rates, decays, strict=True)]
    optimizer = optim.CaffeSGD(groups, lr=1.0, momentum=0.9, fused=fused)
    velocities = [np.zeros_like(w) for w in weights]
    for step in range(6):
        scale = 1.0 if step < 3 else 0.1
        for i, param in enumerate(params):
            gradient = random.normal(size=weights[i].shape)
            param.grad = torch.from_numpy(gradient)
            optimizer.param_groups[i]["lr"] = scale * rates[i]
            velocities[i] = 0.9 * velocities[i] - scale * rates[i] * (gradient + decays[i] * weights[i])
            weights[i] = weights[i] + velocities[i]
        optimizer.step()
        for param, weight in zip(params, weights, strict=True):
            assert np.allclose(param.detach().numpy(), weight, rtol=1e-13, atol=1e-15)


def test_the_program_imports_no_tensorflow() -> None:
    """Writing TensorBoard's events does not import TensorFlow."""
    assert "tensorflow" not in sys.modules
