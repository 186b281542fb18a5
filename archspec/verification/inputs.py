"""The inputs of a verification, the same for all targets: weights, images, labels and random numbers, as files."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from archspec import analysis
from archspec.files import write_tensors
from archspec.graph import Graph, Node
from archspec.graph.layouts import Layout, flattened_maps
from archspec.language.recipe import CaffeSgd, MultiStep, ReduceOnPlateau, Training
from archspec.targets import target_of
from archspec.verification import canonical_weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DIRECTIONS = 2  # random directions for central differences
STEP = 1e-8  # along them: so short that hardly a ReLU or a maximum changes sides, and 5e-15 of rounding is still 1e-6
ENOUGH = 4000  # values to estimate a dropout's rate from
WORK = 2 * 10**9  # multiply-accumulates that this may cost
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))  # v2, v1
DROP_SEARCH = 10_000  # epochs in which the first change of a schedule is sought

# The recipe of a spec without one: the rule of Krizhevsky et al. (2012), with a drop of the learning rate.
DEFAULT_RECIPE = Training.model_construct(
    loss="cross_entropy",
    batch_size=128,
    epochs=2,
    optimizer=CaffeSgd.model_construct(optimizer="caffe_sgd", lr=0.01, momentum=0.9, weight_decay=5e-4),
    schedule=MultiStep.model_construct(schedule="multi_step", milestones=[1], gamma=0.1, warmup=0),
)


@dataclass(frozen=True)
class Horizon:
    """How many steps of training are compared in float64 and in float32, and how far one rounding grows in them.

    `growth` is the relative difference, after the steps in float64, of two runs of the reference whose weights differ
    by one rounding at the start; 0 where that was not measured, as the network has no norms of the batch.
    """

    float64: int
    float32: int
    growth: float

    def steps(self, dtype: str) -> int:
        """Return the steps in a dtype."""
        return self.float64 if dtype == "float64" else self.float32


LARGEST_BOUND = 1e-4  # of the comparison of training in float64, whatever rounding grows to
GROWTH = 100  # times the growth of one rounding: the targets' roundings are more than one, in every layer


def horizon(apart: Sequence[float], steps: int, cap: float) -> Horizon:
    """Return the steps that can be compared where one rounding of float64 grows to `apart`, after each step.

    In float64, those after which the bound is still LARGEST_BOUND. In float32, whose roundings are 2^29 times as
    large, those after which ten times their growth is below `cap`; one step at least.
    """
    longest = 1
    single = 1
    for i in range(1, min(steps, len(apart)) + 1):
        if max(apart[:i]) * GROWTH <= LARGEST_BOUND:
            longest = i
        if max(apart[:i]) * 2**29 * 10 <= cap:
            single = i
    return Horizon(longest, min(single, longest), max(apart[:longest]))


class Inputs:
    """The files of one verification in `workdir`, each in the channels-first and the channels-last layout."""

    def __init__(
        self,
        graph: Graph,
        workdir: Path,
        *,
        batch: int,
        seed: int,
        steps: int,
        inputs: NDArray[np.float32] | None = None,
        weights: canonical_weights.Weights | None = None,
    ) -> None:
        import numpy as np

        self.graph, self.workdir, self.seed, self.steps = graph, workdir, seed, steps
        self.recipe = graph.spec.training or DEFAULT_RECIPE
        self.horizon = Horizon(steps, steps, 0.0)
        self._flattened = flattened_maps(graph)
        self._random = np.random.default_rng([seed, 1])
        if inputs is None:
            pixels = np.random.default_rng(seed).uniform(0, 255, (batch, *graph.input.output_shape))
            inputs = (pixels - 120).astype(np.float32)
        self.batch = len(inputs)
        self._save("inputs", inputs)
        # A sigmoid of 100 is 1 but for what float64 rounds away, and its gradient is made of only that. Running
        # statistics set the scale by themselves.
        saturates = any(node.op.saturates for node in graph.nodes) and not self.normalized  # type: ignore[union-attr]
        self._save("unit_scale", inputs / np.float32(_rms(inputs)) if saturates else inputs)
        self.weights = canonical_weights.for_forward_check(graph, seed) if weights is None else weights
        self.weights_path = workdir / "weights.safetensors"
        write_tensors(self.weights_path, self.weights)
        self.needs_statistics = weights is None and bool(self.normalized)
        self._labels("labels", self.batch)

    @property
    def normalized(self) -> list[Node]:
        """The layers with running statistics."""
        return [node for node in self.graph.nodes if any(not param.trainable for param in node.params.values())]

    def set_statistics(self, path: Path) -> None:
        """Give the weights running statistics near those in a .npz file: see `canonical_weights.with_statistics`."""
        import numpy as np

        with np.load(path) as found:
            self.weights = canonical_weights.with_statistics(self.graph, self.weights, dict(found), self.seed)
        write_tensors(self.weights_path, self.weights)

    def path(self, name: str, target: str) -> str:
        """Return the file of the images called `name` in a target's layout."""
        return self._path(name, last=target_of(target).channels_last)

    def _path(self, name: str, *, last: bool) -> str:
        return str(self.workdir / f"{name}-{'last' if last else 'first'}.npy")

    def label_path(self, name: str) -> str:
        """Return the file of the labels called `name`."""
        return str(self.workdir / f"{name}.npy")

    @cached_property
    def directions(self) -> list[tuple[canonical_weights.Weights, NDArray[np.float32]]]:
        """Random directions for weights and images, each with the norm of its tensor; also written to files."""
        import numpy as np

        found = []
        buffers = {f"{node.name}.{name}" for node in self.normalized for name in set(node.params) - set(node.trainable)}
        for i in range(DIRECTIONS):
            along = {
                name: np.zeros_like(w)
                if name in buffers
                else self._random.standard_normal(w.shape, np.float32) * np.float32(_rms(w))
                for name, w in self.weights.items()
            }
            images = np.load(self._path("unit_scale", last=False))
            there = self._random.standard_normal(images.shape, np.float32) * np.float32(_rms(images))
            write_tensors(self.workdir / f"direction{i}.safetensors", along)
            self._save(f"direction{i}", there)
            found.append((along, there))
        return found

    def direction_paths(self, target: str) -> list[list[str]]:
        """Return the files of the directions: weights and images."""
        return [
            [str(self.workdir / f"direction{i}.safetensors"), self.path(f"direction{i}", target)]
            for i in range(len(self.directions))
        ]

    @property
    def random_layers(self) -> list[Node]:
        """The layers that draw random numbers in training."""
        return [node for node in self.graph.nodes if node.op.random]  # type: ignore[union-attr]

    def write_masks(self) -> None:
        """Write uniform random numbers for the random layers."""
        import numpy as np

        drawn = {n: self._random.random((self.batch, *draws(n)), np.float32) for n in self.random_layers}
        save_masks(drawn, self._flattened, self.workdir / "masks")

    def write_many(self) -> None:
        """Write enough images to estimate the rates of the random layers."""
        import numpy as np

        nodes = self.random_layers
        fewest = min(prod(draws(node)) for node in nodes)
        work = max(1, sum(node.macs for node in self.graph.nodes))
        repeats = max(1, min(ENOUGH // (fewest * self.batch), WORK // (work * self.batch), 256))
        images = np.load(self._path("inputs", last=False))
        self._save("many", np.concatenate([images] * repeats))

    def masks_path(self, target: str) -> str:
        """Return the file of the random numbers in a target's layout."""
        return str(self.workdir / f"masks-{'last' if target_of(target).channels_last else 'first'}.npz")

    @property
    def start_path(self) -> Path:
        """The file of the weights that training starts from."""
        return self.workdir / "start.safetensors"

    def write_training(self) -> None:
        """Write a batch of N(0, 0.1) with labels for each step, and the weights to start from.

        Images and weights keep one scale, so that a step at the recipe's own rate does not diverge.
        """
        import numpy as np

        shape = (self.steps, self.batch, *self.graph.input.output_shape)
        self._save("steps", self._random.standard_normal(shape, np.float32) * np.float32(0.1**0.5))
        self._labels("step_labels", self.steps, self.batch)
        write_tensors(self.start_path, canonical_weights.for_training_check(self.graph, self.seed))

    def _save(self, name: str, images: NDArray[np.float32]) -> None:
        import numpy as np

        is_map = len(self.graph.input.output_shape) == 3
        np.save(self._path(name, last=False), images)
        np.save(self._path(name, last=True), np.ascontiguousarray(np.moveaxis(images, -3, -1)) if is_map else images)

    def _labels(self, name: str, *size: int) -> None:
        """Write labels: one per sample, or one per position if the output is feature maps."""
        import numpy as np

        classes, *positions = self.graph.output.output_shape
        labels = self._random.integers(0, classes, (*size, *positions))
        np.save(self.workdir / f"{name}.npy", labels)


def draws(node: Node) -> tuple[int, ...]:
    """Return the shape of the random numbers that a layer draws for one sample: its output's, or one number."""
    shape = node.output_shape
    return (1,) * len(shape) if getattr(node.op, "draws_samples", False) else shape


def save_masks(drawn: dict[Node, NDArray[np.float32]], flattened: dict[Node, tuple[int, ...]], stem: Path) -> None:
    """Write random numbers by layer in both layouts: `STEM-first.npz` and `STEM-last.npz`."""
    import numpy as np

    for last in (False, True):
        layout = Layout(last, flattened)
        arrays = {n.name: np.ascontiguousarray(layout.from_canonical(v, n)) for n, v in drawn.items()}
        np.savez(stem.with_name(f"{stem.name}-{'last' if last else 'first'}.npz"), **arrays)  # type: ignore[arg-type]


def plan(recipe: Training, steps: int) -> list[list[float]]:
    """Return the epochs, [steps, validation error] each, of `steps` steps across the schedule's first change.

    Epochs of 0 steps advance the schedule to it. Half of the steps are in the epoch before it and half in the one
    after; with a warm-up, a third in the first epoch. The validation error improves by less than `threshold`.
    """
    schedule = recipe.schedule
    if isinstance(schedule, ReduceOnPlateau):
        quiet = min(schedule.patience + 1, DROP_SEARCH)
        errors = [0.5 - 0.9 * schedule.threshold * i / (quiet + 1) for i in range(quiet + 2)]
        counts = {quiet: steps // 2, quiet + 1: steps - steps // 2}
        return [[counts.get(i, 0), error] for i, error in enumerate(errors)]
    last = schedule.warmup + DROP_SEARCH
    drop = next((e for e in range(1, last) if schedule.factor(e) < schedule.factor(e - 1)), None)
    if drop is None:
        drop = schedule.warmup + 1  # the rate never drops: before and after the end of the warm-up
    early = steps // 3 if schedule.warmup else 0
    counts = {0: early}
    for epoch, count in ((drop - 1, (steps - early) // 2), (drop, steps - early - (steps - early) // 2)):
        counts[epoch] = counts.get(epoch, 0) + count
    return [[counts.get(epoch, 0), 0.5] for epoch in range(drop + 1)]


def rates(recipe: Training, epochs: list[list[float]]) -> list[float]:
    """Return the recipe's learning rate for every step of a plan."""
    schedule = recipe.schedule
    if isinstance(schedule, ReduceOnPlateau):
        dropped = schedule.patience + 2
        by_epoch = [recipe.optimizer.lr * (schedule.factor if i >= dropped else 1) for i in range(len(epochs))]
    else:
        by_epoch = [recipe.optimizer.lr * schedule.factor(epoch) for epoch in range(len(epochs))]
    return [rate for rate, (steps, _) in zip(by_epoch, epochs, strict=True) for _ in range(int(steps))]


def _rms(values: NDArray[np.float32]) -> float:
    """Return the root mean square; 1 if all values are 0."""
    import numpy as np

    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) or 1.0


def check_memory(graph: Graph, batch: int, targets: int) -> None:
    """Raise MemoryError if the weights and all layers' outputs, in float64, exceed the memory that there is."""
    total = analysis.totals(graph)
    elements = prod(graph.input.output_shape) + total.activation_bytes // analysis.DTYPES["float32"]
    needed = 8 * targets * (total.params + batch * elements)
    memory = memory_limit()
    if needed > memory:
        gib = f"{needed / 2**30:,.0f} GiB, and there are {memory / 2**30:,.0f}"
        raise MemoryError(f"{graph.name}: {targets} targets at a batch of {batch:,} need at least {gib}")


def memory_limit() -> int:
    """Return how many bytes a process may use: the machine's memory, or less in a container or by `ulimit -v`."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    if (soft := resource.getrlimit(resource.RLIMIT_AS)[0]) != resource.RLIM_INFINITY:
        limits.append(soft)
    for path in CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such group; `max`
            limits.append(int(path.read_text(encoding="ascii")))
    return min(limits)
