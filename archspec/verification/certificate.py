"""Certificates: evidence as JSON, committed beside the generated files, and whether one is up to date."""

from __future__ import annotations

import hashlib
import json
import platform
from math import isfinite
from pathlib import Path, PurePosixPath
from typing import Any

import archspec
from archspec.graph import Graph
from archspec.targets.view import spec_hash
from archspec.verification.evidence import Comparison, Evidence

NAME = "verify.json"


def certificate(evidence: Evidence) -> dict[str, Any]:
    """Return a verification as data: the files, the machine, and every comparison."""
    first = evidence.first
    return {
        "archspec": archspec.__version__,
        "spec": {"name": evidence.graph.name, "sha256": spec_hash(evidence.graph.source)},
        "agrees": evidence.agrees,
        "first_disagreement": None if first is None else {**_comparison(first), "finding": first.finding},
        "failures": [str(failure) for failure in evidence.failures],
        "targets": {
            target: {
                "versions": evidence.versions.get(target, {}),
                "files": evidence.files[target],
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
        **({"weights": evidence.weights} if evidence.weights else {}),
        **({"held": evidence.held} if evidence.held else {}),
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


def stale_reasons(graph: Graph, folder: Path) -> list[str]:
    """Return why the certificate in `folder` is not valid for the spec and the files beside it; empty if it is."""
    path = folder / NAME
    if not path.is_file():
        return [f"{path} does not exist"]
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        spec, targets, agrees = data["spec"]["sha256"], data["targets"].values(), data["agrees"]
        hashes = {str(name): str(sha256) for target in targets for name, sha256 in target["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return [f"{path} is not a certificate"]
    reasons = []
    if agrees is not True:
        reasons.append(f"{path} records a disagreement")
    if spec != spec_hash(graph.source):
        reasons.append(f"{path} was made from another version of {graph.source.path}")
    for name, sha256 in hashes.items():
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts:
            return [f"{path} is not a certificate"]
        file = folder / inside
        if not file.is_file():
            reasons.append(f"{file} does not exist")
        elif hashlib.sha256(file.read_bytes()).hexdigest() != sha256:
            reasons.append(f"{file} has changed since it was verified")
    if not hashes:
        reasons.append(f"{path} names no files")
    return reasons


def _comparison(c: Comparison) -> dict[str, Any]:
    found = {"check": c.check, "layer": c.layer, "what": c.what, "target": c.target, "dtype": c.dtype}
    values = {"value": _number(c.value), "bound": _number(c.bound), "agrees": c.agrees}
    notes = {"problem": c.problem, "looks_like": c.looks_like, "all_zero": c.all_zero}
    return {**found, **values, **{key: note for key, note in notes.items() if note}}


def _number(value: float) -> float | None:
    """Return three digits of a number; None for one that JSON does not have."""
    return float(f"{value:.3g}") if isfinite(value) else None
