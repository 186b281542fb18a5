"""Lockstep training: several targets on the same weights, batches and draws, and the step at which they diverge."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from math import prod, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspec.files import temporary_folder, write_tensors
from archspec.graph import Graph
from archspec.graph.layouts import flattened_maps
from archspec.language.names import class_name
from archspec.language.recipe import ReduceOnPlateau
from archspec.targets import files, target_of
from archspec.verification import canonical_weights
from archspec.verification.inputs import draws, save_masks
from archspec.verification.processes import Workers
from archspec.verification.tensors import distance

if TYPE_CHECKING:
    from collections.abc import Mapping

CHUNK = 2**26  # bytes of images that are read at a time
MAX_BATCHES = 200  # at a time
LEVELS = (1e-6, 1e-3, 0.1)  # relative differences of a loss whose first step is reported
START = 20  # steps in which two float64 runs differ by rounding only; later it has grown
BOUND = 1e-8  # relative, in these steps: as of the check `training`


@dataclass(frozen=True)
class Epoch:
    """The metrics of an epoch in one target."""

    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float  # of steps alone


@dataclass(frozen=True)
class Runs:
    """The training runs in one dtype, by target."""

    epochs: dict[str, list[Epoch]]
    losses: dict[str, list[float]]  # of every step
    weights: list[float] = field(
        default_factory=list
    )  # differences after every epoch, relative to the largest magnitude

    def differences(self) -> list[float]:
        """Return the difference of the losses of every step, relative to the first target's."""
        first, *others = self.losses.values()
        return [
            max(abs(x - other[i]) for other in others) / (abs(x) or 1.0) if x == x else float("inf")
            for i, x in enumerate(first)
        ]

    def diverged(self, level: float) -> int | None:
        """Return the first step, counted from 1, whose losses differ by more than `level`; None if there is none."""
        return next((i + 1 for i, d in enumerate(self.differences()) if not d <= level), None)


@dataclass(frozen=True)
class Lockstep:
    """The result of lockstep training."""

    name: str
    data: str
    targets: tuple[str, ...]
    batch_size: int
    seed: int
    counts: tuple[int, int]  # images of training and of validation
    runs: dict[str, Runs]  # by dtype
    versions: dict[str, dict[str, str]]
    seconds: float

    @property
    def accuracies(self) -> dict[str, float]:
        """The validation accuracies at the end of the float32 run."""
        return {t: epochs[-1].validation_accuracy for t, epochs in self.runs["float32"].epochs.items()}

    @property
    def error(self) -> float:
        """The standard error of the difference of two accuracies on independent samples of the images."""
        p = sum(self.accuracies.values()) / len(self.accuracies)
        return sqrt(2 * max(p * (1 - p), 1 / self.counts[1]) / self.counts[1])

    @property
    def agrees(self) -> bool:
        """Whether accuracies are within three standard errors, and float64 runs agree in their first steps."""
        found = self.accuracies.values()
        begun = self.runs["float64"].differences()[:START] if "float64" in self.runs else []
        return max(found) - min(found) <= 3 * self.error and all(d <= BOUND for d in begun)

    def facts(self) -> dict[str, Any]:
        """Return the result as data."""
        return {
            "name": self.name,
            "data": self.data,
            "targets": self.versions,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "images": {"training": self.counts[0], "validation": self.counts[1]},
            "agrees": self.agrees,
            "accuracies": self.accuracies,
            "sampling_error": self.error,
            "seconds": self.seconds,
            "runs": {
                dtype: {
                    "epochs": {t: [vars(epoch) for epoch in epochs] for t, epochs in runs.epochs.items()},
                    "diverged": {f"{level:g}": runs.diverged(level) for level in LEVELS},
                    "weight_differences": runs.weights,
                    "losses": runs.losses,
                }
                for dtype, runs in self.runs.items()
            },
        }


def lockstep(
    graph: Graph,
    workers: Workers,
    reader: Workers,
    *,
    data: Path | None,
    epochs: int,
    float64_epochs: int,
    batch_size: int,
    seed: int,
) -> Lockstep:
    """Train the network in every target on the same batches, and return the result.

    The first target's program reads and augments the images of `data`, in the process of `reader`. All targets train on
    these images, from the same weights, drawn from the spec's initializers with `seed`, and with the same dropout
    masks. The first `float64_epochs` epochs are repeated in float64. Raises WorkerError if a target fails, and
    ValueError if the data do not fit the network.
    """
    assert graph.spec.training
    started = time.monotonic()
    workers.start()
    with temporary_folder() as folder, ThreadPoolExecutor(1) as ahead:
        session = _Session(graph, workers, reader, folder, batch_size, seed)
        counts = session.begin(data)
        runs = {}
        for dtype, count in (("float32", epochs), ("float64", float64_epochs)):
            if count:
                runs[dtype] = session.run(dtype, count, ahead)
        return Lockstep(
            name=graph.name,
            data=str(data) if data else "scikit-learn's digits",
            targets=workers.targets,
            batch_size=batch_size,
            seed=seed,
            counts=counts,
            runs=runs,
            versions=dict(workers.versions),
            seconds=time.monotonic() - started,
        )


