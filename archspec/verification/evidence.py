"""The evidence that a verification collects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from archspec.graph import Graph, Node
from archspec.verification.inputs import GROWTH, Horizon
from archspec.verification.processes import WorkerError
from archspec.verification.tensors import Difference


@dataclass(frozen=True, slots=True)
class Comparison:
    """One quantity of a target, compared with the reference target's or with the spec."""

    check: str  # one of archspec.verification.checks.CHECKS
    layer: str  # empty: of the whole network
    what: str  # output, weight, bias, input gradient, loss, ...
    target: str
    dtype: str
    value: float  # relative difference, or standard errors; nan where there is no number
    bound: float
    problem: str = ""  # why there is no number: missing, another shape, not finite
    all_zero: bool = False  # equal, but zero everywhere: nothing was compared
    looks_like: str = ""  # a hint at the cause
    by_spec: bool = False  # compared with the spec, not with another target
    in_standard_errors: bool = False

    @classmethod
    def of(cls, difference: Difference, check: str, layer: str, what: str, target: str, dtype: str) -> Comparison:
        """Return the comparison that a difference of tensors is."""
        return cls(
            check,
            layer,
            what,
            target,
            dtype,
            difference.value,
            difference.bound,
            difference.problem,
            difference.all_zero,
            difference.looks_like,
        )

    @property
    def agrees(self) -> bool:
        """Whether the value is within the bound."""
        return not self.problem and self.value <= self.bound

    @property
    def name(self) -> str:
        """The quantity, e.g. `conv1.weight` or `loss`."""
        return ".".join(filter(None, (self.layer, self.what)))

    @property
    def finding(self) -> str:
        """The disagreement, as a predicate."""
        if self.problem:
            return self.problem
        if self.in_standard_errors:
            return f"is {self.value:.1f} standard errors from the spec's distribution"
        found = f"relative difference {self.value:.1e} (tolerance {self.bound:.1e})"
        return f"{found}, {self.looks_like}" if self.looks_like else found


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """How much the output changes if one attribute of a layer is altered."""

    layer: str
    change: str  # `removed`, or `k 2.0 -> 3.0`
    moved: float  # relative to the output's largest magnitude; nan where the altered network has other shapes
    seen_by: str  # the check that would notice; empty if none would


@dataclass(frozen=True, slots=True)
class Evidence:
    """The result of a verification. In each check, the first of `targets` that takes part is the reference."""

    graph: Graph
    targets: tuple[str, ...]
    checks: tuple[str, ...]
    dtypes: tuple[str, ...]
    seed: int
    batch: int
    steps: int
    horizon: Horizon
    device: str
    comparisons: tuple[Comparison, ...]
    versions: dict[str, dict[str, str]]
    files: dict[str, dict[str, str]]  # by target: the SHA-256 of each file, by its path below the spec's folder
    folders: dict[str, Path] = field(default_factory=dict)  # by target, of existing files; none where generated
    stale: tuple[Path, ...] = ()  # existing files that differ from what the spec generates
    failures: tuple[WorkerError, ...] = ()
    incomplete: frozenset[tuple[str, str]] = frozenset()  # (check, target) that gave no result
    skipped: dict[str, str] = field(default_factory=dict)  # checks that do not apply, and why
    sensitivity: tuple[Sensitivity, ...] = ()
    seconds: float = 0.0
    outputs: dict[str, Any] = field(default_factory=dict)  # by target, the network's output in evaluation mode
    peak_bytes: dict[str, int] = field(default_factory=dict)  # by target, of its process
    weights: str = ""  # SHA-256 of the weights of outputs and gradients, where these were given

    @property
    def agrees(self) -> bool:
        """Whether all comparisons agree and no target failed."""
        return not self.failures and bool(self.comparisons) and all(c.agrees for c in self.comparisons)

    @property
    def held(self) -> str:
        """How many steps of training were compared, where that is not all of them or not to the usual bound."""
        h = self.horizon
        if "training" not in self.checks or not h.growth:
            return ""
        bound = max(1e-8, GROWTH * h.growth)
        single = f", and {h.float32} in float32" if "float32" in self.dtypes and h.float32 != h.float64 else ""
        return (
            f"training: {h.float64} of {self.steps} steps are compared{single}, to {bound:.0e} in float64: "
            f"one rounding grows to {h.growth:.0e} in them"
        )

    @property
    def first(self) -> Comparison | None:
        """The first disagreement: of the first check, the first layer."""
        return next((c for c in self.comparisons if not c.agrees), None)

    @property
    def unseen(self) -> tuple[Sensitivity, ...]:
        """The alterations that no check would notice."""
        return tuple(s for s in self.sensitivity if not s.seen_by)

    def of(self, node: Node | None) -> tuple[Comparison, ...]:
        """Return the comparisons of a layer, or of the whole network."""
        return tuple(c for c in self.comparisons if c.layer == (node.name if node else ""))

    def columns(self) -> Iterator[tuple[str, str]]:
        """Yield the columns of a table: check, and dtype if the check has two."""
        for check in self.checks:
            dtypes = [c.dtype for c in self.comparisons if c.check == check]
            yield from dict.fromkeys((check, dtype if check in TWO_DTYPES else "") for dtype in dtypes)


TWO_DTYPES = ("forward", "gradients", "training")  # checks that run in float64 and in float32
