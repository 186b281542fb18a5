"""The state of a training run, its checkpoints, and files of weights."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import keras
import numpy as np

from .arguments import settings
from .arrays import save_arrays
from .distributed import Devices
from .errors import DataError
from .files import DAMAGED, atomic, first_line
from .run import Course

array = keras.ops.convert_to_numpy


class Run(Course):
    """A training run: the state that a checkpoint holds, and its folder of files.

    It begins or resumes at once, unless the options ask for evaluation alone.
    """

    def __init__(
        self, model: keras.Model, devices: Devices, recipe: Any, options: Any, data: Any
    ) -> None:
        counts = [len(data.train[0]), len(data.validation[0]), data.num_classes]
        super().__init__(options, recipe, settings(options, recipe, counts))
        self.model, self.devices = model, devices
        self.rank, self.world_size = devices.rank, devices.world_size
        self.device, self.last = devices.name, options.output / "last.npz"
        model.optimizer.build(model.trainable_variables)
        self.scheduler = recipe.make_scheduler(options.lr)
        if self.scheduler:
            self.scheduler.set_model(model)
            self.scheduler.on_train_begin()
        self.sums: dict[str, float] = {}  # of this epoch: of the loss and each metric
        self._pending: list[tuple[dict[str, Any], int]] = []  # steps not read yet
        if not (options.evaluate or options.predict):
            self._start()

    def _start(self) -> None:
        """Reserve the output folder, resume from its checkpoint, and open the log."""
        if self.find_checkpoint():
            self.load()
        if len(set(self.devices.gather(1000.0 * self.epoch + self.step))) > 1:
            message = "the processes find different checkpoints: share one --output"
            raise DataError(message)
        self.skip_if_finished()
        versions = {"keras": keras.__version__, "backend": keras.backend.backend()}
        self.open_log(self.model.count_params(), versions)

    # --- batches ---

    def batches(self, batches: Iterable[Any], images: int) -> Iterator[Any]:
        """Yield the batches of the rest of an epoch of `images` images."""
        size, limit = self.options.batch_size, self.options.limit_batches
        count = -(-images // size)
        if limit and limit < count:
            count, images = limit, limit * size
        self._images = images
        return self.steps(batches, count, images)

    def add(self, logs: dict[str, Any]) -> None:
        """Add a step: the mean loss and metrics of its batch.

        The values stay on the device until `read`, which waits for it.
        """
        size = self.options.batch_size
        self._pending.append((logs, min(size, self._images - self.step * size)))

    def read(self) -> None:
        """Read the losses and metrics of the steps since the last call."""
        first = self.step - len(self._pending) + 1
        for i, (logs, size) in enumerate(self._pending):
            values = {name: float(array(value)) for name, value in logs.items()}
            self.check_finite(values["loss"], first + i)
            for name, value in values.items():
                self.sums[name] = self.sums.get(name, 0.0) + value * size
            self.images += size
        self.means = {name: total / self.images for name, total in self.sums.items()}
        self._pending = []
        self.stop = any(self.devices.gather(float(self.signal > 0)))

    def validation_batches(
        self, dataset: Any, images: int
    ) -> Iterator[tuple[Any, int]]:
        """Yield the batches of validation images, each with its number of images."""
        size = self.options.batch_size
        for i, batch in enumerate(islice(dataset, self.options.limit_batches)):
            yield batch, min(size, images - i * size)

    def start_epoch(self) -> None:
        """Set the learning rate of the epoch."""
        if self.scheduler:
            self.scheduler.on_epoch_begin(self.epoch)

    def end_epoch(self, validation: dict[str, float]) -> None:
        """Log an epoch, call the scheduler, and write a checkpoint."""
        epoch, rate = self.epoch, float(array(self.model.optimizer.learning_rate))
        is_best = self.record_epoch(validation, rate)
        if self.scheduler:
            logs = {f"val_{name}": value for name, value in validation.items()}
            self.scheduler.on_epoch_end(epoch, logs)
        self.sums = {}
        self.save(best=is_best)
        self.stop = any(self.devices.gather(float(self.signal > 0)))

    # --- checkpoints ---

    def variables(self) -> list[keras.Variable]:
        """Return the weights, the states of random draws, and the optimizer's."""
        metrics = {id(variable) for variable in self.model.metrics_variables}
        own = [v for v in self.model.variables if id(v) not in metrics]
        return [*own, *self.model.optimizer.variables]

    def save(self, best: bool = False) -> None:
        """Write last.npz and, if the weights are the best so far, best.safetensors.

        All processes read their variables, as JAX requires; only the first one writes.
        """
        values = {
            "settings": self.settings,
            "weights": [weight.path for weight in self.model.weights],
            "epoch": self.epoch,
            "step": self.step,
            "images": self.images,
            "sums": self.sums,
            "history": self.history,
            "scheduler": {
                name: float(getattr(self.scheduler, name))
                for name in ("best", "wait")  # of ReduceLROnPlateau
                if hasattr(self.scheduler, name)
            },
        }
        weights = self.recipe.torch_weights(self.model) if best else {}
        arrays = [array(variable) for variable in self.variables()]
        if self.rank == 0:
            if best:
                save_weights(weights, self.last.with_name("best.safetensors"))
            save_arrays(self.last, *arrays, run=json.dumps(values))

    def load(self) -> None:
        """Resume from the checkpoint; raise DataError if it is not of this run."""
        variables = self.variables()
        try:
            with np.load(self.last, allow_pickle=False) as found:
                values = json.loads(str(found["run"]))
                arrays = [found[f"arr_{i}"] for i in range(len(variables))]
        except DAMAGED:
            message = f"{self.last} is not a checkpoint of this program"
            raise DataError(message) from None
        self.check_settings(values.get("settings"))
        try:
            if values["weights"] != [weight.path for weight in self.model.weights]:
                raise ValueError("the layers have other names, or another order")
            for variable, value in zip(variables, arrays, strict=True):
                variable.assign(value)
            self.epoch, self.step = values["epoch"], values["step"]
            self.images, self.sums = values["images"], values["sums"]
            self.history = values["history"]
            for name, value in values["scheduler"].items():
                setattr(self.scheduler, name, value)
        except (KeyError, TypeError, ValueError) as error:
            message = f"{self.last} does not fit the model: {first_line(error)}"
            raise DataError(message) from None