class _Session:
    """A running lockstep training, with its files in `workdir`."""

    def __init__(self, graph: Graph, workers: Workers, reader: Workers, workdir: Path, size: int, seed: int) -> None:
        assert graph.spec.training
        self._graph, self._workers, self._reader, self._workdir = graph, workers, reader, workdir
        self._size, self._seed, self._recipe = size, seed, graph.spec.training
        self._flattened = flattened_maps(graph)
        self._dropouts = [node for node in graph.nodes if node.op.random]  # type: ignore[union-attr]
        self._folders = {target: self._write(target) for target in workers.targets}
        self._weights = workdir / "weights.safetensors"
        write_tensors(self._weights, canonical_weights.from_spec(graph, seed))

    def _write(self, target: str) -> str:
        kind = target_of(target)
        for name, text in files(self._graph, kind, headers=False).items():
            path = self._workdir / target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return str(self._workdir / target / kind.folder)

    def begin(self, data: Path | None) -> tuple[int, int]:
        """Open the data set; return the numbers of training and validation images."""
        target = self._workers.targets[0]
        found = self._read(
            "open_data",
            folder=self._folders[target],
            data=str(data or ""),
            seed=self._seed,
            size=self._size,
            statistics=str(self._workdir / "statistics"),
        )
        classes = self._graph.output.output_shape[0]
        if found["classes"] > classes:
            raise ValueError(f"{found['classes']} classes, but {self._graph.name} has {classes} outputs")
        self._counts = (found["counts"][0], found["counts"][1])
        validation = self._workdir / "validation"
        self._read(
            "read_batches",
            epoch=-1,
            first=0,
            count=-(-self._counts[1] // self._size),
            output=str(validation),
        )
        return self._counts

    def _read(self, job: str, **arguments: Any) -> dict[str, Any]:
        return self._reader.ask(self._reader.targets[0], job, **arguments)

    def _all(self, task: Any) -> None:
        """Run `task` for every target in parallel; raise the first error."""
        if failures := self._workers.all(task):
            raise failures[0]

    def run(self, dtype: str, epochs: int, ahead: ThreadPoolExecutor) -> Runs:
        """Train in one dtype."""
        runs = Runs({t: [] for t in self._workers.targets}, {t: [] for t in self._workers.targets})
        name = class_name(self._graph.name)

        def begin(target: str) -> None:
            weights = str(self._weights)
            self._workers.ask(
                target,
                "lockstep_begin",
                folder=self._folders[target],
                name=name,
                weights=weights,
                dtype=dtype,
                parameters=canonical_weights.shapes(self._graph),
            )

        self._all(begin)
        chunks = list(self._chunks(epochs))
        coming = ahead.submit(self._chunk, *chunks[0])
        correct, seconds = dict.fromkeys(runs.losses, 0), dict.fromkeys(runs.losses, 0.0)  # of this epoch

        def steps(target: str, chunk: Mapping[str, str]) -> None:
            masks = {"masks": chunk["last" if target_of(target).channels_last else "first"]} if self._dropouts else {}
            images = {key: chunk[key] for key in ("images", "labels")}
            answer = self._workers.ask(target, "lockstep_steps", **images, size=self._size, **masks)
            runs.losses[target] += answer["losses"]
            correct[target] += answer["correct"]
            seconds[target] += answer["seconds"]

        def end(target: str) -> None:
            self._end(target, runs, correct[target], seconds[target])
            correct[target], seconds[target] = 0, 0.0

        for i, (epoch, _, _) in enumerate(chunks):
            chunk = coming.result()
            if i + 1 < len(chunks):
                coming = ahead.submit(self._chunk, *chunks[i + 1])

            self._all(partial(steps, chunk=chunk))
            if i + 1 == len(chunks) or chunks[i + 1][0] != epoch:
                self._all(end)
                runs.weights.append(self._weight_difference())
        return runs

    def _chunks(self, epochs: int) -> Iterator[tuple[int, int, int]]:
        """Yield the chunks of batches that are read together: epoch, first batch, count."""
        image = 4 * prod(self._graph.input.output_shape)
        at_once = max(1, min(MAX_BATCHES, CHUNK // (image * self._size)))
        batches = -(-self._counts[0] // self._size)
        for epoch in range(epochs):
            for first in range(0, batches, at_once):
                yield epoch, first, min(at_once, batches - first)

    def _chunk(self, epoch: int, first: int, count: int) -> dict[str, str]:
        """Have a chunk of batches read and draw its dropout masks; return the files."""
        import numpy as np

        stem = self._workdir / f"chunk{first % 2}-{epoch % 2}-{first}"
        for old in self._workdir.glob(f"chunk?-{1 - epoch % 2}-*"):
            if first:  # the last epoch's are not needed any more
                old.unlink()
        self._read("read_batches", epoch=epoch, first=first, count=count, output=str(stem))
        chunk = {key: f"{stem}.{key}.npy" for key in ("images", "labels")}
        images = min(self._counts[0] - first * self._size, count * self._size)
        random = np.random.default_rng((self._seed, epoch, first))
        drawn = {node: random.random((images, *draws(node)), np.float32) for node in self._dropouts}
        if drawn:
            save_masks(drawn, self._flattened, stem)
        return {**chunk, "first": f"{stem}-first.npz", "last": f"{stem}-last.npz"}

    def _end(self, target: str, runs: Runs, correct: int, seconds: float) -> None:
        """End an epoch of a target."""
        validation = self._workdir / "validation"
        schedule = self._recipe.schedule
        found = self._workers.ask(
            target,
            "lockstep_epoch",
            images=f"{validation}.images.npy",
            labels=f"{validation}.labels.npy",
            size=self._size,
            monitor=schedule.monitor if isinstance(schedule, ReduceOnPlateau) else "",
            output=str(self._workdir / f"{target}.npz"),
        )
        count = self._counts[0]
        batches = -(-count // self._size)
        losses = runs.losses[target][-batches:]
        sizes = [self._size] * (batches - 1) + [count - (batches - 1) * self._size]
        loss = sum(x * n for x, n in zip(losses, sizes, strict=True)) / count
        runs.epochs[target].append(Epoch(loss, correct / count, **found, seconds=seconds))

    def _weight_difference(self) -> float:
        """Return the largest difference of the targets' weights, relative to each tensor's largest magnitude."""
        import numpy as np

        first, *others = self._workers.targets
        found = 0.0
        with np.load(self._workdir / f"{first}.npz") as reference:
            for target in others:
                with np.load(self._workdir / f"{target}.npz") as arrays:
                    for name in reference.files:
                        found = max(found, distance(reference[name], arrays[name]))
        return found


# --- rendering ---------------------------------------------------------------------------------------------------


def table(found: Lockstep) -> list[str]:
    """Return the lines of a result: one row per epoch, the steps at which the runs diverge, and the verdict."""
    targets = found.targets
    head = ["dtype", "epoch", *(f"{t} {word}" for t in targets for word in ("loss", "accuracy", "validation", "s"))]
    rows = [[*head, "loss difference", "weight difference"]]
    for dtype, runs in found.runs.items():
        apart = runs.differences()
        steps = len(apart) // max(1, len(runs.weights))
        for i, weights in enumerate(runs.weights):
            row = [dtype, str(i + 1)]
            for target in targets:
                e = runs.epochs[target][i]
                row += [f"{e.loss:.4f}", f"{e.accuracy:.4f}", f"{e.validation_accuracy:.4f}", f"{e.seconds:.1f}"]
            rows.append([*row, f"{max(apart[i * steps : (i + 1) * steps]):.1e}", f"{weights:.1e}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*lines, "", *map(_divergence, found.runs.items()), *_verdict(found)]


def _divergence(item: tuple[str, Runs]) -> str:
    dtype, runs = item
    words = [
        f"by {level:g} at step {step:,}" if step else f"by {level:g} never"
        for level in LEVELS
        for step in [runs.diverged(level)]
    ]
    return f"{dtype}: in {len(runs.differences()):,} steps the losses diverge {', '.join(words)}"


def _verdict(found: Lockstep) -> Sequence[str]:
    accuracies = ", ".join(f"{target} {value:.4f}" for target, value in found.accuracies.items())
    spread = max(found.accuracies.values()) - min(found.accuracies.values())
    lines = [
        f"accuracy on {found.counts[1]:,} images: {accuracies}; a difference of {spread:.4f}, "
        f"{spread / found.error:.1f} standard errors of {found.error:.4f}"
    ]
    if "float64" in found.runs:
        begun = max(found.runs["float64"].differences()[:START])
        lines.append(f"float64, first {START} steps: losses within {begun:.1e} (tolerance {BOUND:.0e})")
    else:
        lines.append("without a float64 run, rounding cannot be told from other differences")
    return [*lines, f"{found.name}: {' and '.join(found.targets)} {'agree' if found.agrees else 'diverge'}"]


def plot(found: Lockstep) -> bytes:
    """Return a PNG of the losses and accuracies of all targets, and of the differences of the losses."""
    import io

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (losses, accuracies, apart) = pyplot.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    for dtype, runs in found.runs.items():
        dashes = "-" if dtype == "float32" else "--"
        for target, epochs in runs.epochs.items():
            numbers = range(1, len(epochs) + 1)
            label = f"{target} {dtype}"
            losses.plot(numbers, [epoch.loss for epoch in epochs], dashes, marker=".", label=label)
            accuracies.plot(numbers, [e.validation_accuracy for e in epochs], dashes, marker=".", label=label)
        apart.plot(
            range(1, len(runs.differences()) + 1),
            [max(d, 1e-17) for d in runs.differences()],
            label=dtype,
            linewidth=0.8,
        )
    losses.set(xlabel="epoch", ylabel="loss")
    accuracies.set(xlabel="epoch", ylabel="validation accuracy")
    apart.set(xlabel="step", ylabel="relative difference of losses", yscale="log")
    for axis in (losses, accuracies, apart):
        axis.legend()
    figure.suptitle(f"{found.name}: {' and '.join(found.targets)}, {found.data}, seed {found.seed}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    pyplot.close(figure)
    return buffer.getvalue()
