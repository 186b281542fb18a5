"""The training program for PyTorch: it resumes exactly, reads what the field has, and loses nothing."""

from __future__ import annotations

import gzip
import importlib.util
import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conftest import spec

import archspec
from archspec.emit import files
from archspec.files import write

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")
pytestmark = pytest.mark.frameworks

RECIPE = """training:
  batch_size: 64
  epochs: 6
  optimizer: {sgd: {lr: 0.05, momentum: 0.9, weight_decay: 1e-4}}
  schedule: {step: {step_size: 3, gamma: 0.1}}
  preprocessing: [rescale]
  augmentation: [{random_crop: {size: 8, padding: 1}}, {horizontal_flip: {p: 0.25}}]
"""
LAYERS = """{name: conv1, op: conv2d, out_channels: 16, kernel_size: 3, padding: 1}
{name: relu1, op: relu}
{name: flat, op: flatten}
{name: drop, op: dropout, p: 0.2}
{name: fc, op: linear, out_features: 10}"""
PAPERS = """training:
  batch_size: 2
  epochs: 1
  optimizer: {sgd: {lr: 0.001}}
  preprocessing: [{resize: 12}, {center_crop: 12}, subtract_mean]
  augmentation: [{random_crop: 8}, horizontal_flip, {pca_noise: {std: 0.5}}]
  evaluation: [{ten_crop: 8}]
"""


def program(folder: Path, head: str = RECIPE, size: str = "{channels: 1, height: 8, width: 8}") -> Path:
    """Write the program of a small network; return its path."""
    graph = archspec.build(spec(LAYERS, size, head))
    write([(folder / name, text) for name, text in files(graph, "torch").items()], folder)
    return folder / "torch_train.py"


def module(path: Path) -> ModuleType:
    """Return the program as a module."""
    sys.path.insert(0, str(path.parent))
    try:
        sys.modules.pop("torch_model", None)
        made = importlib.util.spec_from_file_location("torch_train", path)
        assert made
        assert made.loader
        loaded = importlib.util.module_from_spec(made)
        made.loader.exec_module(loaded)
    finally:
        sys.path.remove(str(path.parent))
        sys.modules.pop("torch_model", None)
    return loaded


def run(path: Path, *words: object, step: Any = None) -> str:
    """Run a program here, with `step` in its train_step's place if given; return what it exits with, or nothing."""
    train = module(path)
    train.train_step = step or train.train_step
    before, handler = sys.argv, signal.getsignal(signal.SIGINT)
    sys.argv = [str(path), *map(str, words)]
    try:
        train.main()
    except SystemExit as end:
        return str(end)
    finally:
        sys.argv = before
        signal.signal(signal.SIGINT, handler)
    return ""


