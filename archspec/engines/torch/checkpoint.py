"""A training run and its checkpoints."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .distributed import Processes
from .errors import DataError
from .log import Log


class Run:
    """A training run: the state that a checkpoint holds, and its folder of files."""

    def __init__(
        self, network: nn.Module, processes: Processes, recipe: Any, options: Any
    ) -> None:
        self.network, self.processes = network, processes
        self.recipe, self.options = recipe, options
        self.wrapped: Any = processes.wrap(network)
        if options.compile:
            self.wrapped = torch.compile(self.wrapped)
        self.fused = not processes.sharded  # no fused kernel takes sharded parameters
        self.optimizer = recipe.make_optimizer(network, self.fused)
        self.scheduler = recipe.make_scheduler(self.optimizer)
        self.scaler: torch.amp.GradScaler | None = None
        if options.precision == "fp16":
            self.scaler = torch.amp.GradScaler(processes.device.type)
        self.epoch = self.step = 0
        self.sums = [0.0, 0.0, 0.0]  # of this epoch: loss, correct, images
        self.history: list[dict[str, float]] = []
        self.interrupted = False
        self.last = options.output / "last.pt"
        if options.resume:
            self.load(torch.load(self.last, map_location="cpu", weights_only=True))
        options.output.mkdir(parents=True, exist_ok=True)
        self.log = (
            Log(options.output, self.history, recipe.NAME)
            if processes.rank == 0
            else None
        )

    def finish_on_interrupt(self) -> None:
        """Finish the batch on SIGINT, instead of raising KeyboardInterrupt."""

        def interrupt(*signal: Any) -> None:
            self.interrupted = True

        signal.signal(signal.SIGINT, interrupt)

    def add(self, loss: Tensor, correct: Tensor, count: int) -> bool:
        """Add a batch of `count` images; return whether any process is interrupted."""
        hits = float(correct) * (count > 0)
        batch = [float(loss) * count, hits, count, self.interrupted]
        *sums, interrupted = self.processes.sum(batch)
        self.sums = [a + b for a, b in zip(self.sums, sums, strict=True)]
        self.step += 1
        return interrupted > 0

    def progress_bar(self, images: int) -> Any:
        """Return a progress bar of the epoch, hidden if there is no terminal."""
        hidden = self.processes.rank > 0 or not sys.stderr.isatty()
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
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "images_per_second": speed,
        }
        is_best = accuracy > max(
            (record["validation_accuracy"] for record in self.history), default=-1.0
        )
        self.history.append(record)
        if self.log:
            self.log.add(record)
        if self.recipe.MONITOR == "validation_loss":
            self.scheduler.step(loss)
        elif self.recipe.MONITOR == "validation_error":
            self.scheduler.step(1 - accuracy)
        elif self.scheduler is not None:
            self.scheduler.step()
        self.epoch, self.step, self.sums = self.epoch + 1, 0, [0.0, 0.0, 0.0]
        self.save(best=is_best)
        stop = self.processes.sum([self.interrupted])[0] > 0
        self.interrupted = stop and self.epoch < self.options.epochs
        return self.interrupted

    def state(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on."""
        weights, states = self.network.state_dict(), self.optimizer.state_dict()
        if self.processes.sharded:
            from torch.distributed.checkpoint import state_dict as sharded

            options = sharded.StateDictOptions(full_state_dict=True, cpu_offload=True)
            weights, states = sharded.get_state_dict(
                self.network, self.optimizer, options=options
            )
        return {
            "model": weights,
            "optimizer": states,
            "scaler": self.scaler.state_dict() if self.scaler else {},
            "scheduler": self.scheduler.state_dict() if self.scheduler else {},
            "epoch": self.epoch,
            "step": self.step,
            "sums": self.sums,
            "history": self.history,
            "random": self.processes.gather(torch.get_rng_state()),
            "random_cuda": self.processes.gather(torch.cuda.get_rng_state_all()),
        }

    def save(self, best: bool = False) -> None:
        """Write a checkpoint to last.pt and, if `best`, the weights to best.pt."""
        state = self.state()
        if self.processes.rank == 0:
            if best:
                save(state["model"], self.last.with_name("best.pt"))
            save(state, self.last)

    def load(self, state: dict[str, Any]) -> None:
        """Resume from a checkpoint's state."""
        if self.processes.sharded:
            from torch.distributed.checkpoint import state_dict as sharded

            sharded.set_state_dict(
                self.network,
                self.optimizer,
                model_state_dict=state["model"],
                optim_state_dict=self._by_name(state["optimizer"]),
                options=sharded.StateDictOptions(full_state_dict=True),
            )
        else:
            self.network.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            group["fused"] = self.fused  # of this run, not of the checkpoint's
        if self.scheduler:
            self.scheduler.load_state_dict(state["scheduler"])
        if self.scaler:
            self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.sums, self.history = state["sums"], state["history"]
        if len(state["random"]) == self.processes.world_size:
            torch.set_rng_state(state["random"][self.processes.rank].cpu())
            cuda = state["random_cuda"][self.processes.rank]
            if len(cuda) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all([one.cpu() for one in cuda])

    def _by_name(self, states: dict[str, Any]) -> dict[str, Any]:
        """Return an optimizer's state dict with names for the numbers of parameters.

        Names are what FSDP reads and writes; an unsharded run writes numbers.
        """
        names = {parameter: name for name, parameter in self.network.named_parameters()}
        groups = self.optimizer.param_groups
        order = [names[parameter] for group in groups for parameter in group["params"]]
        keys: dict[int | str, str] = {name: name for name in order}
        keys.update(enumerate(order))
        return {
            "state": {keys[key]: state for key, state in states["state"].items()},
            "param_groups": [
                {**group, "params": [keys[key] for key in group["params"]]}
                for group in states["param_groups"]
            ],
        }


def save(content: Any, path: Path) -> None:
    """Write a file with torch.save, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except RuntimeError as error:  # PyTorch's own, which hides the cause
        raise error.__context__ or error from None
    finally:
        temporary.unlink(missing_ok=True)


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a safetensors file with the names of the network's parameters.

    Raises DataError if it does not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        network.load_state_dict(load_file(path))
    except (RuntimeError, SafetensorError) as error:
        message = f"{path}: weights do not match the model: {error}"
        raise DataError(message) from None
