"""The processes in which frameworks and users' own files run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from archspec.importers.layers import ImportFailedError, MissingPackageError
from archspec.language.source import did_you_mean
from archspec.targets import INSTALL

WORKERS = Path(__file__).parent.parent / "workers"
EXTRAS = {
    **dict.fromkeys(("torch", "torchvision", "safetensors", "numpy"), "torch"),
    **dict.fromkeys(("keras", "tensorflow", "h5py"), "keras"),
    **dict.fromkeys(("onnx", "onnxruntime"), "onnx"),
}


def ask(worker: str, request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a worker's answer to one request; raise ImportFailedError if it gives none."""
    output = folder / "answer.json"
    done = subprocess.run(
        [sys.executable, WORKERS / worker],
        input=json.dumps({**request, "output": str(output)}),
        text=True,
        capture_output=True,
        check=False,
    )
    if not output.is_file():
        last = (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
        raise ImportFailedError(f"the process with the model ended with status {done.returncode}: {last}")
    answer: dict[str, Any] = json.loads(output.read_text())
    output.unlink()
    if package := answer.get("missing"):
        raise missing(package)
    if "error" in answer:
        raise ImportFailedError(answer["error"] + did_you_mean(answer.get("name"), answer.get("names", ())))
    return answer


def missing(package: str) -> MissingPackageError:
    """Return the error of a package that is not installed, with the command that installs it."""
    extra = EXTRAS.get(package.partition(".")[0])
    how = INSTALL.format(extra=extra) if extra else f"pip install {package}" if package == "timm" else ""
    return MissingPackageError(f"{package} is not installed" + (f": {how}" if how else ""))
