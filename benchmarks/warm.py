"""Time from YAML text to AlexNet's counts in every convention, in a warm process.

    python benchmarks/warm.py

Beside it, in the same process and on the same network, torchinfo and fvcore with the model built. Medians of many
turns, and ratios within this run.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import archspec
from archspec import analysis
from archspec.analysis.claims import verdicts
from archspec.analysis.conventions import totals

ROOT = Path(__file__).resolve().parent.parent
SPEC = ROOT / "specs" / "alexnet.yaml"


def everything() -> None:
    """Read the spec, infer shapes, count in every convention, and test the claims."""
    graph = archspec.loads(SPEC.read_text(encoding="utf-8"), str(SPEC))
    analysis.totals(graph)
    verdicts(graph)
    totals(graph)


def peers() -> dict[str, Callable[[], object]]:
    """Return what the peers do, for those that are installed."""
    found: dict[str, Callable[[], object]] = {}
    with contextlib.suppress(ImportError):
        import runpy

        import torch

        model = runpy.run_path(str(ROOT / "generated" / "alexnet" / "pytorch" / "model.py"))["AlexNet"]().eval()
        image = torch.zeros(1, 3, 227, 227)
        with contextlib.suppress(ImportError):
            import torchinfo

            found["torchinfo"] = lambda: torchinfo.summary(model, (1, 3, 227, 227), verbose=0)
        with contextlib.suppress(ImportError):
            import fvcore.nn

            def count() -> None:
                fvcore.nn.FlopCountAnalysis(model, image).unsupported_ops_warnings(False).total()

            found["fvcore"] = count
    return found


def main() -> None:
    """Run all in turn, and print a row for each."""
    tasks = {"archspec, every convention": everything, **peers()}
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(22):
        for name, task in tasks.items():
            start = time.perf_counter()
            with contextlib.redirect_stderr(io.StringIO()):
                task()
            if turn >= 2:
                times[name].append(time.perf_counter() - start)
    first = statistics.median(next(iter(times.values())))
    print(f"{'':<34}{'median ms':>10}{'ratio':>8}")
    for name, found in times.items():
        print(f"{name:<34}{1000 * statistics.median(found):>10.2f}{statistics.median(found) / first:>8.2f}")


if __name__ == "__main__":
    main()
