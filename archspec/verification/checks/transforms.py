"""transforms: second derivatives, and what frameworks do with a model beyond calling it, held to the plain call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archspec.verification.checks.base import ArrayFile, Context, TargetRun, pairs
from archspec.verification.checks.forward import CAP
from archspec.verification.evidence import Comparison
from archspec.verification.tensors import NAN, compare_tensors

if TYPE_CHECKING:
    from archspec.verification.checks.base import Array, Arrays

BOUND = 1e-9  # float64
FLOOR = 1e-3  # a key's bias moves no softmax: its derivatives are sums to 0
SECOND = "second derivatives"
IN_FLOAT32 = ("jit_compile",)  # XLA's float64 convolutions are slow; 1e-6 was measured on networks of norms


@dataclass(frozen=True)
class Result:
    """Distances from the plain call and exceptions, by what was done; the Hessian times a direction."""

    found: dict[str, float]
    faults: dict[str, str]
    second: Arrays  # by parameter, and `input`


def ask(run: TargetRun) -> Result:
    """Ask for all of it, in evaluation mode."""
    output = run.output("transforms")
    answer = run.ask(
        "transforms",
        weights=str(run.inputs.weights_path),
        inputs=run.inputs.path("unit_scale", run.target),
        direction=run.inputs.direction_paths(run.target)[0],
        output=str(output),
    )
    return Result(answer["found"], answer["faults"], ArrayFile(output) if output.is_file() else {})


def judge(context: Context, results: Mapping[str, Result]) -> Iterator[Comparison]:
    """Judge each target by its plain call, then compare second derivatives with the reference's."""
    for target, result in results.items():
        for what in (*result.found, *result.faults):
            value, problem = result.found.get(what, NAN), result.faults.get(what, "")
            dtype, bound = ("float32", CAP) if what in IN_FLOAT32 else ("float64", BOUND)
            yield Comparison("transforms", "", what, target, dtype, value, bound, problem, by_spec=True)
    for pair in pairs({target: result for target, result in results.items() if result.second}):
        among = context.largest(results[pair[0]].second)
        for node, name in (*context.params, (context.graph.input, "")):

            def read(of: str, dtype: str, node=node, name=name) -> Array | None:  # type: ignore[no-untyped-def]
                arrays = results[of].second
                if name:
                    return context.read_param(arrays, node, name)
                return context.layouts[of].to_canonical(arrays["input"], node)

            difference = compare_tensors(
                read, pair, "float64", BOUND, CAP, may_be_missing=True, among=among, floor=FLOOR
            )
            layer, what = node.name if name else "", f"{name} second derivative".strip()
            yield Comparison.of(difference, "transforms", layer, what, pair[1], "float64")
