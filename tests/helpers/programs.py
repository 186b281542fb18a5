"""Generated training programs of a small network: written, run in this process or in others, and compared."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from archspec.files import write
from archspec.targets import TARGETS, files
from helpers import ROOT, network

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAYERS = """{name: conv1, op: conv2d, out_channels: 16, kernel_size: 3, padding: 1}
{name: relu1, op: relu}
{name: flat, op: flatten}
{name: drop, op: dropout, p: 0.2}
{name: fc, op: linear, out_features: 10}"""
RECIPE = """training:
  batch_size: 64
  epochs: 6
  optimizer: {caffe_sgd: {lr: 0.05, momentum: 0.9, weight_decay: 1e-4}}
  schedule: {step: {step_size: 3, gamma: 0.1}}
  preprocessing: [rescale]
  augmentation: [{random_crop: {size: 8, padding: 1}}, {horizontal_flip: {p: 0.25}}]
"""
ALEXNET_RECIPE = """training:
  batch_size: 2
  epochs: 1
  optimizer: {caffe_sgd: {lr: 0.001}}
  preprocessing: [{resize: 12}, {center_crop: 12}, subtract_mean]
  augmentation: [{random_crop: 8}, horizontal_flip, {pca_noise: {std: 0.5}}]
  evaluation: [{ten_crop: 8}]
"""
GRAY = "{channels: 1, height: 8, width: 8}"
RGB = "{channels: 3, height: 8, width: 8}"
IMAGES = ("train/a/0", "train/a/1", "train/b/0", "val/a/0", "val/b/0")  # of a small data set of image files

ENVIRONMENT = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
ONE_THREAD = {**ENVIRONMENT, "OMP_NUM_THREADS": "1"}
MODULES = ("engine", "model", "model_parallel", "recipe", "train")  # of generated files


def require(*modules: str) -> None:
    """Skip a test module where a package is not installed.

    Unlike pytest.importorskip it imports nothing: PyTorch crashes in a process that has imported TensorFlow.
    """
    for name in modules:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed", allow_module_level=True)


# --- files -----------------------------------------------------------------------------------------------------------


def write_program(folder: Path, target: str = "torch", recipe: str = RECIPE, size: str = GRAY) -> Path:
    """Write a target's files of the small network below `folder`; return the path of train.py."""
    texts = files(network(LAYERS, size, recipe), TARGETS[target])
    write([(folder / name, text) for name, text in texts.items()], folder)
    return folder / TARGETS[target].folder / "train.py"


def altered_program(path: Path, folder: Path, file: str, old: str, new: str) -> Path:
    """Copy a program to `folder` with `old`, which `file` has once, replaced; return the path of its train.py."""
    shutil.copytree(path.parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    text = (folder / file).read_text()
    assert text.count(old) == 1
    (folder / file).write_text(text.replace(old, new))
    return folder / path.name


def without_dropout(path: Path) -> Path:
    """Set the dropout probability of a PyTorch program to 0; return its path."""
    model = path.with_name("model.py")
    assert "nn.Dropout(p=0.2)" in model.read_text()
    model.write_text(model.read_text().replace("nn.Dropout(p=0.2)", "nn.Dropout(p=0.0)"))
    return path


def write_image(path: Path, seed: int, size: tuple[int, int] = (14, 13)) -> None:
    """Write an image file of noise."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(path)


def truncate(path: Path) -> None:
    """Cut an image file off after 40 bytes."""
    path.write_bytes(path.read_bytes()[:40])


def write_idx(folder: Path, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    """Write MNIST's files, with the same images for training, gzipped, and for validation."""
    import gzip

    head = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in images.shape)
    label_head = b"\0\0\x08\x01" + len(labels).to_bytes(4, "big")
    for name, pack, end in (("train", gzip.compress, ".gz"), ("t10k", bytes, "")):
        (folder / f"{name}-images-idx3-ubyte{end}").write_bytes(pack(head + images.tobytes()))
        (folder / f"{name}-labels-idx1-ubyte{end}").write_bytes(pack(label_head + labels.tobytes()))


def write_cifar(folder: Path) -> None:
    """Write CIFAR-10's files, two images each: of label 7, with byte i of the pixels i modulo 251."""
    row = np.concatenate([[7], np.arange(3072) % 251]).astype(np.uint8)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (folder / f"{name}.bin").write_bytes(row.tobytes() * 2)


def training_examples(target: str) -> str:
    """Return the Python of docs/training.md for a target, as it is pasted into train.py."""
    text = (ROOT / "docs" / "training.md").read_text()
    examples = re.findall(rf"^```python {target}\n(.*?)^```$", text, re.M | re.S)
    assert [example.count("\n") < 15 for example in examples] == [True, True]
    return "\n".join(examples)


# --- programs in this process ----------------------------------------------------------------------------------------


@contextmanager
def program_modules(folder: Path) -> Iterator[Callable[[str], ModuleType]]:
    """Yield a function that imports a module of the generated files in `folder`; they are forgotten at the end."""
    _forget_modules()
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield importlib.import_module
    finally:
        sys.path.remove(str(folder))
        _forget_modules()


def _forget_modules() -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] in MODULES:
            del sys.modules[name]


