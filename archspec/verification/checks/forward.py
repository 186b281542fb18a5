"""forward: every layer's output in evaluation mode, against the reference target's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archspec.graph import Node
from archspec.verification.checks.base import Context, TargetRun, pairs
from archspec.verification.evidence import Comparison
from archspec.verification.tensors import NAN, compare_tensors, shape_text

if TYPE_CHECKING:
    from archspec.verification.checks.base import Array, Arrays

BOUND = 1e-10  # float64; between PyTorch and Keras 2e-15 was measured on AlexNet
LAYERS = 100  # deeper layers may be as many times farther apart: 1.1e-10 at the 400th of EfficientNet-B4
CAP = 1e-5  # of a target's float32 from its own float64: outputs are continuous in their rounding


@dataclass(frozen=True)
class Result:
    """By dtype: the layers' outputs, and the error that ended the forward pass, empty if none did."""

    outputs: dict[str, Arrays]
    errors: dict[str, str]


def ask(run: TargetRun) -> Result:
    """Ask for every layer's output."""
    import numpy as np

    result = Result({}, {})
    for dtype in run.dtypes:
        output = run.output("forward", dtype)
        answer = run.ask(
            "forward",
            weights=str(run.inputs.weights_path),
            inputs=run.inputs.path("inputs", run.target),
            dtype=dtype,
            layers=run.layers,
            output=str(output),
        )
        with np.load(output) as arrays:
            result.outputs[dtype] = dict(arrays)
        result.errors[dtype] = answer.get("fault", "")
    return result


def judge(context: Context, results: Mapping[str, Result]) -> Iterator[Comparison]:
    """Compare every layer's output with the reference's, and its shape with the graph's."""
    for dtype in context.dtypes:
        for pair in pairs(results):
            for i, node in enumerate(context.graph.nodes, 1):
                yield _compare(context, results, pair, dtype, node, BOUND * max(1.0, i / LAYERS))


def _compare(
    context: Context, results: Mapping[str, Result], pair: tuple[str, str], dtype: str, node: Node, bound: float
) -> Comparison:
    reference, target = pair

    def read(of: str, dtype: str, node: Node = node) -> Array | None:
        array = results[of].outputs.get(dtype, {}).get(node.name)
        return None if array is None else context.layouts[of].to_canonical(array, node)

    def fail(problem: str) -> Comparison:
        return Comparison("forward", node.name, "output", target, dtype, NAN, bound, problem)

    a, b = read(reference, dtype), read(target, dtype)
    if b is None and (error := results[target].errors[dtype]):
        return fail(error)
    if a is not None and a.shape[1:] != node.output_shape:
        return fail(
            f"the shape in {reference} is {shape_text(a.shape[1:])}, the spec's {shape_text(node.output_shape)}"
        )
    before = node.inputs[0]
    difference = compare_tensors(
        read,
        pair,
        dtype,
        bound,
        CAP,
        must_not_be_zero=node is context.graph.output,
        among=float(getattr(node.op, "normalizes", False)),  # about 1, unless its input is constant
        input=None if before is context.graph.input else read(reference, dtype, before),
    )
    return Comparison.of(difference, "forward", node.name, "output", target, dtype)
