"""Import every classifier of torchvision, the smallest member of each of timm's families, or keras.applications.

python scripts/import_all.py torchvision             # which are imported, with parameters and MACs
python scripts/import_all.py timm --prove            # and proven
python scripts/import_all.py torchvision --only vit  # those whose names begin so

In one process, so that a framework is imported once. A model that is not imported has one line that says why.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

import archspec
from archspec.importers import ImportFailedError, UnsupportedModelError, import_model, process
from archspec.importers.proof import prove
from archspec.workers import torch_import

JOBS = {"capture": torch_import.capture, "prove": torch_import.prove}


def in_process(worker: str, request: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Answer a request here."""
    try:
        return JOBS[request["job"]](dict(request))
    except torch_import.SourceError as error:
        raise ImportFailedError(error.args[0]) from None


def names(source: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield models with the shape of their images."""
    if source == "torchvision":
        from torchvision import models

        for name in models.list_models(module=models):
            yield name, (3, 299, 299) if name == "inception_v3" else (3, 224, 224)
        return
    import timm

    for family in timm.models.list_modules():
        sizes = {}
        for name in timm.list_models(module=family):
            try:
                with torch.device("meta"):
                    model = timm.create_model(name)
            except Exception:  # noqa: S112  some do not fit the meta device
                continue
            sizes[name] = (sum(p.numel() for p in model.parameters()), model.default_cfg["input_size"])
        if sizes:
            smallest = min(sizes, key=lambda name: sizes[name][0])
            yield smallest, tuple(sizes[smallest][1])


def main() -> None:
    """Import, and print a line each and the sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", choices=["torchvision", "timm"])
    parser.add_argument("--prove", action="store_true")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    process.ask = in_process
    counts: Counter[str] = Counter()
    for name, shape in names(options.source):
        if not name.startswith(options.only):
            continue
        started = time.monotonic()
        try:
            found = import_model(f"{options.source}:{name}", input_shape=shape)
            totals = archspec.check(found.graph).totals
            words = (
                f"imported, {totals.params:,} parameters, {totals.macs:,} MACs, {len(found.text.splitlines())} lines"
            )
            verdict = "imported" if totals.params == found.parameters else "with other parameters"
            if options.prove:
                failures = prove(found).failures
                verdict = "proven" if not failures else "not proven"
                words += f", {'; '.join(failures) or 'proven'}"
        except UnsupportedModelError as error:
            kinds = Counter(f"{one.target}{': ' * bool(one.why)}{one.why}" for one in error.found)
            verdict, words = "unsupported", f"{error}: {', '.join(k for k, _ in kinds.most_common(4))}"
        except (ImportFailedError, archspec.SpecError) as error:
            verdict, words = "failed", str(error).splitlines()[0]
        except Exception as error:
            verdict, words = "traceback", f"{type(error).__name__}: {error}".splitlines()[0]
        counts[verdict] += 1
        print(f"{options.source}:{name}: {words} ({time.monotonic() - started:.0f} s)", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))
    sys.exit(int(counts["traceback"] > 0))


if __name__ == "__main__":
    main()
