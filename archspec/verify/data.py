"""What all targets of one verification are given: weights, inputs, labels, draws, in files of a folder."""

from __future__ import annotations

import os
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from archspec import analysis
from archspec import weights as canonical
from archspec.emit import flattened_maps
from archspec.graph import Graph, Node
from archspec.training import MultiStep, ReduceOnPlateau, Sgd, Training
from archspec.verify.arrays import Layout
from archspec.verify.workers import kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DIRECTIONS = 2  # along which the gradients are held against central differences
STEP = 1e-8  # along them: so short that hardly a ReLU or a maximum changes sides, and 5e-15 of rounding is still 1e-6
SATURATING = ("sigmoid", "softmax", "tanh")
ENOUGH = 4000  # values that a dropout's rate is told by
WORK = 2 * 10**9  # multiply-accumulates that this may take
DROP_SEARCH = 10_000  # epochs in which a schedule's first drop is looked for

# What a spec without a recipe is trained by: the rule of Krizhevsky et al. (2012), with a drop of the rate.
RECIPE = Training.model_construct(
    loss="cross_entropy",
    batch_size=128,
    epochs=2,
    optimizer=Sgd.model_construct(optimizer="sgd", lr=0.01, momentum=0.9, weight_decay=5e-4),
    schedule=MultiStep.model_construct(schedule="multi_step", milestones=[1], gamma=0.1, warmup=0),
)


