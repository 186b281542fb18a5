"""gradients: of the loss, in every parameter and the input; and each target's own against central differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from archspec.graph import Graph
from archspec.verification.checks.base import ArrayFile, Context, TargetRun, pairs
from archspec.verification.evidence import Comparison
from archspec.verification.inputs import STEP
from archspec.verification.tensors import NAN, compare_tensors

if TYPE_CHECKING:
    from archspec.verification.checks.base import Array, Arrays

BOUND = 1e-9  # float64; between PyTorch and Keras 4e-15 was measured on AlexNet
# Of a target's float32 from its own float64. A gradient is not continuous in its rounding: a value that rounds to the
# other side of a ReLU's zero, or ties for a maximum, moves it by a whole sample's share. 0.03 was measured on AlexNet.
CAP = 0.1
CENTRAL = 1e-4  # of a central difference from the gradient, relative to the gradient along the direction
VALUES = 4_000_000  # of all layers' outputs, as AlexNet has: among more, more ReLUs change sides within the step
MORE = 1_000_000  # above those, each so many allow for CENTRAL more: 3.8e-3 was seen of ResNet-50, with 75 million
ROUNDING = 2e-14  # of a loss in float64, relative: a hundred roundings, for each LAYERS layers
LAYERS = 25
FLOOR = 1e-6
# In training mode: the gradient of a bias before a batch normalization is 0, but for the rounding of sums.
TRAINING_FLOOR = 1e-3


def training_floor(graph: Graph) -> float:
    """Return the floor of gradients in training mode."""
    return TRAINING_FLOOR if graph.batch_dependent else FLOOR


@dataclass(frozen=True)
class Gradients:
    """The loss and its gradients in one dtype: arrays by parameter, `input`, and the logits as `scores`."""

    loss: float
    arrays: Arrays
    moved: list[list[float]]  # for each direction, the loss a step ahead and a step behind
    undrawn: list[str]  # random layers that asked for no draw, though in training mode


Result = dict[str, Gradients]  # by dtype


def ask(run: TargetRun) -> Result:
    """Ask for the gradients in evaluation mode and, in float64, for losses along random directions."""
    along = {"directions": run.inputs.direction_paths(run.target), "step": STEP}
    return {
        dtype: ask_gradients(run, "gradients", dtype, **(along if dtype == "float64" else {})) for dtype in run.dtypes
    }


def ask_gradients(run: TargetRun, name: str, dtype: str, **arguments: object) -> Gradients:
    """Ask for the gradients of the loss, in training mode if `masks` are given."""
    output = run.output(name, dtype)
    answer = run.ask(
        "gradients",
        weights=str(run.inputs.weights_path),
        inputs=run.inputs.path("unit_scale", run.target),
        labels=run.inputs.label_path("labels"),
        dtype=dtype,
        output=str(output),
        **arguments,
    )
    return Gradients(answer["loss"], ArrayFile(output), answer["moved"], answer["undrawn"])


def judge(context: Context, results: Mapping[str, Result]) -> Iterator[Comparison]:
    """Compare the gradients with the reference's, then each target's with central differences."""
    for dtype in context.dtypes:
        yield from judge_gradients(context, "gradients", dtype, results, BOUND)
    for target, result in results.items():
        if "float64" in result and result["float64"].moved:
            yield _central_difference(context, target, result["float64"])


def judge_gradients(
    context: Context, check: str, dtype: str, results: Mapping[str, Result], bound: float, floor: float = FLOOR
) -> Iterator[Comparison]:
    """Compare loss and gradients in one dtype; those below `floor` of the largest are compared at the floor."""
    import numpy as np

    for pair in pairs({target: result for target, result in results.items() if dtype in result}):

        def loss(of: str, dtype: str) -> Array | None:
            return np.asarray([results[of][dtype].loss]) if dtype in results[of] else None

        difference = compare_tensors(loss, pair, dtype, bound, CAP, check_dtype=False)
        yield Comparison.of(difference, check, "", "loss", pair[1], dtype)
        among = context.largest(results[pair[0]][dtype].arrays)
        for node, name in (*context.params, (context.graph.input, "")):

            def read(of: str, dtype: str, node=node, name=name) -> Array | None:  # type: ignore[no-untyped-def]
                if dtype not in results[of]:
                    return None
                arrays = results[of][dtype].arrays
                if name:
                    return context.read_param(arrays, node, name)
                return context.layouts[of].to_canonical(arrays["input"], node) if "input" in arrays else None

            difference = compare_tensors(read, pair, dtype, bound, CAP, may_be_missing=True, among=among, floor=floor)
            yield Comparison.of(
                difference, check, node.name if name else "", f"{name} gradient".strip(), pair[1], dtype
            )


def _central_difference(context: Context, target: str, result: Gradients) -> Comparison:
    """Compare the slopes of the loss along random directions with those that the gradients give."""
    import numpy as np

    layout = context.layouts[target]
    slopes: list[list[float]] = [[] for _ in context.inputs.directions]
    for node, name in (*context.params, (context.graph.input, "")):
        key = f"{node.name}.{name}" if name else "input"
        if key not in result.arrays:
            continue
        array = result.arrays[key]
        gradient = array if name else layout.to_canonical(array, node)
        for slope, (weights, inputs) in zip(slopes, context.inputs.directions, strict=True):
            along = weights[key] if name else inputs
            slope.append(float(np.vdot(gradient, along.astype(np.float64))))
    worst, problem = 0.0, ""
    depth = max(1.0, len(context.graph.nodes) / LAYERS)
    largest = float(abs(result.arrays["scores"]).max())
    for slope, (ahead, behind) in zip(slopes, result.moved, strict=True):
        length = float(np.sqrt(np.sum(np.square(slope))))
        central = (ahead - behind) / (2 * STEP)
        rounding = ROUNDING * depth * max(abs(ahead), largest) / STEP  # of the two losses, and of the logits below them
        # Where a value changes sides between the two, one of the slopes on either side is still the gradient's.
        sides = (ahead - result.loss) / STEP, (result.loss - behind) / STEP
        apart = max(
            0.0, min(abs(central - sum(slope)), *(abs(side - sum(slope)) - rounding for side in sides)) - rounding
        )
        if not np.isfinite(central):
            problem = "is not finite"
        elif length:
            worst = max(worst, apart / length)
        elif apart:
            problem = f"is {central:.2g} along a direction in which the gradients are 0"
    value = NAN if problem else worst
    values = sum(prod(node.output_shape) for node in context.graph.nodes) * context.inputs.batch
    bound = CENTRAL * (1.0 + max(0, values - VALUES) / MORE)
    return Comparison("gradients", "", "central difference", target, "float64", value, bound, problem, by_spec=True)
