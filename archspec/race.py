"""One training in several frameworks: the same weights, batches, order and draws, and when the results part."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from math import prod, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspec import weights as canonical
from archspec.emit import TARGETS, TRAINERS, emit, emit_training, flattened_maps
from archspec.graph import Graph
from archspec.names import class_name
from archspec.training import ReduceOnPlateau
from archspec.verify.arrays import Layout, distance
from archspec.verify.workers import Workers, kind

if TYPE_CHECKING:
    from collections.abc import Mapping

CHUNK = 2**26  # bytes of images that are read at a time
MOST = 200  # batches, at a time
LEVELS = (1e-6, 1e-3, 0.1)  # of a loss, at which two runs are told to have parted
START = 20  # steps in which nothing but rounding is between two float64 runs; later it has grown
BOUND = 1e-8  # relative, in these steps: as that of verify's training


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to in one target."""

    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float  # of steps alone


@dataclass(frozen=True)
class Runs:
    """The trainings in one dtype, by target."""

    epochs: dict[str, list[Epoch]]
    losses: dict[str, list[float]]  # of every step
    weights: list[float] = field(default_factory=list)  # how far apart after every epoch, relative to the largest

    def apart(self) -> list[float]:
        """Return how far apart the losses of every step are, relative to the first target's."""
        first, *others = self.losses.values()
        return [
            max(abs(x - other[i]) for other in others) / (abs(x) or 1.0) if x == x else float("inf")
            for i, x in enumerate(first)
        ]

    def parted(self, level: float) -> int | None:
        """Return the first step, counted from 1, whose losses are farther apart than `level`; None if there is none."""
        return next((i + 1 for i, d in enumerate(self.apart()) if not d <= level), None)


@dataclass(frozen=True)
class Race:
    """What a race came to."""

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
        """The standard error of the difference of two accuracies, each of its own sample of the images."""
        p = sum(self.accuracies.values()) / len(self.accuracies)
        return sqrt(2 * max(p * (1 - p), 1 / self.counts[1]) / self.counts[1])

    @property
    def agrees(self) -> bool:
        """Whether accuracies are within three errors, and float64 runs begin as one."""
        found = self.accuracies.values()
        begun = self.runs["float64"].apart()[:START] if "float64" in self.runs else []
        return max(found) - min(found) <= 3 * self.error and all(d <= BOUND for d in begun)

    def facts(self) -> dict[str, Any]:
        """Return all of it as data."""
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
                    "parted": {f"{level:g}": runs.parted(level) for level in LEVELS},
                    "weights_apart": runs.weights,
                    "losses": runs.losses,
                }
                for dtype, runs in self.runs.items()
            },
        }


