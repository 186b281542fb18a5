"""The training program for Keras: it resumes exactly, and reads and draws as the one for PyTorch does.

Every test runs it in processes of its own: TensorFlow and PyTorch do not share one.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import spec
from test_program import LAYERS, PAPERS, RECIPE, picture

import archspec
from archspec.emit import files
from archspec.files import write

pytest.importorskip("keras")
pytest.importorskip("tensorflow")
pytestmark = pytest.mark.frameworks
ENVIRONMENT = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}


def program(folder: Path, head: str = RECIPE, size: str = "{channels: 1, height: 8, width: 8}") -> Path:
    """Write the programs of a small network; return Keras'."""
    graph = archspec.build(spec(LAYERS, size, head))
    texts = {name: text for target in ("torch", "keras") for name, text in files(graph, target).items()}
    write([(folder / name, text) for name, text in texts.items()], folder)
    return folder / "keras_train.py"


def start(path: Path, *words: object, **more: Any) -> subprocess.Popen[str]:
    command = [sys.executable, path, *map(str, words)]
    environment = {**ENVIRONMENT, **more.pop("environment", {})}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **more)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, said = process.communicate(timeout=200)
    finally:
        process.kill()
    return process.returncode, out, said


def state(output: Path) -> dict[str, Any]:
    """Return a run's last checkpoint, without what a clock measured."""
    with np.load(output / "last.npz") as found:
        arrays = dict(found)
    run = json.loads(str(arrays.pop("run")))
    for record in run["history"]:
        record.pop("images_per_second")
    return {**arrays, "run": run}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def until(path: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not path.exists() and time.monotonic() < end and process.poll() is None:
        time.sleep(0.002)
    assert process.poll() is None, process.communicate()


def test_a_run_resumes_exactly(tmp_path: Path) -> None:
    """Killed in the second epoch, stopped by Ctrl-C in a later one, and resumed, a run ends bit for bit as one that was not."""
    path = program(tmp_path)
    undisturbed = start(path, "--output", tmp_path / "whole")
    killed = start(path, "--output", tmp_path / "cut")
    until(tmp_path / "cut" / "last.npz", killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    stopped = state(tmp_path / "cut")["run"]["epoch"]
    status, _, said = ended(undisturbed)
    assert status == 0, said

    resumed = start(path, "--output", tmp_path / "cut", "--resume")
    assert resumed.stdout
    resumed.stdout.readline()  # an epoch is done
    resumed.send_signal(signal.SIGINT)
    status, _, told = ended(resumed)
    assert (status, told.splitlines()[-1]) == (1, f"interrupted; --resume goes on from {tmp_path / 'cut' / 'last.npz'}")
    there = state(tmp_path / "cut")["run"]
    assert there["epoch"] < 6
    assert ended(start(path, "--output", tmp_path / "cut"))[2].strip().endswith("--output begins another")
    assert ended(start(path, "--output", tmp_path / "cut", "--resume"))[0] == 0
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]

    assert 1 <= stopped < 6
    assert same(state(tmp_path / "cut"), state(tmp_path / "whole"))
    assert [record["epoch"] for record in log] == [1, 2, 3, 4, 5, 6]
    assert log[-1]["validation_accuracy"] > 0.75 > log[0]["validation_accuracy"]  # chance is 0.1
    assert [record["learning_rate"] for record in log] == pytest.approx([0.05] * 3 + [0.005] * 3)
    assert (tmp_path / "whole" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / "whole" / "events").iterdir())
    with np.load(tmp_path / "whole" / "best.npz") as best:
        assert [best[name].shape for name in best] == [(3, 3, 1, 16), (16,), (1024, 10), (10,)]
    assert not [p for p in (tmp_path / "whole").iterdir() if p.name.startswith(".")]