def start(path: Path, *words: object, **more: Any) -> subprocess.Popen[str]:
    """Start a program as a process of its own."""
    command = [sys.executable, path, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A program, and the output of a run of it that nothing disturbed."""
    folder = tmp_path_factory.mktemp("program")
    path = program(folder)
    assert run(path, "--output", folder / "whole") == ""
    return path, folder / "whole"


def state(output: Path) -> dict[str, Any]:
    """Return a run's last checkpoint, without what a clock measured."""
    found: dict[str, Any] = torch.load(output / "last.pt", weights_only=True)
    for record in found["history"]:
        record.pop("images_per_second")
    return found


def same(a: Any, b: Any) -> bool:
    """Whether two checkpoints are the same, bit for bit."""
    if isinstance(a, torch.Tensor):
        return bool(a.dtype == b.dtype and torch.equal(a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def test_a_run_learns_and_leaves_its_record(whole: tuple[Path, Path]) -> None:
    """Six epochs on the digits; a log, events, curves and two checkpoints."""
    _, output = whole
    log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    best = torch.load(output / "best.pt", weights_only=True)

    assert [record["epoch"] for record in log] == [1, 2, 3, 4, 5, 6]
    assert log[-1]["validation_accuracy"] > 0.75 > log[0]["validation_accuracy"]  # chance is 0.1
    assert [record["learning_rate"] for record in log] == pytest.approx([0.05] * 3 + [0.005] * 3)
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((output / "events").iterdir())
    assert set(best) == {"conv1.weight", "conv1.bias", "fc.weight", "fc.bias"}
    assert not [path for path in output.iterdir() if path.name.startswith(".")]


def test_a_run_that_was_killed_ends_as_if_it_was_not(whole: tuple[Path, Path], tmp_path: Path) -> None:
    """After kill -9 in the second epoch and a resumption weights, optimizer and history are the same, bit for bit."""
    path, output = whole
    process = start(path, "--output", tmp_path, "--epochs", "1000")
    end = time.monotonic() + 120
    while not (tmp_path / "last.pt").exists() and time.monotonic() < end and process.poll() is None:
        time.sleep(0.002)
    assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()
    stopped = state(tmp_path)["epoch"]

    assert 1 <= stopped < 6
    assert "is there" in run(path, "--output", tmp_path)  # a run already
    assert run(path, "--output", tmp_path, "--resume") == ""
    assert same(state(tmp_path), state(output))


def interrupted(path: Path, output: Path, *words: object) -> str:
    """Press Ctrl-C in the 30th batch of a run, the 7th of the second epoch; return what the run says."""
    steps = 0
    original = module(path).train_step

    def step(*given: Any, **more: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 30:
            signal.raise_signal(signal.SIGINT)
        return original(*given, **more)

    said = run(path, "--output", output, *words, step=step)
    assert steps == 30
    return said


def test_ctrl_c_ends_after_the_batch(whole: tuple[Path, Path], tmp_path: Path) -> None:
    """A checkpoint is written in the middle of an epoch, and the resumption ends as if there had been none."""
    path, output = whole
    said = interrupted(path, tmp_path)
    stopped = state(tmp_path)

    assert said == f"interrupted; --resume goes on from {tmp_path / 'last.pt'}"
    assert (stopped["epoch"], stopped["step"]) == (1, 7)  # 1,437 images are 23 batches of 64
    assert run(path, "--output", tmp_path, "--resume") == ""
    assert same(state(tmp_path), state(output))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('self.optimizer.load_state_dict(state["optimizer"])', "pass"),
        ('self.scheduler.load_state_dict(state["scheduler"])', "pass"),
        ('torch.set_rng_state(state["random"][self.processes.rank].cpu())', "pass"),
        ("batches.first = run.epoch, run.step", "batches.first = run.epoch, 0"),
    ],
)
def test_what_a_resumption_forgets_is_seen(whole: tuple[Path, Path], old: str, new: str, tmp_path: Path) -> None:
    """Without the velocity, the schedule, dropout's draws or its place in the epoch a run ends otherwise."""
    path, output = whole
    faulty = tmp_path / "torch_train.py"
    faulty.write_text(path.read_text().replace(old, new))
    (tmp_path / "torch_model.py").write_text((path.parent / "torch_model.py").read_text())
    assert path.read_text().count(old) == 1
    interrupted(path, tmp_path / "out")
    assert run(faulty, "--output", tmp_path / "out", "--resume") == ""

    assert not same(state(tmp_path / "out")["model"], state(output)["model"])


def test_half_precision_resumes_with_its_scale(whole: tuple[Path, Path], tmp_path: Path) -> None:
    """fp16 trains, and after an interruption ends bit for bit as without: the scale of its losses is in the checkpoint."""
    path, output = whole
    words = ("--precision", "fp16", "--epochs", 3)
    assert run(path, "--output", tmp_path / "whole", *words) == ""
    interrupted(path, tmp_path / "cut", *words)
    assert state(tmp_path / "cut")["scaler"]["scale"] >= 1.0
    assert run(path, "--output", tmp_path / "cut", "--resume", *words) == ""

    assert same(state(tmp_path / "cut"), state(tmp_path / "whole"))
    assert state(tmp_path / "whole")["history"][-1]["validation_accuracy"] > 0.6  # chance is 0.1
    assert not same(state(tmp_path / "whole")["model"], state(output)["model"])


def test_workers_draw_the_same(whole: tuple[Path, Path], tmp_path: Path) -> None:
    """What is drawn for an image does not depend on who reads it; another seed draws otherwise."""
    path, output = whole
    assert run(path, "--output", tmp_path / "two", "--workers", 2) == ""
    assert run(path, "--output", tmp_path / "seed", "--seed", 1) == ""

    assert same(state(tmp_path / "two"), state(output))
    assert not same(state(tmp_path / "seed")["model"], state(output)["model"])


def test_a_full_disk_loses_nothing(whole: tuple[Path, Path], tmp_path: Path) -> None:
    """A checkpoint that cannot be written is an error in a line, and the one before stands."""
    import shutil

    path, output = whole
    shutil.copytree(output, tmp_path / "full")
    before = (tmp_path / "full" / "last.pt").read_bytes()

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    process = start(path, "--output", tmp_path / "full", "--resume", "--epochs", "7", preexec_fn=full)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 1, said
    assert said.splitlines()[-1].endswith("File too large"), said
    assert "Traceback" not in said
    assert (tmp_path / "full" / "last.pt").read_bytes() == before
    assert not list((tmp_path / "full").glob(".*pt*"))


def picture(path: Path, seed: int, size: tuple[int, int] = (14, 13)) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(path)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named(workers: int, tmp_path: Path) -> None:
    """A folder of images is read, the paper's crops, noise and ten crops are made; a broken file is told by its name."""
    path = program(tmp_path, PAPERS, "{channels: 3, height: 8, width: 8}")
    for i, part in enumerate(("train/a/0", "train/a/1", "train/b/0", "val/a/0", "val/b/0")):
        picture(tmp_path / "data" / f"{part}.png", i)
    words = ("--data", tmp_path / "data", "--workers", workers)
    broken = tmp_path / "data" / "val" / "b" / "0.png"
    if not workers:
        assert run(path, *words, "--output", tmp_path / "good") == ""
    broken.write_bytes(broken.read_bytes()[:40])
    process = start(path, *words, "--output", tmp_path / "bad")
    try:
        said = process.communicate(timeout=60)[1].strip()
    finally:
        process.kill()

    assert said.startswith(f"{broken} cannot be read as an image: "), said


def test_weights_are_loaded_or_told(tmp_path: Path) -> None:
    """A safetensors file of the model's own names is what training begins with; one that does not fit is an error."""
    from safetensors.torch import save_file

    path = program(tmp_path)
    model = module(path).Net(num_classes=10)
    save_file(model.state_dict(), tmp_path / "good.safetensors")
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "bad.safetensors")
    output = tmp_path / "out"
    assert run(path, "--output", output, "--weights", tmp_path / "good.safetensors", "--epochs", 0) == ""
    said = run(path, "--output", tmp_path / "no", "--weights", tmp_path / "bad.safetensors")

    assert said.startswith(f"{tmp_path / 'bad.safetensors'} does not fit: ")
    assert "size mismatch for conv1.weight" in said


def test_a_data_set_that_is_not_there_is_told(tmp_path: Path) -> None:
    """A folder of something else, and one that is not."""
    path = program(tmp_path)
    said = run(path, "--data", tmp_path / "nowhere", "--output", tmp_path / "out")

    assert said == f"{tmp_path / 'nowhere'} holds neither train/ and val/, nor MNIST's or CIFAR-10's files"


def test_the_fields_files_are_read(tmp_path: Path) -> None:
    """idx files, gzipped and not, and CIFAR-10's binary files; a file that was cut off is told."""
    train = module(program(tmp_path))
    images, labels = np.arange(5 * 6 * 7, dtype=np.uint8).reshape(5, 6, 7), np.array([3, 1, 4, 1, 2], np.uint8)
    head = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in images.shape)
    for name, packed in (("train", gzip.compress), ("t10k", bytes)):
        end = ".gz" if name == "train" else ""
        (tmp_path / f"{name}-images-idx3-ubyte{end}").write_bytes(packed(head + images.tobytes()))
        (tmp_path / f"{name}-labels-idx1-ubyte{end}").write_bytes(packed(b"\0\0\x08\x01\0\0\0\x05" + labels.tobytes()))
    for part in train.read_data(tmp_path)[:2]:
        assert np.array_equal(part.tensors[0].numpy()[:, 0], images)
        assert part.tensors[1].tolist() == labels.tolist()
    assert train.read_data(tmp_path)[2] == 5

    row = np.concatenate([[7], np.arange(3072) % 251]).astype(np.uint8)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (tmp_path / f"{name}.bin").write_bytes(row.tobytes() * 2)
    pixels, numbers = train.read_data(tmp_path)[0].tensors
    assert pixels.shape == (10, 3, 32, 32)
    assert numbers.tolist() == [7] * 10
    assert pixels[0, 1, 2, 3] == (1024 + 2 * 32 + 3) % 251  # red, green, blue; a row of 32 after another
    (tmp_path / "test_batch.bin").write_bytes(row.tobytes()[:-1])
    with pytest.raises(train.DataError, match="no whole file"):
        train.read_data(tmp_path)


