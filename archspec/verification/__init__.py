"""Verification: the same weights and data through every target, and where the results first differ."""

from archspec.verification.checks import BOUNDS, CHECKS, QUICK
from archspec.verification.evidence import Comparison, Evidence, Sensitivity
from archspec.verification.processes import WorkerError, Workers
from archspec.verification.run import verify

__all__ = [
    "BOUNDS",
    "CHECKS",
    "QUICK",
    "Comparison",
    "Evidence",
    "Sensitivity",
    "WorkerError",
    "Workers",
    "verify",
]