def race(
    graph: Graph,
    workers: Workers,
    reader: Workers,
    *,
    data: Path | None,
    epochs: int,
    float64_epochs: int,
    batch_size: int,
    seed: int,
) -> Race:
    """Train the network in every target, and return what came of it.

    The first target's program reads the images of `data` and draws, in the process of `reader`; all train on those.
    They begin with weights drawn from the spec's rules by `seed`, and dropout drops the same values. `float64_epochs`
    of it are run in float64 too. Raises WorkerError where a target fails, ValueError where the data do not fit.
    """
    assert graph.spec.training
    started = time.monotonic()
    workers.start()
    with tempfile.TemporaryDirectory(prefix="archspec-race-") as folder, ThreadPoolExecutor(1) as ahead:
        one = _Race(graph, workers, reader, Path(folder), batch_size, seed)
        counts = one.begin(data)
        runs = {}
        for dtype, count in (("float32", epochs), ("float64", float64_epochs)):
            if count:
                runs[dtype] = one.run(dtype, count, ahead)
        return Race(
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


class _Race:
    """A race that runs: files in `room`."""

    def __init__(self, graph: Graph, workers: Workers, reader: Workers, room: Path, size: int, seed: int) -> None:
        assert graph.spec.training
        self._graph, self._workers, self._reader, self._room = graph, workers, reader, room
        self._size, self._seed, self._recipe = size, seed, graph.spec.training
        self._turned = flattened_maps(graph)
        self._dropouts = [node for node in graph.nodes if node.op.op == "dropout"]
        self._programs = {target: self._write(target) for target in workers.targets}
        self._weights = room / "weights.safetensors"
        canonical.save(canonical.sample(graph, seed), self._weights)

    def _write(self, target: str) -> dict[str, str]:
        folder = self._room / target
        folder.mkdir()
        model, train = folder / TARGETS[kind(target)], folder / TRAINERS[kind(target)]
        model.write_text(emit(self._graph, kind(target)), encoding="utf-8")
        train.write_text(emit_training(self._graph, kind(target), self._recipe), encoding="utf-8")
        return {"model": str(model), "train": str(train)}

    def begin(self, data: Path | None) -> tuple[int, int]:
        """Find the data; return how many images there are."""
        target = self._workers.targets[0]
        found = self._read(
            "read_begin", **self._programs[target], data=str(data or ""), seed=self._seed, room=str(self._room)
        )
        classes = self._graph.output.output_shape[0]
        if found["classes"] > classes:
            raise ValueError(f"{found['classes']} classes, and {self._graph.name} tells {classes}")
        self._counts = (found["counts"][0], found["counts"][1])
        held = self._room / "held"
        self._read(
            "read", epoch=-1, first=0, count=-(-self._counts[1] // self._size), size=self._size, output=str(held)
        )
        return self._counts

    def _read(self, job: str, **arguments: Any) -> dict[str, Any]:
        return self._reader.ask(self._reader.targets[0], job, **arguments)

    def _all(self, task: Any) -> None:
        """Do a task for every target, side by side; raise the first fault."""
        if failures := self._workers.all(task):
            raise failures[0]

    def run(self, dtype: str, epochs: int, ahead: ThreadPoolExecutor) -> Runs:
        """Train in a dtype; return the record."""
        runs = Runs({t: [] for t in self._workers.targets}, {t: [] for t in self._workers.targets})
        name = class_name(self._graph.name)

        def begin(target: str) -> None:
            programs = self._programs[target]
            self._workers.ask(target, "race_begin", **programs, name=name, weights=str(self._weights), dtype=dtype)

        self._all(begin)
        chunks = list(self._chunks(epochs))
        coming = ahead.submit(self._chunk, *chunks[0])
        right, seconds = dict.fromkeys(runs.losses, 0), dict.fromkeys(runs.losses, 0.0)  # of this epoch

        def steps(target: str, files: Mapping[str, str]) -> None:
            masks = {"masks": files[f"masks-{kind(target)}"]} if self._dropouts else {}
            given = {key: files[key] for key in ("images", "labels")}
            answer = self._workers.ask(target, "race_steps", **given, size=self._size, **masks)
            runs.losses[target] += answer["losses"]
            right[target] += answer["right"]
            seconds[target] += answer["seconds"]

        def end(target: str) -> None:
            self._end(target, runs, right[target], seconds[target])
            right[target], seconds[target] = 0, 0.0

        for i, (epoch, _, _) in enumerate(chunks):
            files = coming.result()
            if i + 1 < len(chunks):
                coming = ahead.submit(self._chunk, *chunks[i + 1])

            self._all(partial(steps, files=files))
            if i + 1 == len(chunks) or chunks[i + 1][0] != epoch:
                self._all(end)
                runs.weights.append(self._apart())
        return runs

    def _chunks(self, epochs: int) -> Iterator[tuple[int, int, int]]:
        """Yield what is read at a time: epoch, first batch, how many."""
        image = 4 * prod(self._graph.input.output_shape)
        at_once = max(1, min(MOST, CHUNK // (image * self._size)))
        batches = -(-self._counts[0] // self._size)
        for epoch in range(epochs):
            for first in range(0, batches, at_once):
                yield epoch, first, min(at_once, batches - first)

    def _chunk(self, epoch: int, first: int, count: int) -> dict[str, str]:
        """Have batches read, and draw what dropout drops in them; return the files."""
        import numpy as np

        stem = self._room / f"chunk{first % 2}-{epoch % 2}-{first}"
        for old in self._room.glob(f"chunk?-{1 - epoch % 2}-*"):
            if first:  # the last epoch's are done with once a batch of this one is
                old.unlink()
        self._read("read", epoch=epoch, first=first, count=count, size=self._size, output=str(stem))
        files = {key: f"{stem}.{key}.npy" for key in ("images", "labels")}
        images = min(self._counts[0] - first * self._size, count * self._size)
        random = np.random.default_rng((self._seed, epoch, first))
        drawn = {node: random.random((images, *node.output_shape), np.float32) for node in self._dropouts}
        for target in dict.fromkeys(map(kind, self._workers.targets)) if drawn else ():
            layout = Layout(target, self._turned)
            path = f"{stem}.{target}.npz"
            np.savez(path, **{n.name: np.ascontiguousarray(layout.given(v, n)) for n, v in drawn.items()})  # type: ignore[arg-type]
            files[f"masks-{target}"] = path
        return files

    def _end(self, target: str, runs: Runs, right: int, seconds: float) -> None:
        """End an epoch of a target."""
        held = self._room / "held"
        schedule = self._recipe.schedule
        found = self._workers.ask(
            target,
            "race_epoch",
            images=f"{held}.images.npy",
            labels=f"{held}.labels.npy",
            size=self._size,
            monitor=schedule.monitor if isinstance(schedule, ReduceOnPlateau) else "",
            output=str(self._room / f"{target}.npz"),
        )
        count = self._counts[0]
        batches = -(-count // self._size)
        losses = runs.losses[target][-batches:]
        sizes = [self._size] * (batches - 1) + [count - (batches - 1) * self._size]
        loss = sum(x * n for x, n in zip(losses, sizes, strict=True)) / count
        runs.epochs[target].append(Epoch(loss, right / count, **found, seconds=seconds))

    def _apart(self) -> float:
        """Return how far apart the targets' weights are: the largest of all, each relative to the tensor's largest."""
        import numpy as np

        owners = {f"{node.name}.{word}": node for node in self._graph.nodes for word in node.weights}
        first, *others = self._workers.targets
        found = 0.0
        with np.load(self._room / f"{first}.npz") as reference:
            for target in others:
                layouts = Layout(first, self._turned), Layout(target, self._turned)
                with np.load(self._room / f"{target}.npz") as arrays:
                    for name, node in owners.items():
                        a, b = layouts[0].weight(reference[name], node), layouts[1].weight(arrays[name], node)
                        found = max(found, distance(a, b))
        return found


# --- what is shown ---------------------------------------------------------------------------------------------------


def table(found: Race) -> list[str]:
    """Return a race as lines: a row an epoch, when the runs part, and the verdict."""
    targets = found.targets
    head = ["dtype", "epoch", *(f"{t} {word}" for t in targets for word in ("loss", "accuracy", "validation", "s"))]
    rows = [[*head, "losses apart", "weights apart"]]
    for dtype, runs in found.runs.items():
        apart = runs.apart()
        steps = len(apart) // max(1, len(runs.weights))
        for i, weights in enumerate(runs.weights):
            row = [dtype, str(i + 1)]
            for target in targets:
                e = runs.epochs[target][i]
                row += [f"{e.loss:.4f}", f"{e.accuracy:.4f}", f"{e.validation_accuracy:.4f}", f"{e.seconds:.1f}"]
            rows.append([*row, f"{max(apart[i * steps : (i + 1) * steps]):.1e}", f"{weights:.1e}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*lines, "", *map(_parted, found.runs.items()), *_verdict(found)]


def _parted(item: tuple[str, Runs]) -> str:
    dtype, runs = item
    words = [
        f"by {level:g} at step {step:,}" if step else f"by {level:g} nowhere"
        for level in LEVELS
        for step in [runs.parted(level)]
    ]
    return f"{dtype}: of {len(runs.apart()):,} steps the losses part {', '.join(words)}"


def _verdict(found: Race) -> Sequence[str]:
    accuracies = ", ".join(f"{target} {value:.4f}" for target, value in found.accuracies.items())
    spread = max(found.accuracies.values()) - min(found.accuracies.values())
    lines = [
        f"accuracy on {found.counts[1]:,} images: {accuracies}; {spread:.4f} apart, "
        f"{spread / found.error:.1f} times the sampling error of {found.error:.4f}"
    ]
    if "float64" in found.runs:
        begun = max(found.runs["float64"].apart()[:START])
        lines.append(f"float64, first {START} steps: losses within {begun:.1e} (bound {BOUND:.0e})")
    else:
        lines.append("without a float64 run, what is rounding and what is not cannot be told apart")
    return [*lines, f"{found.name}: {' and '.join(found.targets)} {'agree' if found.agrees else 'part'}"]


def plot(found: Race) -> bytes:
    """Return a PNG: losses and accuracies of all targets over one another, and how far apart the losses are."""
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
        apart.plot(range(1, len(runs.apart()) + 1), [max(d, 1e-17) for d in runs.apart()], label=dtype, linewidth=0.8)
    losses.set(xlabel="epoch", ylabel="loss")
    accuracies.set(xlabel="epoch", ylabel="validation accuracy")
    apart.set(xlabel="step", ylabel="losses apart, relative", yscale="log")
    for axis in (losses, accuracies, apart):
        axis.legend()
    figure.suptitle(f"{found.name}: {' and '.join(found.targets)}, {found.data}, seed {found.seed}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    pyplot.close(figure)
    return buffer.getvalue()
