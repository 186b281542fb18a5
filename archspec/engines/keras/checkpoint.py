"""A training run and its checkpoints."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from .distributed import Devices
from .errors import DataError
from .files import save_arrays
from .log import Log

array = keras.ops.convert_to_numpy


class Run:
    """A training run: the state that a checkpoint holds, and its folder of files."""

    def __init__(
        self, model: keras.Model, devices: Devices, recipe: Any, options: Any
    ) -> None:
        self.model, self.devices = model, devices
        self.recipe, self.options = recipe, options
        model.optimizer.build(model.trainable_variables)
        self.scheduler = recipe.make_scheduler()
        if self.scheduler:
            self.scheduler.set_model(model)
            self.scheduler.on_train_begin()
        self.epoch = self.step = 0
        self.sums = [0.0, 0.0, 0]  # of this epoch: loss, correct, images
        self.history: list[dict[str, float]] = []
        self.interrupted = False
        self.last = options.output / "last.npz"
        if options.resume:
            self.load()
        options.output.mkdir(parents=True, exist_ok=True)
        self.log = (
            Log(options.output, self.history, recipe.NAME)
            if devices.rank == 0
            else None
        )

    def finish_on_interrupt(self) -> None:
        """Finish the batch on SIGINT, instead of raising KeyboardInterrupt."""

        def interrupt(*arguments: Any) -> None:
            self.interrupted = True

        signal.signal(signal.SIGINT, interrupt)

    def start_epoch(self) -> None:
        """Set the learning rate of the epoch."""
        if self.scheduler:
            self.scheduler.on_epoch_begin(self.epoch)

    def add(self, logs: dict[str, float], count: int) -> None:
        """Add a batch of `count` images to the epoch."""
        batch = (logs["loss"] * count, logs["accuracy"] * count, count)
        self.sums = [a + float(b) for a, b in zip(self.sums, batch, strict=True)]
        self.step += 1

    def progress_bar(self, images: int) -> Any:
        """Return a progress bar of the epoch, hidden if there is no terminal."""
        hidden = self.devices.rank > 0 or not sys.stderr.isatty()
        title = f"epoch {self.epoch + 1}/{self.options.epochs}"
        bar = tqdm(total=images, desc=title, unit="image", disable=hidden)
        bar.update(self.sums[2])
        return bar

    def means(self) -> tuple[float, float]:
        """Return the mean loss and the accuracy of this epoch so far."""
        return self.sums[0] / self.sums[2], self.sums[1] / self.sums[2]

    def end_epoch(self, speed: float, loss: float, accuracy: float) -> bool:
        """Log an epoch and write a checkpoint; return whether to stop.

        `speed` is in images a second; `loss` and `accuracy` are those of validation.
        """
        record = {
            "epoch": self.epoch + 1,
            "loss": self.means()[0],
            "accuracy": self.means()[1],
            "validation_loss": loss,
            "validation_accuracy": accuracy,
            "learning_rate": float(array(self.model.optimizer.learning_rate)),
            "images_per_second": speed,
        }
        is_best = accuracy > max(
            (record["validation_accuracy"] for record in self.history), default=-1.0
        )
        self.history.append(record)
        if self.log:
            self.log.add(record)
        if self.scheduler:
            logs = {"val_loss": loss, "val_accuracy": accuracy}
            self.scheduler.on_epoch_end(self.epoch, logs)
        self.epoch, self.step, self.sums = self.epoch + 1, 0, [0.0, 0.0, 0]
        self.save(best=is_best)
        return self.interrupted and self.epoch < self.options.epochs

    def variables(self) -> list[keras.Variable]:
        """Return the weights, the states of random draws, and the optimizer's."""
        metrics = {id(variable) for variable in self.model.metrics_variables}
        own = [v for v in self.model.variables if id(v) not in metrics]
        return [*own, *self.model.optimizer.variables]

    def save(self, best: bool = False) -> None:
        """Write a checkpoint to last.npz and, if it is the best, weights to best.npz.

        All processes read their variables, as JAX requires; only the first one writes.
        """
        values = {
            "epoch": self.epoch,
            "step": self.step,
            "sums": self.sums,
            "history": self.history,
            "scheduler": {
                name: float(getattr(self.scheduler, name))
                for name in ("best", "wait")  # of ReduceLROnPlateau
                if hasattr(self.scheduler, name)
            },
        }
        weights = [array(weight) for weight in self.model.weights] if best else []
        arrays = [array(variable) for variable in self.variables()]
        if self.devices.rank == 0:
            if best:  # model.set_weights(np.load("best.npz").values())
                save_arrays(self.last.with_name("best.npz"), *weights)
            save_arrays(self.last, *arrays, run=json.dumps(values))

    def load(self) -> None:
        """Resume from the checkpoint."""
        with np.load(self.last) as found:
            for i, variable in enumerate(self.variables()):
                variable.assign(found[f"arr_{i}"])
            values = json.loads(str(found["run"]))
        self.epoch, self.step = values["epoch"], values["step"]
        self.sums, self.history = values["sums"], values["history"]
        for name, value in values["scheduler"].items():
            setattr(self.scheduler, name, value)


def load_weights(model: keras.Model, recipe: Any, path: Path) -> None:
    """Load a safetensors file with PyTorch's names and layouts.

    Raises DataError if it does not fit.
    """
    from safetensors import SafetensorError

    try:
        recipe.load_torch_weights(model, str(path))
    except (KeyError, ValueError, SafetensorError) as error:
        message = f"{path}: weights do not match the model: {error}"
        raise DataError(message) from None