def run_program(
    path: Path, *arguments: object, interrupt_at: int | None = None, number: signal.Signals = signal.SIGINT
) -> str:
    """Run a PyTorch program in this process; return the message that it exits with, or "".

    `interrupt_at`: raise the signal `number`, by default Ctrl-C's, in this training step, counted from 1.
    """
    steps, errors = 0, io.StringIO()
    argv, handlers = sys.argv, [(one, signal.getsignal(one)) for one in (signal.SIGINT, signal.SIGTERM)]
    sys.argv = [str(path), *map(str, arguments)]
    try:
        with program_modules(path.parent) as load:
            train = load("train")
            original = train.train_step

            def train_step(*step_arguments: Any, **options: Any) -> Any:
                nonlocal steps
                steps += 1
                if steps == interrupt_at:
                    signal.raise_signal(number)
                return original(*step_arguments, **options)

            train.train_step = train_step  # type: ignore[attr-defined]
            with contextlib.redirect_stderr(errors):
                train.main()
    except SystemExit as error:
        return errors.getvalue().strip() if isinstance(error.code, int) else str(error)
    finally:
        assert interrupt_at in (None, steps)
        sys.argv = argv
        for one, handler in handlers:
            signal.signal(one, handler)
    return ""


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let this process write no file beyond `size` bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# --- programs in processes of their own ------------------------------------------------------------------------------


def start_program(path: Path, *arguments: object, environment: dict[str, str] = ENVIRONMENT) -> subprocess.Popen[str]:
    """Start a program as a process of its own."""
    command = [sys.executable, str(path), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for(path: Path, process: subprocess.Popen[str], timeout: float = 120) -> None:
    """Wait until a running process has written a file."""
    end = time.monotonic() + timeout
    while not path.exists() and time.monotonic() < end and process.poll() is None:
        time.sleep(0.002)
    assert path.exists(), process.communicate() if process.poll() is not None else "no file in time"
    assert process.poll() is None, process.communicate()


def start_ranks(path: Path, target: str, *arguments: object, count: int = 2) -> list[subprocess.Popen[str]]:
    """Start a target's program in processes that train together."""
    ports = free_ports(count)
    running = []
    for rank in range(count):
        own = rank_environment(rank, count, ports[0])
        if target == "keras":
            cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
            own = {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": rank}})}
        running.append(start_program(path, *arguments, environment={**ONE_THREAD, **own}))
    return running


def rank_environment(rank: int, count: int, port: int) -> dict[str, str]:
    """Return the environment variables that torchrun sets for a process."""
    own = {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}
    return {**own, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def free_ports(count: int) -> list[int]:
    """Return free ports."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


class KerasServer:
    """A process that imports TensorFlow once and does the jobs of keras_server.py."""

    def __init__(self, log: Path) -> None:
        command = [sys.executable, str(Path(__file__).with_name("keras_server.py"))]
        environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT / "archspec" / "workers"), "KERAS_BACKEND": "tensorflow"}
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
            )
        self._log, self._ready = log, False

    def __enter__(self) -> KerasServer:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __call__(self, job: str, **arguments: Any) -> Any:
        """Have a job done; return its result. Paths are passed as text."""
        assert self._process.stdin
        if not self._ready:
            self._answer()
            self._ready = True
        print(json.dumps({"job": job, **arguments}, default=str), file=self._process.stdin, flush=True)
        return self._answer().get("result")

    def run(self, path: Path, *arguments: object, **options: Any) -> str:
        """Run a Keras program, as `run_program` does; `file_limit` bounds the files that it writes."""
        return str(self("run_program", path=path, arguments=[str(word) for word in arguments], **options))

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, self._log.read_text()
        answer: dict[str, Any] = json.loads(line)
        assert "error" not in answer, answer["error"] + answer.get("traceback", "")
        return answer


# --- what a program wrote --------------------------------------------------------------------------------------------


def read_log(output: Path) -> list[dict[str, float]]:
    """Return the records of log.jsonl."""
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def logged_values(output: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the steps and values that TensorBoard shows, by tag."""
    # Without this, TensorBoard imports TensorFlow, which crashes in a process with PyTorch.
    sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(output / "events"))
    events.Reload()
    scalars, tensors = events.Tags()["scalars"], events.Tags()["tensors"]
    values = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in scalars}
    for tag in tensors:
        values[tag] = [(event.step, float(make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)]
    return values


def torch_checkpoint(output: Path) -> dict[str, Any]:
    """Return last.pt, without measured speeds."""
    import torch

    state: dict[str, Any] = torch.load(output / "last.pt", weights_only=True)
    for record in state["history"]:
        record.pop("images_per_second")
    return state


def keras_checkpoint(output: Path) -> dict[str, Any]:
    """Return last.npz, without measured speeds."""
    with np.load(output / "last.npz") as arrays:
        state: dict[str, Any] = dict(arrays)
    state["run"] = json.loads(str(state["run"]))
    for record in state["run"]["history"]:
        record.pop("images_per_second")
    return state


def identical(a: Any, b: Any) -> bool:
    """Return whether two checkpoints are the same, bit for bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(identical(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(identical, a, b))
    if hasattr(a, "dtype"):
        a, b = np.asarray(a), np.asarray(b)
        return bool(a.dtype == b.dtype and np.array_equal(a, b))
    return bool(a == b)


def largest_difference(a: dict[str, Any], b: dict[str, Any]) -> float:
    """Return the largest difference of two state dicts."""
    assert a.keys() == b.keys()
    return max(float((a[key] - b[key]).abs().max()) for key in a)


def flipped_bits(content: bytes, count: int = 300) -> Iterator[bytes]:
    """Yield a file's content with one bit flipped, somewhere else each time."""
    draws = random.Random(0)
    for _ in range(count):
        flipped = bytearray(content)
        flipped[draws.randrange(len(flipped))] ^= 1 << draws.randrange(8)
        yield bytes(flipped)