def test_images_are_those_of_the_program_for_pytorch(tmp_path: Path) -> None:
    """What evaluation reads of a folder of images, ten crops less the mean, is the same in both; a broken file is told."""
    path = program(tmp_path, PAPERS, "{channels: 3, height: 8, width: 8}")
    for i, part in enumerate(("train/a/0", "train/a/1", "train/b/0", "val/a/0", "val/b/0")):
        picture(tmp_path / "data" / f"{part}.png", i, (14, 13) if i % 2 else (9, 17))
    run = {
        "torch": """
import torch, torch_train as t
data = t.read_data(Path("data"))
known = t.measure(data[0], Path("known.pt"))
prepare, draw = t.make_transforms(False, known)
found = [draw(prepare(data[1][i][0])).permute(0, 2, 3, 1).numpy() for i in range(2)]
known = {"mean": known["mean"].permute(1, 2, 0), "colours": known["colours"]}
""",
        "keras": """
import keras_train as t
data = t.read_data(Path("data"))
known = t.measure(data[0], Path("known.npz"))
parts = t.parts(np.arange(2), 1)
batches = t.make_dataset(data[1], parts, t.make_transform(False, 0, 0, known), 0)
found = [images.numpy()[0] for images, labels, weights in batches]
drawn = [list(t.make_dataset(data[0], t.parts(np.arange(3), 2), t.make_transform(True, 0, epoch, known), 0))
         for epoch in (0, 1, 0)]
np.savez("drawn.npz", *(batches[0][0].numpy() for batches in drawn))
""",
    }
    for target, text in run.items():
        text = f"import numpy as np\nfrom pathlib import Path\n{text}\nnp.savez('{target}.npz', *found, **known)"
        done = subprocess.run(
            [sys.executable, "-c", text], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr
    torchs, keras, drawn = (dict(np.load(tmp_path / f"{name}.npz")) for name in ("torch", "keras", "drawn"))

    assert torchs["arr_0"].shape == (10, 8, 8, 3)
    for key in ("arr_0", "arr_1", "mean"):
        # the resized pixels are rounded to whole numbers, which may fall on the other side
        assert np.abs(torchs[key] - keras[key]).max() <= 2  # of 255: one of an image's, one of the mean's
        assert np.abs(torchs[key] - keras[key]).mean() < 0.5
    assert np.allclose(np.abs(torchs["colours"]), np.abs(keras["colours"]), atol=0.5)
    assert drawn["arr_0"].shape == (2, 8, 8, 3)
    assert np.array_equal(drawn["arr_0"], drawn["arr_2"])
    assert not np.array_equal(drawn["arr_0"], drawn["arr_1"])

    broken = tmp_path / "data" / "val" / "b" / "0.png"
    broken.write_bytes(broken.read_bytes()[:40])
    status, _, said = ended(start(path, "--data", tmp_path / "data", "--output", tmp_path / "bad"))
    assert status == 1
    assert said.splitlines()[-1].startswith(f"{broken} cannot be read as an image: "), said


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """A checkpoint that cannot be written is an error in a line, and nothing unfinished is left."""
    path = program(tmp_path)

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    status, _, said = ended(start(path, "--output", tmp_path / "full", "--epochs", "1", preexec_fn=full))
    assert status == 1, said
    assert said.splitlines()[-1].endswith("File too large"), said
    assert "Traceback" not in said
    assert not [one for one in (tmp_path / "full").iterdir() if one.is_file() and one.suffix == ".npz"]


RESIZED = """training:
  optimizer: {torch_sgd: {lr: 0.1}}
  preprocessing: [rescale]
  augmentation: [{random_resized_crop: {size: 16, scale: [0.2, 0.9], ratio: [0.5, 1.5]}}]
  evaluation: [{resize: 20}, {center_crop: 16}]
"""


@pytest.mark.parametrize("size", [(60, 40), (64, 14)])
def test_resized_crops_are_drawn_as_torchvisions(size: tuple[int, int], tmp_path: Path) -> None:
    """Areas, shapes and places have torchvision's distribution, also where few parts fit; what is evaluated is the same."""
    from scipy.stats import ks_2samp

    program(tmp_path, RESIZED, "{channels: 3, height: 16, width: 16}")
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.uint8)
    np.save(tmp_path / "image.npy", np.stack([2 * rows, 2 * columns, rows + columns], axis=-1))
    run = {
        "torch": """
import torch, torch_train as t
source = torch.utils.data.TensorDataset(torch.from_numpy(images).permute(0, 3, 1, 2), torch.zeros(1500))
drawn, held = (t.Images(source, t.make_transforms(training), 0) for training in (True, False))
drawn = np.stack([x.permute(1, 2, 0).numpy() for x, _ in drawn.__getitems__([(0, i) for i in range(1500)])])
held = held.__getitems__([(0, 0)])[0][0].permute(1, 2, 0).numpy()
""",
        "keras": """
import keras_train as t
parts = t.parts(np.arange(1500), 1500)
((drawn, _, _),) = t.make_dataset((images, np.zeros(1500)), parts, t.make_transform(True, 0, 0), 0)
((held, _, _),) = t.make_dataset((images, np.zeros(1500)), t.parts(np.arange(1), 1), t.make_transform(False, 0, 0), 0)
held = held[0]
""",
    }
    for target, text in run.items():
        head = "import numpy as np\nimages = np.repeat(np.load('image.npy')[None], 1500, axis=0)"
        text = f"{head}\n{text}\nnp.savez('{target}.npz', drawn=drawn, held=held)"
        done = subprocess.run(
            [sys.executable, "-c", text], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr
    torchs, keras = (dict(np.load(tmp_path / f"{target}.npz")) for target in run)
    assert np.abs(torchs["held"] - keras["held"]).max() < 1e-5

    # the pixels are ramps: their slope tells how large a part was, their middle where it stood
    laws = []
    for found in (torchs, keras):
        row, column = found["drawn"][..., 0] * 255 / 2, found["drawn"][..., 1] * 255 / 2
        height, width = (row[:, 10, 8] - row[:, 5, 8]) * 16 / 5, (column[:, 8, 10] - column[:, 8, 5]) * 16 / 5
        middle = (row[:, 7, 8] + row[:, 8, 8]) / 2, (column[:, 8, 7] + column[:, 8, 8]) / 2
        laws.append([np.round(v, 2) for v in (height * width, np.log(width / height), *middle)])
    for a, b in zip(*laws, strict=True):
        assert ks_2samp(a, b).pvalue > 1e-3
