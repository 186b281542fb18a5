"""The course of a training run: its epochs, log lines, signals and files."""

from __future__ import annotations

import json
import math
import os
import platform
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .arguments import difference
from .errors import DataError, exit_with
from .files import atomic, check_archive, class_names, lock_folder
from .log import Log


class Course:
    """The course of a training run; the framework's `Run` has its state.

    `means` are the means of this epoch so far: of the loss and of each metric.
    """

    def __init__(self, options: Any, recipe: Any, settings: dict[str, Any]) -> None:
        self.options, self.recipe, self.settings = options, recipe, settings
        self.rank, self.world_size, self.device = 0, 1, "cpu"
        self.last: Path = options.output / "last"
        self.epoch = self.step = 0  # finished epochs, and steps of this one
        self.images = 0  # of this epoch
        self.means: dict[str, float] = {}
        self.history: list[dict[str, float]] = []
        self.signal = 0  # the signal that asked the run to stop
        self.stop = False  # whether all processes have agreed to
        self.log: Log | None = None
        self.lock: int | None = None
        self.speed = 0.0  # images a second of this epoch

    # --- for the framework ---

    def read(self) -> None:
        """Read the losses and metrics of the steps since the last call."""
        raise NotImplementedError

    def peak_memory(self) -> float:
        """Return the peak memory of the device, or else of this process, in bytes."""
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    # --- files ---

    def find_checkpoint(self) -> bool:
        """Reserve the output folder; return whether to resume from its checkpoint."""
        if self.rank == 0:
            self.lock = lock_folder(self.options.output)
        exists, resume = self.last.exists(), self.options.resume
        if resume == "auto":  # torchrun has restarted all processes
            resume = exists
        if resume and not exists:
            raise DataError(f"{self.last} does not exist: there is nothing to resume")
        if exists and not resume:
            hint = "resume with --resume, or choose another --output"
            raise DataError(f"{self.last} exists: {hint}")
        if resume:
            check_archive(self.last)
        return bool(resume)

    def check_settings(self, written: Any) -> None:
        """Raise DataError unless a checkpoint was written with this run's settings."""
        if not isinstance(written, dict):
            raise DataError(f"{self.last} is not a checkpoint of this program")
        if found := difference(written, self.settings):
            hint = "resume with the same options, or choose another --output"
            raise DataError(f"{self.last} was written {found}: {hint}")

    def skip_if_finished(self) -> None:
        """Exit if the checkpoint is of the last epoch."""
        if self.epoch >= self.options.epochs:
            done = f"{self.epoch} of {self.options.epochs} epochs are done"
            exit_with(f"{done}: --epochs trains more" * (self.rank == 0), 0)

    def open_log(self, parameters: int, versions: dict[str, str]) -> None:
        """Write config.json, open the log and print what is trained, on rank 0."""
        if self.rank:
            return
        images, validation, classes = self.settings["data"]
        print(
            f"{self.recipe.NAME}: {parameters:,} parameters, {images:,} training and "
            f"{validation:,} validation images of {classes} classes, on {self.device}"
            + f" ({self.world_size} processes)"
            * (self.world_size > 1),
            flush=True,
        )
        options = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in vars(self.options).items()
        }
        config = {
            "network": self.recipe.NAME,
            "command": sys.argv,
            "options": options,
            "settings": self.settings,
            "device": self.device,
            "processes": self.world_size,
            "python": platform.python_version(),
            "host": platform.node(),
            **versions,
        }
        with atomic(self.options.output / "config.json") as temporary:
            temporary.write_text(json.dumps(config, indent=2) + "\n")
        self.log = Log(self.options.output, self.history, self.recipe.NAME)

    # --- signals ---

    def stop_on_signals(self) -> None:
        """Finish the batch on SIGINT and SIGTERM, and write a checkpoint.

        In a single process the second signal ends it at once; torchrun repeats its own.
        """

        def stop(number: int, frame: Any) -> None:
            if self.signal and self.world_size == 1:
                raise KeyboardInterrupt
            self.signal = number

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)

    # --- an epoch ---

    def steps(self, batches: Iterable[Any], count: int, images: int) -> Iterator[Any]:
        """Yield the batches of the rest of an epoch of `count` steps, until a signal.

        Reads the losses and reports them every `--log-every` steps; `images` are all
        of the epoch.
        """
        start = mark = time.perf_counter()
        begun = marked = self.images
        waited = 0.0
        iterator = iter(batches)
        hidden = self.rank > 0 or not sys.stderr.isatty()
        title = f"epoch {self.epoch + 1}/{self.options.epochs}"
        bar = tqdm(total=images, desc=title, unit="image", disable=hidden)
        bar.update(begun)
        with bar:
            while self.step < count and not self.stop:
                before = time.perf_counter()
                batch = next(iterator)
                waited += time.perf_counter() - before
                yield batch
                self.step += 1
                due = self.step % self.options.log_every == 0
                ends = self.step == count or (self.signal and self.world_size == 1)
                if not due and not ends:
                    continue
                self.read()
                now = time.perf_counter()
                speed = (self.images - marked) / (now - mark)
                left = images * (self.options.epochs - self.epoch) - self.images
                bar.set_postfix({k: f"{v:.4f}" for k, v in self.means.items()})
                bar.update(self.images - marked)
                if due and hidden and self.rank == 0:
                    self._report(count, speed, waited / (now - mark), left / speed)
                mark, marked, waited = now, self.images, 0.0
        self.speed = (self.images - begun) / (time.perf_counter() - start)

    def _report(self, count: int, speed: float, waited: float, seconds: float) -> None:
        """Print a log line."""
        hours, minutes = divmod(round(seconds / 60), 60)
        print(
            f"epoch {self.epoch + 1}/{self.options.epochs} step {self.step}/{count}",
            *(f"{name} {value:.4f}" for name, value in self.means.items()),
            f"{speed:,.0f} images/s, waiting {waited:.0%}, ETA {hours}:{minutes:02}",
            f"memory {self.peak_memory() / 2**30:.1f} GB",
            sep="  ",
            flush=True,
        )

    def check_finite(self, loss: float, step: int) -> None:
        """Raise DataError if the loss of a step, counted from 1, is not finite."""
        if not math.isfinite(loss):
            where = f"epoch {self.epoch + 1}, batch {step}"
            kept = f"; {self.last} is unchanged" if self.last.exists() else ""
            raise DataError(f"{where}: the loss is {loss}: training diverged{kept}")

    def record_epoch(self, validation: dict[str, float], rate: float) -> bool:
        """Log an epoch; return whether its validation accuracy is the best so far."""
        if not all(map(math.isfinite, validation.values())):
            found = ", ".join(f"{k} {v}" for k, v in validation.items())
            message = f"epoch {self.epoch + 1}: validation is not finite: {found}"
            raise DataError(message)
        metrics = {f"validation_{name}": value for name, value in validation.items()}
        record = {"epoch": self.epoch + 1, **self.means, **metrics}
        record |= {"learning_rate": rate, "images_per_second": self.speed}
        best = max((one["validation_accuracy"] for one in self.history), default=-1.0)
        self.history.append(record)
        if self.log:
            self.log.add(record)
        self.epoch, self.step, self.images, self.means = self.epoch + 1, 0, 0, {}
        return record["validation_accuracy"] > best

    # --- the end ---

    def print_metrics(self, means: dict[str, float]) -> None:
        """Print the results of an evaluation."""
        if self.rank == 0:
            print(*(f"{name} {value:.4f}" for name, value in means.items()))

    def print_classes(self, probabilities: Any) -> None:
        """Print the five likeliest classes of the next images of --predict."""
        *_, classes = self.settings["data"]
        names = class_names(self.options.data, classes)
        for row in probabilities.tolist():
            print(self.options.predict[self.step])
            self.step += 1
            for i in sorted(range(len(row)), key=row.__getitem__, reverse=True)[:5]:
                name = names[i] if i < len(names) else str(i)
                print(f"  {row[i]:.4f}  {name}")

    def close(self) -> None:
        """Print the results of the run, or exit where a signal stopped it."""
        if self.log:
            self.log.close()
        if self.lock is not None:
            os.close(self.lock)
        if self.epoch < self.options.epochs:
            message = f"interrupted; resume with --resume from {self.last}"
            status = 128 + (self.signal or signal.SIGTERM)
            exit_with(message if self.rank == 0 else "", status)
        if self.rank == 0:
            print(closing_lines(self.history, self.device, self.options.output))


def closing_lines(history: list[dict[str, float]], device: str, output: Path) -> str:
    """Return the last epoch's results, the speed of all, and the best epoch."""
    end = history[-1]
    best = max(history, key=lambda record: record["validation_accuracy"])
    seconds = sum(1 / record["images_per_second"] for record in history)
    return (
        f"loss {end['loss']:.3f}, train acc {end['accuracy']:.3f}, "
        f"test acc {end['validation_accuracy']:.3f}\n"
        f"{len(history) / seconds:,.1f} examples/sec on {device}\n"
        f"best: test acc {best['validation_accuracy']:.3f} in epoch "
        f"{best['epoch']:.0f}: {output / 'best.safetensors'}"
    )
