"""Claims of a spec's source, compared with what is computed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

from archspec import analysis
from archspec.graph import Graph, Node
from archspec.graph.build import load_neighbour
from archspec.language.ops.base import format_shape
from archspec.language.source import Diagnostic, SpecError
from archspec.language.spec import Claim

MAX_CLAIMED_LAYERS = 1_000_000
_ABOUT = re.compile(r"\b(about|around|roughly|approximately|nearly|almost|some|circa)\b|[~≈约大概]", re.I)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A claim with the computed value; `tolerance` is that of a rounded number."""

    claim: Claim
    what: str
    claimed: Any
    computed: Any
    tolerance: float

    @property
    def is_true(self) -> bool:
        """Whether the claimed number or shape is the computed one."""
        if isinstance(self.claimed, list):
            return bool(self.claimed == self.computed)
        return bool(abs(self.claimed - self.computed) <= self.tolerance)

    @property
    def holds(self) -> bool:
        """Whether the claim is true or, if it is disputed, false."""
        return self.is_true != bool(self.claim.disputed)


def verdicts(graph: Graph) -> list[Verdict]:
    """Return a verdict on every claim of the spec, in order.

    Raises SpecError where a claim compares with a spec that is missing or has errors.
    """
    if not graph.spec.claims:
        return []

    named = graph.named
    neighbours: dict[str, Graph] = {}  # read once, however many claims compare with one

    @cache
    def computed_for(of: Graph, layers: tuple[str, ...], subject: str) -> Any:
        if subject == "params_share":
            return computed_for(of, layers, "params") / max(1, computed_for(of, (), "params"))
        nodes = tuple(dict.fromkeys(node for name in layers for node in named[name])) if layers else of.nodes
        return _computed(nodes, subject)

    count = 0
    found = []
    for i, claim in enumerate(graph.spec.claims):
        (subject,) = claim.subjects
        what = f"{'+'.join(claim.layers)} {subject}".strip()
        count += sum(len(named[name]) for name in claim.layers)
        if count > MAX_CLAIMED_LAYERS:
            message = f"the claims are about more than {MAX_CLAIMED_LAYERS:,} layers, each as often as it is named"
            raise SpecError([graph.source.error("too-large", message, ("claims", i, "layer"))])
        computed = computed_for(graph, tuple(claim.layers), subject)
        if claim.times:
            what += f", times {claim.times.removesuffix('.yaml')}'s"
            if claim.times not in neighbours:
                neighbours[claim.times] = _other(graph, claim.times, i)
            unit = computed_for(neighbours[claim.times], (), subject)
            if isinstance(unit, list) or not unit:
                message = f"{claim.times} has no {subject} to compare with"
                raise SpecError([graph.source.error("claim", message, ("claims", i, "times"))])
            computed = computed / unit
        claimed = getattr(claim, subject)
        slack = 0.0 if isinstance(claimed, list) else tolerance(claimed, about=bool(_ABOUT.search(claim.says)))
        if isinstance(claimed, float) and claimed == int(claimed):
            claimed = int(claimed)
        found.append(Verdict(claim, what, claimed, computed, slack))
    return found


def errors(graph: Graph, found: list[Verdict]) -> Iterator[Diagnostic]:
    """Yield an error for each verdict that does not hold."""
    for i, verdict in enumerate(found):
        if not verdict.holds:
            claimed, computed = format_number(verdict.claimed), format_number(verdict.computed)
            if verdict.claim.disputed:
                message = f"{verdict.what} is disputed, but the claim is true: {computed}"
            else:
                message = f"{verdict.what} is {computed}, not {claimed}"
            yield graph.source.error("false-claim", message, ("claims", i, verdict.claim.subjects[0]))


def tolerance(number: float, *, about: bool) -> float:
    """Return the tolerance of a claimed number: see Claim."""
    if isinstance(number, int):
        return 0.0
    digits = Decimal(repr(number)).normalize().as_tuple()
    assert isinstance(digits.exponent, int)
    # at least two digits: 60e6 is 6.0e7, not 6e7
    exponent = digits.exponent - max(0, 2 - len(digits.digits))
    return float(Decimal((0, (1,), exponent))) * (2 if about else 1)


def format_number(value: Any) -> str:
    """Return a number or a shape as text, e.g. `60,965,224` or `96 x 55 x 55`."""
    if isinstance(value, list):
        return format_shape(tuple(value))
    return f"{int(value):,}" if value == int(value) else f"{value:,.4g}"


def _computed(nodes: tuple[Node, ...], subject: str) -> Any:
    """Return the computed value of `subject` for `nodes`."""
    if subject == "input_shape":
        return list(nodes[0].input_shapes[0])
    if subject == "output_shape":
        return list(nodes[-1].output_shape)
    if subject == "weight_shape":
        return list(nodes[0].trainable.get("weight", ()))
    if subject == "weight_layers":
        return sum(node.kernel is not None for node in nodes)
    if subject in ("macs", "flops"):
        return sum(node.macs for node in nodes) * (2 if subject == "flops" else 1)
    count = {"params": analysis.params, "neurons": analysis.neurons, "activation_bytes": analysis.activation_bytes}
    return sum(map(count[subject], nodes))


def _other(graph: Graph, name: str, i: int) -> Graph:
    try:
        return load_neighbour(graph.source.path, name)
    except OSError as error:
        message = f"cannot read {name}: {error.strerror}"
        raise SpecError([graph.source.error("unknown-spec", message, ("claims", i, "times"))]) from None