def test_the_papers_statistics_are_numpys(tmp_path: Path) -> None:
    """Mean image, and eigenvectors times eigenvalues of the covariance of colours, white being 1."""
    train = module(program(tmp_path, PAPERS, "{channels: 3, height: 8, width: 8}"))
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3, 12, 12)).astype(np.uint8)
    pixels[:, 1] = pixels[:, 0] // 2 + 20  # colours that hang together
    source = torch.utils.data.TensorDataset(torch.from_numpy(pixels), torch.zeros(20))
    known = train.measure(source, tmp_path / "known.pt")
    colours = np.moveaxis(pixels.astype(np.float64), 1, -1).reshape(-1, 3) / 255
    values, vectors = np.linalg.eigh(np.cov(colours.T, bias=True))
    expected = vectors * values * 255

    assert np.allclose(known["mean"].numpy(), pixels.mean(axis=0), atol=1e-4)
    assert np.allclose(np.abs(known["colours"].numpy()), np.abs(expected), atol=1e-4)
    assert train.measure(source, tmp_path / "known.pt").keys() == known.keys()  # read again

    torch.manual_seed(0)
    noise = train.PCANoise(known["colours"], 0.5)
    drawn = np.stack([noise(torch.zeros(3, 2, 2)).numpy() for _ in range(4000)])
    assert np.all(drawn == drawn[:, :, :1, :1])  # one draw an image
    variance = expected @ expected.T * 0.25
    assert np.allclose(np.cov(drawn[:, :, 0, 0].T), variance, atol=0.1 * np.abs(variance).max())


def test_ten_crops_are_averaged(tmp_path: Path) -> None:
    """Corners, centre and reflections, cut by hand; their probabilities, not their scores, are averaged."""
    train = module(program(tmp_path, PAPERS, "{channels: 3, height: 8, width: 8}"))
    known = {"mean": torch.zeros(3, 12, 12), "colours": torch.zeros(3, 3)}
    prepare, draw = train.make_transforms(False, known)
    pixels = torch.arange(3 * 12 * 12, dtype=torch.uint8).view(1, 3, 12, 12)
    image = pixels[0].float()
    corners = [image[:, y : y + 8, x : x + 8] for y, x in ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2))]
    mirrored = [image.flip(2)[:, y : y + 8, x : x + 8] for y, x in ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2))]
    crops = draw(prepare(pixels)[0])

    assert torch.equal(crops, torch.stack([*corners, *mirrored]))
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))
    loader = torch.utils.data.DataLoader([(crops / 432, 4)], batch_size=1)
    with torch.no_grad():
        expected = -float(model(crops / 432).softmax(1).mean(0).log()[4])
    assert train.evaluate(model, loader, torch.device("cpu"))[0] == pytest.approx(expected, rel=1e-5)