class Data:
    """The files of one verification, below `room`; every target has those that it reads in its own layout."""

    def __init__(
        self,
        graph: Graph,
        room: Path,
        *,
        batch: int,
        seed: int,
        steps: int,
        inputs: NDArray[np.float32] | None = None,
        weights: canonical.Weights | None = None,
    ) -> None:
        import numpy as np

        self.graph, self.room, self.seed, self.steps = graph, room, seed, steps
        self.recipe = graph.spec.training or RECIPE
        self.epochs = plan(self.recipe, steps)
        self._turned = flattened_maps(graph)
        self._random = np.random.default_rng([seed, 1])
        if inputs is None:
            pixels = np.random.default_rng(seed).uniform(0, 255, (batch, *graph.input.output_shape))
            inputs = (pixels - 120).astype(np.float32)
        self.batch = len(inputs)
        self._save("inputs", inputs)
        # A sigmoid of 100 is 1 but for what a float64 rounds away, and that is all that its gradient is made of.
        saturates = any(node.op.op in SATURATING for node in graph.nodes)
        self._save("gentle", inputs / np.float32(_length(inputs)) if saturates else inputs)
        self.weights = canonical.loud(graph, seed) if weights is None else weights
        self.weights_path = room / "weights.safetensors"
        canonical.save(self.weights, self.weights_path)
        self._labels("labels", self.batch)

    def path(self, name: str, target: str) -> str:
        """Return the file of inputs called `name` in a target's layout: channels last in Keras, first in the others."""
        return str(self.room / f"{name}-{'last' if kind(target) == 'keras' else 'first'}.npy")

    def directions(self) -> list[tuple[canonical.Weights, NDArray[np.float32]]]:
        """Write directions, each as long as what it goes along, and return them: of the weights, and of the inputs."""
        import numpy as np

        found = []
        for i in range(DIRECTIONS):
            along = {
                name: (self._random.standard_normal(w.shape, np.float32) * np.float32(_length(w)))
                for name, w in self.weights.items()
            }
            inputs = np.load(self.path("gentle", "torch"))
            there = self._random.standard_normal(inputs.shape, np.float32) * np.float32(_length(inputs))
            canonical.save(along, self.room / f"direction{i}.safetensors")
            self._save(f"direction{i}", there)
            found.append((along, there))
        return found

    def direction_paths(self, target: str) -> list[list[str]]:
        """Return the files of the directions: weights and inputs."""
        return [
            [str(self.room / f"direction{i}.safetensors"), self.path(f"direction{i}", target)]
            for i in range(DIRECTIONS)
        ]

    def masks(self) -> list[Node]:
        """Write what the dropout layers draw, from 0 to 1, if there are any; return those layers."""
        import numpy as np

        nodes = [node for node in self.graph.nodes if node.op.op == "dropout"]
        if nodes:  # and samples enough to tell a rate by the layers' own draws
            fewest = min(prod(node.output_shape) for node in nodes)
            work = max(1, sum(node.macs for node in self.graph.nodes))
            repeats = max(1, min(ENOUGH // (fewest * self.batch), WORK // (work * self.batch), 256))
            inputs = np.load(self.path("inputs", "torch"))
            self._save("many", np.concatenate([inputs] * repeats))
        drawn = {n.name: self._random.random((self.batch, *n.output_shape), np.float32) for n in nodes}
        for target in ("torch", "keras") if nodes else ():
            layout = Layout(target, self._turned)
            np.savez(
                self.room / f"masks-{target}.npz",
                **{n.name: np.ascontiguousarray(layout.given(drawn[n.name], n)) for n in nodes},  # type: ignore[arg-type]
            )
        return nodes

    def masks_path(self, target: str) -> str:
        return str(self.room / f"masks-{kind(target)}.npz")

    def training(self) -> Path:
        """Write a batch of N(0, 0.1) and labels for each step; return the file of the weights to start from.

        Inputs and weights that keep to one scale, so that a step at the recipe's own rate is a step and no leap.
        """
        import numpy as np

        shape = (self.steps, self.batch, *self.graph.input.output_shape)
        self._save("steps", self._random.standard_normal(shape, np.float32) * np.float32(0.1**0.5))
        self._labels("step_labels", self.steps, self.batch)
        path = self.room / "start.safetensors"
        canonical.save(canonical.steady(self.graph, self.seed), path)
        return path

    def label_path(self, name: str) -> str:
        return str(self.room / f"{name}.npy")

    def _save(self, name: str, values: NDArray[np.float32]) -> None:
        import numpy as np

        np.save(self.path(name, "torch"), values)
        np.save(self.path(name, "keras"), np.ascontiguousarray(np.moveaxis(values, -3, -1)))

    def _labels(self, name: str, *size: int) -> None:
        """Write labels: one a sample, or one a place where the output is maps."""
        import numpy as np

        classes, *places = self.graph.output.output_shape
        labels = self._random.integers(0, classes, (*size, *places))
        np.save(self.room / f"{name}.npy", labels)


def plan(recipe: Training, steps: int) -> list[list[float]]:
    """Return the epochs, [steps, validation error] each, of `steps` steps across the schedule's first drop.

    Epochs without steps lead up to the drop. Half of the steps are taken in the epoch before it, the others in the
    epoch after, and with a warm-up a third in its first epoch. The error gets better by too little to count.
    """
    schedule = recipe.schedule
    if isinstance(schedule, ReduceOnPlateau):
        quiet = min(schedule.patience + 1, DROP_SEARCH)
        errors = [0.5 - 0.9 * schedule.threshold * i / (quiet + 1) for i in range(quiet + 2)]
        taken = {quiet: steps // 2, quiet + 1: steps - steps // 2}
        return [[taken.get(i, 0), error] for i, error in enumerate(errors)]
    last = schedule.warmup + DROP_SEARCH
    drop = next((e for e in range(1, last) if schedule.factor(e) < schedule.factor(e - 1)), None)
    if drop is None:
        drop = schedule.warmup + 1  # the rate never drops: on both sides of the end of the warm-up
    early = steps // 3 if schedule.warmup else 0
    taken = {0: early}
    for epoch, count in ((drop - 1, (steps - early) // 2), (drop, steps - early - (steps - early) // 2)):
        taken[epoch] = taken.get(epoch, 0) + count
    return [[taken.get(epoch, 0), 0.5] for epoch in range(drop + 1)]


def rates(recipe: Training, epochs: list[list[float]]) -> list[float]:
    """Return the learning rate that the recipe means for every step of a plan."""
    schedule = recipe.schedule
    if isinstance(schedule, ReduceOnPlateau):
        dropped = schedule.patience + 2
        by_epoch = [recipe.optimizer.lr * (schedule.factor if i >= dropped else 1) for i in range(len(epochs))]
    else:
        by_epoch = [recipe.optimizer.lr * schedule.factor(epoch) for epoch in range(len(epochs))]
    return [rate for rate, (steps, _) in zip(by_epoch, epochs, strict=True) for _ in range(int(steps))]


def _length(values: NDArray[np.float32]) -> float:
    """Return the root mean square."""
    import numpy as np

    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) or 1.0


def check_memory(graph: Graph, batch: int, targets: int) -> None:
    """Raise MemoryError if the weights and all layers' outputs, in float64, are more than this machine has."""
    total = analysis.totals(graph)
    values = prod(graph.input.output_shape) + total.activation_bytes // analysis.DTYPES["float32"]
    needed = 8 * targets * (total.params + batch * values)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**63
    if needed > memory:
        gib = f"{needed / 2**30:,.0f} GiB, and this machine has {memory / 2**30:,.0f}"
        raise MemoryError(f"{graph.name}: {targets} targets at a batch of {batch:,} take at least {gib}")
