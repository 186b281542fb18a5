"""training mode: outputs, gradients and running statistics where a sample's output depends on its batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from archspec.verification.checks.base import Context, TargetRun, pairs
from archspec.verification.checks.gradients import CAP, TRAINING_FLOOR, Gradients, ask_gradients, judge_gradients
from archspec.verification.evidence import Comparison
from archspec.verification.tensors import compare_tensors

if TYPE_CHECKING:
    from archspec.verification.checks.base import Array

BOUND = 1e-9  # float64

Result = dict[str, Gradients]  # by dtype


def ask(run: TargetRun) -> Result:
    """Ask for a pass in training mode, with given draws for dropout, in float64."""
    masks = run.inputs.masks_path(run.target)
    return {"float64": ask_gradients(run, "training-mode", "float64", masks=masks)}


def judge(context: Context, results: Mapping[str, Result]) -> Iterator[Comparison]:
    """Compare the logits, the running statistics after the pass, and the gradients."""
    for pair in pairs(results):

        def logits(of: str, dtype: str) -> Array | None:
            return context.layouts[of].to_canonical(results[of][dtype].arrays["scores"], context.graph.output)

        difference = compare_tensors(logits, pair, "float64", BOUND, CAP)
        name = context.graph.output.name
        yield Comparison.of(difference, "training-mode", name, "output", pair[1], "float64")
        for node, name in context.buffers:

            def read(of: str, dtype: str, node=node, name=name) -> Array | None:  # type: ignore[no-untyped-def]
                return context.read_param(results[of][dtype].arrays, node, name)

            before = context.inputs.weights[f"{node.name}.{name}"]
            among = context.deviation(results[pair[0]]["float64"].arrays, node, name)
            difference = compare_tensors(read, pair, "float64", BOUND, CAP, among=among, floor=TRAINING_FLOOR)
            if difference.value > difference.bound and not difference.problem:
                difference.looks_like = _moved(read(pair[0], "float64"), read(pair[1], "float64"), before)
            yield Comparison.of(difference, "training-mode", node.name, name, pair[1], "float64")
    yield from judge_gradients(context, "training-mode", "float64", results, BOUND, TRAINING_FLOOR)


def _moved(reference: Array | None, found: Array | None, before: Array) -> str:
    """Return what the difference of running statistics looks like."""
    import numpy as np

    if reference is None or found is None or reference.shape != found.shape:
        return ""
    a, b = reference - before, found - before
    if not b.any():
        return "it does not change in training"
    factor = float((a * b).sum() / max(float((a * a).sum()), 1e-300))
    if np.allclose(factor * a, b, rtol=1e-6, atol=1e-9 * float(abs(a).max())):
        return f"it moves {factor:.6g} times as far"
    return ""
