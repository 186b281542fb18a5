"""training: steps of the recipe across a change of the learning rate, dropout off: rates, losses, weights, state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archspec.verification.checks.base import ArrayFile, Context, TargetRun, pairs
from archspec.verification.checks.gradients import training_floor
from archspec.verification.evidence import Comparison
from archspec.verification.inputs import GROWTH, plan, rates
from archspec.verification.tensors import NAN, compare_tensors

if TYPE_CHECKING:
    from archspec.verification.checks.base import Array, Arrays

BOUND = 1e-8  # float64; between PyTorch and Keras 5e-15 of the update was measured on AlexNet
CAP = 0.1  # of a target's float32 from its own float64: see gradients
STATE_CAP = 1.0  # of an optimizer's state, which is made of gradients: 0.2 was measured on AlexNet
RATE_BOUND = {"float64": 1e-12, "float32": 1e-6}


@dataclass(frozen=True)
class Run:
    """Training in one dtype: the loss and the rate of every step; weights and optimizer state at the end."""

    losses: list[float]
    rates: list[float]
    arrays: Arrays
    in_training_mode: bool
    peak_bytes: int


Result = dict[str, Run]  # by dtype


def ask(run: TargetRun) -> Result:
    """Ask for a training run."""
    result = {}
    for dtype in run.dtypes:
        output = run.output("training", dtype)
        answer = run.ask(
            "training",
            weights=str(run.inputs.start_path),
            inputs=run.inputs.path("steps", run.target),
            labels=run.inputs.label_path("step_labels"),
            dtype=dtype,
            epochs=plan(run.inputs.recipe, run.inputs.horizon.steps(dtype)),
            output=str(output),
        )
        result[dtype] = Run(answer["losses"], answer["rates"], ArrayFile(output), answer["drops"], answer["peak_bytes"])
    return result


def judge(context: Context, results: Mapping[str, Result]) -> Iterator[Comparison]:
    """Compare rates with the recipe's; losses, and the weights and state at the end, with the reference's."""
    recipe, horizon = context.inputs.recipe, context.inputs.horizon
    for target, result in results.items():
        for dtype, run in result.items():
            expected = rates(recipe, plan(recipe, horizon.steps(dtype)))
            bound, full = RATE_BOUND[dtype], recipe.optimizer.lr
            apart = [abs(found - rate) / full for found, rate in zip(run.rates, expected, strict=True)]
            at = next((i for i, far in enumerate(apart) if not far <= bound), None)
            problem = "" if at is None else f"is {run.rates[at]:.3g} in step {at + 1}, and should be {expected[at]:.3g}"
            value = max(apart, default=0.0)
            yield Comparison("training", "", "learning rate", target, dtype, value, bound, problem, by_spec=True)
    for target, result in results.items():
        if "float64" in result and not result["float64"].in_training_mode:
            problem = "steps are taken in evaluation mode: nothing is dropped"
            yield Comparison("training", "", "mode", target, "float64", NAN, 0.0, problem, by_spec=True)
    for dtype in context.dtypes:
        for pair in pairs({target: result for target, result in results.items() if dtype in result}):
            yield from _compare(context, results, pair, dtype)


def _compare(
    context: Context, results: Mapping[str, Result], pair: tuple[str, str], dtype: str
) -> Iterator[Comparison]:
    import numpy as np

    horizon = context.inputs.horizon
    limit = max(BOUND, GROWTH * horizon.growth)

    count = horizon.steps(dtype)

    def losses(of: str, dtype: str) -> Array | None:
        return np.asarray(results[of][dtype].losses[:count]) if dtype in results[of] else None

    difference = compare_tensors(losses, pair, dtype, limit, CAP, check_dtype=False)
    if difference.value > difference.bound and not difference.problem:
        a, b = (np.asarray(results[of][dtype].losses) for of in pair)
        step = int(np.argmax(abs(a - b) > difference.bound * abs(a).max())) + 1
        difference.looks_like = f"from step {step} on"
    yield Comparison.of(difference, "training", "", "loss", pair[1], dtype)

    if dtype == "float32" and horizon.float32 != horizon.float64:
        return  # their ends are not comparable: rounding has grown into the result
    states = [f"state{i}." for i in range(context.inputs.recipe.optimizer.states)]
    buffers = set(context.buffers)
    floor = training_floor(context.graph)
    for node, name in (*context.params, *context.buffers):
        for prefix in ("", *([] if (node, name) in buffers else states)):

            def read(of: str, dtype: str, node=node, name=name, prefix=prefix) -> Array | None:  # type: ignore[no-untyped-def]
                arrays = results[of][dtype].arrays if dtype in results[of] else {}
                return context.read_param(arrays, node, name, prefix)

            arrays = results[pair[0]][dtype].arrays
            among = context.largest(arrays, prefix) if prefix else context.deviation(arrays, node, name)
            cap = STATE_CAP if prefix else CAP
            difference = compare_tensors(read, pair, dtype, limit, cap, among=among, floor=floor)
            number = f" {prefix[5]}" if len(states) > 1 and prefix else ""
            what = f"{name} {'state' if prefix else 'after'}{number}"
            yield Comparison.of(difference, "training", node.name, what, pair[1], dtype)
