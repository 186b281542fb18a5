"""What a verification found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from archspec.graph import Graph, Node
from archspec.verify.workers import WorkerError

# What is compared, in this order: a fault shows first in the first that can see it.
CHECKS = ("structure", "forward", "gradients", "dropout", "training", "init")

# The largest difference in float64 that is rounding and no more, relative to the largest magnitude of the tensor.
# Between PyTorch and Keras on AlexNet 2e-15, 4e-15 and 5e-15 of the update were measured.
BOUNDS = {"forward": 1e-10, "gradients": 1e-9, "training": 1e-8, "dropout": 1e-9}

# In float32 the bound of a tensor is the sum of the distances of the two targets' float32 from their own float64; these
# are the most that such a distance may be. Outputs are continuous in their rounding. A gradient is not: a value that
# rounds to the other side of a ReLU's zero, or ties for a maximum, moves it by a whole sample's share: 0.03 of a tensor
# was measured on AlexNet, and after 20 steps 0.2 of an optimizer's state, which is made of gradients.
CAPS = {"forward": 1e-5, "gradients": 0.1, "training": 0.1}
STATE_CAP = 1.0

SIGMAS = 6.0  # how many standard errors a statistic may be off: once in five hundred million
DERIVATIVE = 1e-4  # how far a central difference may be from the gradient, relative to the gradient along the direction


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far one thing that a target gives is from the reference's, or from the spec's."""

    check: str  # one of CHECKS
    layer: str  # the layer that it is of; empty if it is the whole network's
    what: str  # output, weight, bias, input, loss, ...
    target: str
    dtype: str
    value: float  # relative difference, or standard errors; nan where there is no number
    bound: float
    fault: str = ""  # what keeps the two from being compared: a layer that is missing, another shape, no numbers
    blind: bool = False  # both are zeros throughout: equal, but nothing could have been seen
    looks: str = ""  # what the difference looks like

    @property
    def agrees(self) -> bool:
        return not self.fault and self.value <= self.bound

    @property
    def name(self) -> str:
        """What is compared, as `conv1.weight` or `loss`."""
        return ".".join(filter(None, (self.layer, self.what)))

    @property
    def column(self) -> tuple[str, str]:
        """Where it stands in a table: its check, and its dtype where there are two."""
        return self.check, self.dtype if self.check in CAPS else ""

    @property
    def finding(self) -> str:
        """What is wrong with it."""
        if self.fault:
            return self.fault
        if self.check == "init" or self.what == "rate of drops":
            return f"is {self.value:.1f} standard errors from the spec's rule"
        found = f"differs by {self.value:.1e} of its largest magnitude, and may by {self.bound:.1e}"
        return f"{found} ({self.looks})" if self.looks else found


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """By how much the output moves if one thing of a layer is altered."""

    layer: str
    change: str  # `removed`, or `k 2.0 -> 3.0`
    moved: float  # of the output's largest magnitude; nan where the altered network would not take the weights
    seen_by: str  # the check that would see it; empty if none would


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a verification found. Of each check the first of `targets` that can do it is the others' reference."""

    graph: Graph
    targets: tuple[str, ...]
    checks: tuple[str, ...]
    dtypes: tuple[str, ...]
    seed: int
    batch: int
    steps: int
    device: str
    comparisons: tuple[Comparison, ...]
    versions: dict[str, dict[str, str]]
    files: dict[str, tuple[Path, ...]]
    hashes: dict[str, str]  # sha256 of each file, by its path
    stale: tuple[Path, ...] = ()  # files that are not what the spec gives
    failures: tuple[WorkerError, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)  # checks that there was nothing for, and why
    sensitivity: tuple[Sensitivity, ...] = ()
    seconds: float = 0.0
    outputs: dict[str, Any] = field(default_factory=dict)  # by target, the network's output in evaluation
    peak_bytes: dict[str, int] = field(default_factory=dict)  # by target, the most its process held

    @property
    def agrees(self) -> bool:
        return not self.failures and bool(self.comparisons) and all(c.agrees for c in self.comparisons)

    @property
    def first(self) -> Comparison | None:
        """The first thing that parts: of the first check, the first layer."""
        return next((c for c in self.comparisons if not c.agrees), None)

    @property
    def unseen(self) -> tuple[Sensitivity, ...]:
        """The alterations that nothing here would have noticed."""
        return tuple(s for s in self.sensitivity if not s.seen_by)

    def of(self, node: Node | None) -> tuple[Comparison, ...]:
        """The comparisons of a layer; of none, those of the whole network."""
        return tuple(c for c in self.comparisons if c.layer == (node.name if node else ""))

    def columns(self) -> Iterator[tuple[str, str]]:
        """Yield what was compared: a check, and a dtype where there are two."""
        yield from dict.fromkeys(c.column for c in self.comparisons)
