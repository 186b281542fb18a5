"""The checks of a verification, one a file: what is asked of a target, its typed result, and the judgement.

Each module has `ask(run) -> Result`, `judge(context, results) -> Iterator[Comparison]` and its tolerances.
"""

from archspec.verification.checks import (
    dropout,
    forward,
    gradients,
    initialization,
    pixels,
    structure,
    training,
    training_mode,
    transforms,
)
from archspec.verification.checks.base import Check, Context, TargetRun

# In this order: a disagreement shows first in the first check that can see it.
CHECKS: dict[str, Check] = {
    "structure": structure,
    "forward": forward,
    "gradients": gradients,
    "training-mode": training_mode,
    "dropout": dropout,
    "training": training,
    "init": initialization,
    "transforms": transforms,
    "images": pixels,
}

QUICK = ("structure", "forward", "gradients", "training-mode")  # the checks of --quick, in float64 only

# The largest relative difference in float64, by check.
BOUNDS = {
    "forward": forward.BOUND,
    "gradients": gradients.BOUND,
    "training-mode": training_mode.BOUND,
    "training": training.BOUND,
    "dropout": dropout.BOUND,
    "transforms": transforms.BOUND,
}

__all__ = ["BOUNDS", "CHECKS", "QUICK", "Check", "Context", "TargetRun"]
