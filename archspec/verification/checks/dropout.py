"""dropout: outputs and gradients with given draws; with its own draws, rate, scale, and nothing in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from archspec.graph import Node
from archspec.verification import statistics
from archspec.verification.checks.base import ArrayFile, Context, TargetRun, pairs
from archspec.verification.checks.gradients import CAP, Gradients, ask_gradients, judge_gradients, training_floor
from archspec.verification.evidence import Comparison
from archspec.verification.tensors import NAN, compare_tensors

if TYPE_CHECKING:
    from archspec.verification.checks.base import Array, Arrays

BOUND = 1e-9  # float64


@dataclass(frozen=True)
class Result:
    """Gradients with given draws, in float64; inputs and outputs of the random layers with their own draws."""

    given: Gradients
    own: Arrays  # `LAYER.training.in`, `.training.out`, `.evaluation.in`, `.evaluation.out`


def ask(run: TargetRun) -> Result:
    """Ask for both."""
    given = ask_gradients(run, "masked", "float64", masks=run.inputs.masks_path(run.target))
    output = run.output("dropout")
    run.ask(
        "dropout",
        weights=str(run.inputs.weights_path),
        inputs=run.inputs.path("many", run.target),
        dtype="float32",
        layers=[node.name for node in run.inputs.random_layers],
        seed=run.inputs.seed + 1,
        output=str(output),
    )
    return Result(given, ArrayFile(output))


def judge(context: Context, results: Mapping[str, Result]) -> Iterator[Comparison]:
    """Judge each target's own draws, then compare outputs and gradients with given draws."""
    for target, result in results.items():
        for node in context.random_layers:
            if node.name in result.given.undrawn and node.op.p:  # type: ignore[union-attr]
                problem = "drops nothing in training"
                yield Comparison("dropout", node.name, "draw", target, "float64", NAN, 0.0, problem, by_spec=True)
    for target, result in results.items():
        for node in context.random_layers:
            yield from _own_draws(target, node, result.own)
    for pair in pairs(results):

        def logits(of: str, dtype: str) -> Array | None:
            array = results[of].given.arrays["scores"]
            return context.layouts[of].to_canonical(array, context.graph.output)

        difference = compare_tensors(logits, pair, "float64", BOUND, CAP)
        name = context.graph.output.name
        yield Comparison.of(difference, "dropout", name, "output with draws", pair[1], "float64")
    given = {target: {"float64": result.given} for target, result in results.items()}
    floor = training_floor(context.graph)
    yield from judge_gradients(context, "dropout", "float64", given, BOUND, floor)


def _own_draws(target: str, node: Node, arrays: Arrays) -> Iterator[Comparison]:
    def of(what: str, value: float, bound: float, problem: str = "", **more: Any) -> Comparison:
        return Comparison("dropout", node.name, what, target, "float32", value, bound, problem, by_spec=True, **more)

    keys = [f"{node.name}.{mode}.{end}" for mode in ("training", "evaluation") for end in ("in", "out")]
    if any(key not in arrays for key in keys):
        yield of("draw", NAN, statistics.SIGMAS, "is missing")
        return
    inputs, outputs, before, after = (arrays[key] for key in keys)
    op: Any = node.op
    sigmas, problem = statistics.drops(inputs, outputs, op.p, whole=op.draws_samples)
    all_zero = problem == statistics.ZEROS
    problem = "" if all_zero else problem
    value = NAN if problem else sigmas
    yield of("drop rate", value, statistics.SIGMAS, problem, all_zero=all_zero, in_standard_errors=True)
    problem = "" if (before == after).all() else "changes its input in evaluation mode"
    yield of("evaluation", NAN if problem else 0.0, 0.0, problem)
