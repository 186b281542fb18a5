"""How a worker is spoken to: a line of JSON for a job on its standard input, a line for the answer on its output."""

import contextlib
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

DEVICE = sys.argv[1] if len(sys.argv) > 1 else "cpu"


def serve(name: str, versions: Callable[[], dict[str, str]], jobs: dict[str, Callable[..., dict[str, Any]]]) -> None:
    """Answer jobs until the input ends.

    What the frameworks print goes to standard error: the answers have the real standard output to themselves. A fault
    of a job is its answer, {"error": ..., "traceback": ...}, and the worker goes on.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=answers, flush=True)

    try:
        answer({"worker": name, "versions": versions()})
    except ImportError as fault:
        answer({"error": f"{fault}", "missing": fault.name or name})
        return
    except RuntimeError as fault:  # no such device
        answer({"error": f"{fault}", "traceback": ""})
        return
    for line in sys.stdin:
        job = json.loads(line)
        try:
            answer(jobs[job.pop("job")](**job))
        except Exception as fault:
            answer({"error": f"{type(fault).__name__}: {fault}", "traceback": traceback.format_exc()})


def module(path: str) -> Any:
    """Return the generated file at `path`, imported afresh under its own name, by which its neighbours import it."""
    name = Path(path).stem
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    try:
        spec.loader.exec_module(made)
    except BaseException:
        with contextlib.suppress(KeyError):
            del sys.modules[name]
        raise
    return made


def peak_bytes() -> int:
    """Return the most memory that this process has held."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
