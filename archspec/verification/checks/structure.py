"""structure: names and shapes of every parameter and of every layer's output, against the graph's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from archspec.graph.layouts import channels_last
from archspec.targets import target_of
from archspec.verification import canonical_weights
from archspec.verification.checks.base import Context, TargetRun
from archspec.verification.evidence import Comparison
from archspec.verification.tensors import NAN, shape_text

BATCH = 2


@dataclass(frozen=True)
class Result:
    """Shapes of the parameters, in PyTorch's layout, and of the outputs in the target's, for a batch of 2."""

    params: dict[str, list[int]]
    outputs: dict[str, list[int]]
    error: str  # that ended the forward pass; empty if none did
    faults: dict[str, str]  # by layer: why canonical weights cannot be loaded

    def fits(self, run: TargetRun) -> bool:
        """Return whether canonical weights fit into the parameters."""
        return not self.faults and self.params == canonical_weights.shapes(run.graph)


def ask(run: TargetRun) -> Result:
    """Ask for the shapes, which needs no weights."""
    shape = run.graph.input.output_shape
    shape = channels_last(shape) if target_of(run.target).channels_last else shape
    answer = run.ask("structure", inputs=[BATCH, *shape], layers=run.layers)
    return Result(answer["parameters"], answer["outputs"], answer["fault"], answer.get("faults", {}))


def judge(context: Context, results: Mapping[str, Result]) -> Iterator[Comparison]:
    """Compare every shape with the graph's."""
    for target, result in results.items():
        layout = context.layouts[target]

        def of(layer: str, what: str, problem: str = "", target: str = target) -> Comparison:
            value = NAN if problem else 0.0
            return Comparison("structure", layer, what, target, "", value, 0.0, problem, by_spec=True)

        extra, faults = dict(result.params), dict(result.faults)
        stopped = False
        for node in context.graph.nodes:
            fault = faults.pop(node.name, "")
            for name, param in node.params.items():
                found = extra.pop(f"{node.name}.{name}", None)
                yield of(node.name, name, fault or _problem(found, list(param.shape)))
            if fault and not node.params:
                yield of(node.name, "parameters", fault)
            found, expected = result.outputs.get(node.name), [BATCH, *layout.output_shape(node.output_shape)]
            if found is None and stopped:
                continue
            if found is None:
                stopped = bool(result.error)
                yield of(node.name, "output", result.error or "is missing")
            else:
                yield of(node.name, "output", _problem(found[1:], expected[1:], " per sample"))
        for name, found in extra.items():
            yield of("", name, f"the spec has no parameter {name} ({shape_text(found)})")
        for layer, fault in faults.items():
            yield of("", layer, fault)


def _problem(found: list[int] | None, expected: list[int], unit: str = "") -> str:
    if found is None:
        return "is missing"
    return "" if found == expected else f"its shape is {shape_text(found)}{unit}, not {shape_text(expected)}"
