"""Evidence as data, that can be committed beside what it is of, and whether it still stands."""

from __future__ import annotations

import hashlib
import json
import platform
from math import isfinite
from pathlib import Path
from typing import Any

import archspec
from archspec.graph import Graph
from archspec.verify.evidence import Comparison, Evidence


def certificate(evidence: Evidence) -> dict[str, Any]:
    """Return a verification as data: what was run, of which files, on what, and all that was found."""
    first = evidence.first
    return {
        "archspec": archspec.__version__,
        "spec": {"name": evidence.graph.name, "sha256": _sha256(evidence.graph.source.text.encode())},
        "agrees": evidence.agrees,
        "parts": None if first is None else {**_comparison(first), "finding": first.finding},
        "failures": [str(failure) for failure in evidence.failures],
        "targets": {
            target: {
                "versions": evidence.versions.get(target, {}),
                "files": {path.name: evidence.hashes[str(path)] for path in evidence.files[target]},
                "peak_bytes": evidence.peak_bytes.get(target),
            }
            for target in evidence.targets
        },
        "machine": {
            "system": f"{platform.system()} {platform.release()}",
            "machine": platform.machine(),
            "python": platform.python_version(),
            "device": evidence.device,
        },
        "checks": list(evidence.checks),
        "skipped": evidence.skipped,
        "dtypes": list(evidence.dtypes),
        "seed": evidence.seed,
        "batch": evidence.batch,
        "steps": evidence.steps,
        "seconds": round(evidence.seconds, 1),
        "comparisons": [_comparison(c) for c in evidence.comparisons],
        "sensitivity": [
            {"layer": s.layer, "change": s.change, "moved": _number(s.moved), "seen_by": s.seen_by}
            for s in evidence.sensitivity
        ],
    }


def text(evidence: Evidence) -> str:
    """Return a certificate as the text of a file."""
    return json.dumps(certificate(evidence), indent=1, allow_nan=False) + "\n"


def stands(graph: Graph, folder: Path) -> list[str]:
    """Return why the certificate in `folder` does not stand for the spec and the files beside it, if it does not."""
    path = folder / "verify.json"
    if not path.is_file():
        return [f"there is no {path}"]
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        found, files, agrees = read["spec"]["sha256"], [t["files"] for t in read["targets"].values()], read["agrees"]
        wanted = {str(name): str(sha256) for names in files for name, sha256 in names.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return [f"{path} is not a certificate"]
    faults = []
    if agrees is not True:
        faults.append(f"{path} says that the targets part")
    if found != _sha256(graph.source.text.encode()):
        faults.append(f"{path} is of another text of {graph.source.path}")
    for name, sha256 in wanted.items():
        file = folder / Path(name).name
        if not file.is_file():
            faults.append(f"{file} is not there")
        elif _sha256(file.read_bytes()) != sha256:
            faults.append(f"{file} is not the file that was verified")
    if not wanted:
        faults.append(f"{path} is of no files")
    return faults


def _comparison(c: Comparison) -> dict[str, Any]:
    found = {"check": c.check, "layer": c.layer, "what": c.what, "target": c.target, "dtype": c.dtype}
    values = {"value": _number(c.value), "bound": _number(c.bound), "agrees": c.agrees}
    said = {key: word for key, word in (("fault", c.fault), ("looks", c.looks), ("blind", c.blind)) if word}
    return {**found, **values, **said}


def _number(value: float) -> float | None:
    """Return three digits of a number; None for what JSON has no number for."""
    return float(f"{value:.3g}") if isfinite(value) else None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
