"""structure: names and shapes of every parameter and of every layer's output, against the graph's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from archspec.graph.layouts import Layout, channels_last
from archspec.targets import target_of
from archspec.verification.checks.base import Context, TargetRun
from archspec.verification.evidence import Comparison
from archspec.verification.tensors import NAN, shape_text

BATCH = 2


@dataclass(frozen=True)
class Result:
    """Shapes in the target's layout: of the parameters, and of the outputs for a batch of 2."""

    params: dict[str, list[int]]
    outputs: dict[str, list[int]]
    error: str  # that ended the forward pass; empty if none did

    def fits(self, run: TargetRun) -> bool:
        """Return whether canonical weights fit into the parameters."""
        layout = Layout(target_of(run.target).channels_last, {})
        nodes = run.graph.nodes
        expected = {f"{n.name}.{k}": list(layout.weight_shape(s)) for n in nodes for k, s in n.trainable.items()}
        return expected == self.params


def ask(run: TargetRun) -> Result:
    """Ask for the shapes, which needs no weights."""
    shape = run.graph.input.output_shape
    shape = channels_last(shape) if target_of(run.target).channels_last else shape
    answer = run.ask("structure", inputs=[BATCH, *shape], layers=run.layers)
    return Result(answer["parameters"], answer["outputs"], answer["fault"])


def judge(context: Context, results: Mapping[str, Result]) -> Iterator[Comparison]:
    """Compare every shape with the graph's."""
    for target, result in results.items():
        layout = context.layouts[target]

        def of(layer: str, what: str, problem: str = "", target: str = target) -> Comparison:
            value = NAN if problem else 0.0
            return Comparison("structure", layer, what, target, "", value, 0.0, problem, by_spec=True)

        extra = dict(result.params)
        stopped = False
        for node in context.graph.nodes:
            for name, shape in node.trainable.items():
                found, expected = extra.pop(f"{node.name}.{name}", None), list(layout.weight_shape(shape))
                yield of(node.name, name, _problem(found, expected))
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


def _problem(found: list[int] | None, expected: list[int], unit: str = "") -> str:
    if found is None:
        return "is missing"
    return "" if found == expected else f"its shape is {shape_text(found)}{unit}, not {shape_text(expected)}"