def save_weights(weights: dict[str, Any], path: Path) -> None:
    """Write arrays to a safetensors file, atomically."""
    from safetensors.numpy import save

    with atomic(path) as temporary:
        arrays = {name: np.ascontiguousarray(w) for name, w in weights.items()}
        temporary.write_bytes(save(arrays))


def load_weights(
    model: keras.Model, recipe: Any, path: Path, new_head: bool = False
) -> None:
    """Load a safetensors file with PyTorch's names and layouts.

    With `new_head` the last layer keeps its weights. Raises DataError if the others do
    not fit.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if path.suffix != ".safetensors":
        raise DataError(f"{path}: weights are read from safetensors files")
    own = recipe.torch_weights(model)
    head = list(own)[-1].rpartition(".")[0] + "."
    try:
        weights = load_file(path)
        if new_head:
            weights |= {name: w for name, w in own.items() if name.startswith(head)}
        if missing := sorted(own.keys() - weights.keys()):
            raise ValueError(f"the file has no {', '.join(missing[:3])}")
        for name, value in own.items():
            if value.shape != weights[name].shape:
                shapes = (
                    f"{weights[name].shape} in the file, {value.shape} in the model"
                )
                raise ValueError(f"size mismatch for {name}: {shapes}")
        with tempfile.TemporaryDirectory() as folder:
            save_weights(weights, Path(folder) / "weights.safetensors")
            recipe.load_torch_weights(model, f"{folder}/weights.safetensors")
    except (KeyError, ValueError, SafetensorError) as error:
        message = f"{path}: weights do not match the model: {error}"
        raise DataError(message) from None
