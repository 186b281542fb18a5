"""The protocol of the workers: one line of JSON per job on standard input, one per answer on standard output."""

import gc
import importlib
import importlib.util
import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True  # leave no __pycache__ beside generated files, and read none that is stale
PARAMETERS: dict[str, list[int]] = {}  # of the network of the current job: canonical names and shapes
DEVICE = sys.argv[1] if len(sys.argv) > 1 else "cpu"


def serve(name: str, versions: Callable[[], dict[str, str]], jobs: dict[str, Callable[..., dict[str, Any]]]) -> None:
    """Answer jobs until the input ends.

    The output of the frameworks goes to standard error, as standard output is for answers. A job that raises is
    answered by {"error": ..., "traceback": ...}, and the worker goes on.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=answers, flush=True)

    try:
        answer({"worker": name, "versions": versions()})
    except ImportError as error:
        answer({"error": f"{error}", "missing": error.name or name})
        return
    except RuntimeError as error:  # no such device
        answer({"error": f"{error}", "traceback": ""})
        return
    gc.freeze()  # the framework's objects: scanning them takes 0.2 s, which Keras' clear_session does in every job
    for line in sys.stdin:
        job = json.loads(line)
        parameters = job.pop("parameters", None)
        if parameters is not None:
            PARAMETERS.clear()
            PARAMETERS.update(parameters)
        try:
            answer(jobs[job.pop("job")](**job))
        except Exception as error:
            answer({"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()})


def answer_once(jobs: dict[str, Callable[[dict[str, Any]], dict[str, Any]]]) -> None:
    """Read a request, one JSON object, from standard input, and write the answer to the file that it names.

    An error with `names`, those that there are for one that there is not, is the user's: its message stands alone.
    """
    request = json.load(sys.stdin)
    try:
        answer = jobs[request["job"]](request)
    except ModuleNotFoundError as error:
        answer = {"error": f"{error.name} is not installed", "missing": error.name}
    except Exception as error:
        if (names := getattr(error, "names", None)) is not None:
            answer = {"error": str(error), "name": request["source"]["name"], "names": list(names)}
        else:
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
    Path(request["output"]).write_text(json.dumps(answer))


def import_keras() -> Any:
    """Return Keras, imported without the packages that it only draws and wraps with, which take 3 of its 8 seconds.

    They can be imported afterwards.
    """
    hidden = [name for name in ("matplotlib", "sklearn") if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # its import is an ImportError
    try:
        return importlib.import_module("keras")
    finally:
        for name in hidden:
            del sys.modules[name]


def user_module(path: Path) -> Any:
    """Run a user's file, and return its module; what lies beside it can be imported."""
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


class Program:
    """The generated files in a folder, imported afresh: `program("model")`, `program("engine.data")`."""

    def __init__(self, folder: str) -> None:
        for name in list(sys.modules):
            if name.partition(".")[0] in ("model", "recipe", "train", "engine"):
                del sys.modules[name]
        if _folders:
            sys.path.remove(_folders.pop())
        _folders.append(folder)
        sys.path.insert(0, folder)
        importlib.invalidate_caches()

    def __call__(self, module: str) -> Any:
        """Return a module; raise ImportError if there is none."""
        return importlib.import_module(module)


_folders: list[str] = []  # the folder of the current program, first in sys.path


def combination(shape: Any) -> Any:
    """Return random factors of a network's outputs, (N, ...) in PyTorch's layout: the same in every target."""
    import numpy as np

    return np.random.default_rng(0).standard_normal(tuple(shape))


def apart(a: Any, b: Any, least: float = 0.0) -> float:
    """Return the largest difference of two tensors relative to the largest of `a`, `least` at the least.

    Infinity for tensors of other shapes, and for values that are not finite.
    """
    difference = float(abs(a - b).max()) if a.shape == b.shape else math.inf
    return difference / (max(float(abs(a).max()), least) or 1.0) if math.isfinite(difference) else math.inf


def each(doings: dict[str, Callable[[], float]]) -> dict[str, Any]:
    """Return the numbers that functions give, and the messages of those that raise."""
    found: dict[str, float] = {}
    faults: dict[str, str] = {}
    for name, do in doings.items():
        try:
            found[name] = do()
        except Exception as error:
            lines = f"{error}".strip().splitlines() or [""]
            faults[name] = f"raises {type(error).__name__}: {lines[0]}"
    return {"found": found, "faults": faults}


def joined(name: str, batches: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    """Return the images and labels of batches, joined, and the batches' sizes: `NAME.images`, `.labels`, `.sizes`."""
    import numpy as np

    images, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
    sizes = np.array([len(labels) for _, labels in batches])
    return {f"{name}.images": images, f"{name}.labels": labels, f"{name}.sizes": sizes}


def save_batches(stem: str, batches: Sequence[tuple[Any, Any]]) -> None:
    """Write the images and labels of batches to `STEM.images.npy` and `STEM.labels.npy`."""
    import numpy as np

    arrays = joined("", batches)
    np.save(f"{stem}.images.npy", np.ascontiguousarray(arrays[".images"]))
    np.save(f"{stem}.labels.npy", arrays[".labels"].astype(np.int64))


def peak_bytes() -> int:
    """Return the peak memory of this process."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
