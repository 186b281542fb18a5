"""init: each target's own initial weights, against the distributions of the spec's initializers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archspec.language.initializers import Distribution
from archspec.verification import statistics
from archspec.verification.checks.base import ArrayFile, Context, TargetRun
from archspec.verification.evidence import Comparison
from archspec.verification.tensors import NAN

if TYPE_CHECKING:
    from archspec.verification.checks.base import Array, Arrays

ENOUGH = 1_000_000  # weights; of a small network several models are made, to tell distributions apart
MODELS = 8


@dataclass(frozen=True)
class Result:
    """The weights of several models as they are made, stacked, by parameter."""

    weights: Arrays


def ask(run: TargetRun) -> Result:
    """Ask for the initial weights."""
    output = run.output("initial")
    draws = max(1, min(MODELS, ENOUGH // sum(w.size for w in run.inputs.weights.values())))
    run.ask("initial", seed=run.inputs.seed + 1, draws=draws, output=str(output))
    return Result(ArrayFile(output))


def judge(context: Context, results: Mapping[str, Result]) -> Iterator[Comparison]:
    """Compare mean, deviation, tails and distribution of every parameter with its initializer's."""
    for target, result in results.items():
        heads: dict[tuple[float, ...], str] = {}
        for node, name in context.params:
            key = f"{node.name}.{name}"
            if key not in result.weights:
                yield Comparison(
                    "init", node.name, name, target, "float32", NAN, statistics.SIGMAS, "is missing", by_spec=True
                )
                continue
            rule = context.graph.distribution(node, name)
            yield _compare(node.name, name, target, result.weights[key], rule, heads)


def _compare(
    layer: str, name: str, target: str, values: Array, rule: Distribution, heads: dict[tuple[float, ...], str]
) -> Comparison:
    """Compare one parameter; `heads` are the first values of those before it."""
    import numpy as np

    far = statistics.drawn_from(values, rule)
    which = max(far, key=lambda key: far[key])
    problem = ""
    if rule.kind == "constant":
        odd = values.ravel()[np.argmax(values.ravel() != np.float32(rule.first))]
        problem = f"contains {odd:.6g}, and should be {rule.first:.6g} everywhere" if far[which] else ""
    elif values.size >= 4:
        head = tuple(values.ravel()[:4].tolist())
        problem = f"starts with the same values as {heads[head]}" if head in heads else ""
        heads.setdefault(head, f"{layer}.{name}")
    if not problem and far[which] == float("inf"):
        deviation = f"its values have a deviation of {values.std():.3g}, from {values.min():.3g} to {values.max():.3g}"
        problem = f"{deviation}; the initializer draws from {rule}"
    looks_like = f"by its {which}" if far[which] > statistics.SIGMAS else ""
    return Comparison(
        "init",
        layer,
        name,
        target,
        "float32",
        far[which],
        statistics.SIGMAS,
        problem,
        looks_like=looks_like,
        by_spec=True,
        in_standard_errors=True,
    )
