"""The state of a training run, its checkpoints, and files of weights."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .arguments import hyperparameters, settings
from .distributed import Processes
from .errors import DataError
from .files import DAMAGED, atomic, first_line
from .run import Course

Batch = tuple[Tensor, Tensor, int]  # images, labels, and how many of them count


class Run(Course):
    """A training run: the state that a checkpoint holds, and its folder of files.

    It begins or resumes at once, unless the options ask for evaluation alone.
    """

    def __init__(
        self,
        network: nn.Module,
        processes: Processes,
        recipe: Any,
        options: Any,
        data: Any,
    ) -> None:
        counts = [len(data.train), len(data.validation), data.num_classes]
        super().__init__(options, recipe, settings(options, recipe, counts))
        self.network, self.processes = network, processes
        self.rank, self.world_size = processes.rank, processes.world_size
        self.device, self.last = str(processes.device), options.output / "last.pt"
        self.wrapped: Any = processes.wrap(network)  # as the network is called
        if options.compile:
            self.wrapped = torch.compile(self.wrapped)
        self.fused = not processes.sharded  # no fused kernel takes sharded parameters
        try:
            self.optimizer = recipe.make_optimizer(
                network, **hyperparameters(options), fused=self.fused
            )
        except ValueError as error:
            raise DataError(f"optimizer: {error}") from None
        self.scheduler = recipe.make_scheduler(self.optimizer)
        self.scaler: torch.amp.GradScaler | None = None
        if options.precision == "fp16":
            self.scaler = torch.amp.GradScaler(processes.device.type)
        self.sums: dict[str, float] = {}  # of this epoch: of the loss and each metric
        self._pending: list[dict[str, Tensor]] = []  # of steps that are not read yet
        self._sizes: list[int] = []  # of their batches
        if not (options.evaluate or options.predict):
            self._start()

    def _start(self) -> None:
        """Reserve the output folder, resume from its checkpoint, and open the log."""
        state = self.processes.from_first(
            lambda: self._read_checkpoint() if self.find_checkpoint() else None
        )
        if state is not None:
            self._load(state)
        self.skip_if_finished()
        count = sum(parameter.numel() for parameter in self.network.parameters())
        self.open_log(count, {"torch": torch.__version__})

    # --- batches ---

    def batches(self, loader: Any) -> Iterator[Batch]:
        """Yield this process's parts of the batches of the rest of an epoch."""
        sampler = loader.batch_sampler
        sampler.epoch, sampler.first = self.epoch, 0
        count = min(len(sampler), self.options.limit_batches or len(sampler))
        sampler.first = self.step
        images = min(sampler.count, count * sampler.size)
        for pixels, labels in self.steps(loader, count, images):
            own, total = sampler.counts(self.step)
            self._sizes.append(total)
            yield pixels, labels, own

    def validation_batches(self, loader: Any) -> Iterator[Batch]:
        """Yield this process's parts of the batches of validation images."""
        for i, batch in enumerate(islice(loader, self.options.limit_batches)):
            yield *batch, loader.batch_sampler.counts(i)[0]

    def loss_weight(self, count: int) -> float:
        """Return what corrects the mean over processes, with `count` images here."""
        return count * self.world_size / self._sizes[-1]

    def add(self, loss: Tensor, metrics: dict[str, Tensor], count: int) -> None:
        """Add a step: the mean loss of `count` images, and sums over them.

        The values stay on the device until `read`, which waits for it.
        """
        self._pending.append({"loss": loss * count, **metrics})

    def read(self) -> None:
        """Read the losses and metrics of the steps since the last call."""
        names = list(self._pending[0])
        rows = [torch.stack([row[n].double() for n in names]) for row in self._pending]
        totals = self.processes.sum(torch.stack(rows)).tolist()
        first = self.step - len(rows) + 1
        for i, (row, size) in enumerate(zip(totals, self._sizes, strict=True)):
            self.check_finite(row[0] / size, first + i)
            for name, value in zip(names, row, strict=True):
                self.sums[name] = self.sums.get(name, 0.0) + value
            self.images += size
        self.means = {name: total / self.images for name, total in self.sums.items()}
        self._pending, self._sizes = [], []
        self.stop = self.processes.any(self.signal > 0)

    def end_epoch(self, validation: dict[str, float]) -> None:
        """Log an epoch, step the scheduler, and write a checkpoint."""
        is_best = self.record_epoch(validation, self.optimizer.param_groups[0]["lr"])
        if self.recipe.MONITOR == "validation_loss":
            self.scheduler.step(validation["loss"])
        elif self.recipe.MONITOR == "validation_error":
            self.scheduler.step(1 - validation["accuracy"])
        elif self.scheduler is not None:
            self.scheduler.step()
        self.sums = {}
        self.save(best=is_best)
        self.stop = self.processes.any(self.signal > 0)

    def peak_memory(self) -> float:
        """Return the peak memory of the device, in bytes."""
        if self.processes.device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        return super().peak_memory()

    # --- checkpoints ---

    def state(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on."""
        weights, states = self.network.state_dict(), self.optimizer.state_dict()
        if self.processes.sharded:
            from torch.distributed.checkpoint import state_dict as sharded

            options = sharded.StateDictOptions(full_state_dict=True, cpu_offload=True)
            weights, states = sharded.get_state_dict(
                self.network, self.optimizer, options=options
            )
        device = self.processes.device
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return {
            "settings": self.settings,
            "model": weights,
            "optimizer": states,
            "scaler": self.scaler.state_dict() if self.scaler else {},
            "scheduler": self.scheduler.state_dict() if self.scheduler else {},
            "epoch": self.epoch,
            "step": self.step,
            "images": self.images,
            "sums": self.sums,
            "history": self.history,
            "random": self.processes.gather(torch.get_rng_state()),
            "random_cuda": self.processes.gather(cuda),
        }

    def save(self, best: bool = False) -> None:
        """Write last.pt and, if the weights are the best so far, best.safetensors."""
        state = self.state()
        if self.rank == 0:
            if best:
                save_weights(state["model"], self.last.with_name("best.safetensors"))
            save(state, self.last)

    def _read_checkpoint(self) -> dict[str, Any]:
        """Return the state in last.pt; raise DataError if it is not of this run."""
        state = read(self.last)
        self.check_settings(state.get("settings") if isinstance(state, dict) else None)
        found: dict[str, Any] = state
        return found

    def _load(self, state: dict[str, Any]) -> None:
        """Resume from a checkpoint's state."""
        try:
            self._load_weights(state)
            if self.scheduler:
                self.scheduler.load_state_dict(state["scheduler"])
            if self.scaler:
                self.scaler.load_state_dict(state["scaler"])
            self.epoch, self.step = state["epoch"], state["step"]
            self.images, self.sums = state["images"], state["sums"]
            self.history = state["history"]
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            message = f"{self.last} does not fit the network: {first_line(error)}"
            raise DataError(message) from None
        if len(state["random"]) == self.world_size:
            torch.set_rng_state(state["random"][self.rank].cpu())
            cuda = state["random_cuda"][self.rank]
            if cuda is not None and self.processes.device.type == "cuda":
                torch.cuda.set_rng_state(cuda.cpu(), self.processes.device)

    def _load_weights(self, state: dict[str, Any]) -> None:
        """Load the weights and the optimizer's state."""
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
    with atomic(path) as temporary:
        try:
            with temporary.open("wb") as file:
                torch.save(content, file)
        except RuntimeError as error:  # PyTorch's own, which hides the cause
            raise error.__context__ or error from None


def read(path: Path) -> Any:
    """Return what torch.save wrote; raise DataError for anything else."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGED:
        raise DataError(f"{path} is not a file of PyTorch, or damaged") from None


def save_weights(state: dict[str, Tensor], path: Path) -> None:
    """Write a state dict to a safetensors file, atomically.

    It has no `num_batches_tracked`, which is no weight and which Keras does not have.
    """
    from safetensors.torch import save as to_bytes

    weights = {
        name: weight.detach().contiguous().cpu()
        for name, weight in state.items()
        if not name.endswith("num_batches_tracked")
    }
    with atomic(path) as temporary:
        temporary.write_bytes(to_bytes(weights))


def load_weights(network: nn.Module, path: Path, new_head: bool = False) -> None:
    """Load a state dict from a safetensors file, or one that torch.save wrote.

    With `new_head` the last layer keeps its weights. Raises DataError if the others do
    not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    own = network.state_dict()
    head = list(own)[-1].rpartition(".")[0] + "."
    try:
        state = load_file(path) if path.suffix == ".safetensors" else read(path)
    except SafetensorError as error:
        raise DataError(f"{path} is not a safetensors file: {error}") from None
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]  # of a checkpoint
    if not isinstance(state, dict) or not all(map(torch.is_tensor, state.values())):
        raise DataError(f"{path} has no state dict")
    if new_head:
        state = {name: w for name, w in state.items() if not name.startswith(head)}
        state |= {name: w for name, w in own.items() if name.startswith(head)}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        faults = "; ".join(line.strip() for line in str(error).splitlines()[1:4])
        message = f"{path}: weights do not match the model: {faults}"
        raise DataError(message) from None
