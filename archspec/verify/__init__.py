"""The same weights and the same data through every target: where the results first part, and what could be seen."""

from archspec.verify.evidence import BOUNDS, CHECKS, Comparison, Evidence, Sensitivity
from archspec.verify.run import QUICK, verify
from archspec.verify.workers import ALL_TARGETS, WorkerError, Workers, kind

__all__ = [
    "ALL_TARGETS",
    "BOUNDS",
    "CHECKS",
    "QUICK",
    "Comparison",
    "Evidence",
    "Sensitivity",
    "WorkerError",
    "Workers",
    "kind",
    "verify",
]
