"""Verify every network of specs/ and write docs/zoo.md, a row for each.

python scripts/verify_zoo.py                  # structure, outputs, gradients and training mode, in float64
python scripts/verify_zoo.py --whole          # all checks, in float64 and float32
python scripts/verify_zoo.py --only resnet --only vgg  # specs whose names begin so; rows of the others stay
python scripts/verify_zoo.py --target torch --target keras-jax
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import archspec
from archspec.cli.specs import spec_paths
from archspec.verification.processes import Workers

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "zoo.md"
RECORD = ROOT / "docs" / "zoo.json"
ORDER = ("torch", "keras", "keras-jax", "keras-torch", "numpy")
HEAD = """# The zoo

What `make verify-zoo` measured: the networks of [specs/](../specs/README.md), the generated programs of several targets
on the same weights and data. Differences are relative to each tensor's largest magnitude, in float64, the largest of
all layers, parameters and runs; `training-mode` has outputs, gradients and running statistics of networks with batch
normalization.

"""


def verify(path: Path, targets: tuple[str, ...], whole: bool) -> dict[str, Any]:
    """Return one network's row."""
    graph = archspec.load(path)
    started = time.monotonic()
    with Workers(targets) as workers:
        evidence = archspec.verify(graph, workers=workers, generated=None, quick=not whole)
    largest: dict[str, float] = {}
    for c in evidence.comparisons:
        if c.dtype == "float64" and c.value == c.value and not c.in_standard_errors and c.what != "central difference":
            largest[c.check] = max(largest.get(c.check, 0.0), c.value)
    first = evidence.first
    return {
        "targets": list(targets),
        "versions": evidence.versions,
        "checks": list(evidence.checks),
        "agrees": evidence.agrees,
        "first": f"{first.check}: {first.target} at {first.layer} {first.what}: {first}" if first else "",
        "failures": [str(failure) for failure in evidence.failures],
        "params": archspec.check(graph).totals.params,
        "largest": largest,
        "held": evidence.held,
        "seconds": round(time.monotonic() - started, 1),
    }


def page(rows: dict[str, dict[str, Any]]) -> str:
    """Return the page of all rows."""
    checks = ("forward", "gradients", "training-mode", "training")
    lines = [f"| network | targets | parameters | {' | '.join(checks)} | agrees |", "|---|---|--:|--:|--:|--:|--:|---|"]
    for name in sorted({key.split(":")[0] for key in rows}):
        runs = [row for key, row in rows.items() if key.split(":")[0] == name]
        targets = [target for target in ORDER if any(target in row["targets"] for row in runs)]
        cells = []
        for check in checks:
            values = [row["largest"][check] for row in runs if check in row["largest"]]
            cells.append(f"{max(values):.1e}" if values else "")
        held = "".join(f" ({row['held'].removeprefix('training: ')})" for row in runs if row["held"])
        verdict = f"yes{held}" if all(row["agrees"] for row in runs) else "**no**"
        lines.append(
            f"| [{name}](../specs/{name}.yaml) | {', '.join(targets)} | {runs[0]['params']:,} | "
            f"{' | '.join(cells)} | {verdict} |"
        )
    versions = sorted(
        {f"{k} {v}" for row in rows.values() for found in row["versions"].values() for k, v in found.items()}
    )
    return HEAD + "\n".join(lines) + f"\n\n{len(lines) - 2} networks; versions: {', '.join(versions)}.\n"


def main() -> None:
    """Verify, and write the page after every network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--target", action="append")
    options = parser.parse_args()
    targets = tuple(options.target or ("torch", "keras"))
    rows: dict[str, dict[str, Any]] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    failed = []
    only = tuple(options.only) or ("",)
    paths = [path for path in spec_paths([ROOT / "specs"]) if path.stem.startswith(only)]
    for path in sorted(paths, key=lambda path: archspec.check(path).totals.macs):
        row = verify(path, targets, options.whole)
        covered = [k for k, old in rows.items() if k.split(":")[0] == path.stem and set(old["targets"]) <= set(targets)]
        rows = {key: old for key, old in rows.items() if key not in covered}
        rows[f"{path.stem}:{'+'.join(targets)}"] = row
        print(
            f"{path.stem}: {'agrees' if row['agrees'] else row['first'] or row['failures']}, {row['seconds']} s",
            flush=True,
        )
        failed += [] if row["agrees"] else [path.stem]
        RECORD.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n")
        PAGE.write_text(page(rows))
    sys.exit(f"these do not agree: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
