"""Train the network of model.py with the recipe of recipe.py.

    python train.py                        # a trial, on scikit-learn's digits
    python train.py --data path/to/images  # train/ and val/, a folder for each class
    python train.py --data path/to/mnist   # MNIST's files, or CIFAR-10's binary ones
    python train.py --evaluate             # the best weights of the run
    python train.py --predict image.jpg    # its five likeliest classes
    torchrun --nproc-per-node 8 train.py --data path/to/images  # on eight devices

This file is yours to edit: `archspec generate` does not overwrite an edited one.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

import recipe
from engine.arguments import initial_weights
from engine.checkpoint import Batch, Run, load_weights
from engine.data import Files, make_loaders, read_data
from engine.distributed import Processes
from engine.errors import exit_on_error
from engine.layers import channels_last, widen_norms
from engine.options import PRECISIONS, parse_options


def metrics(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return the metrics of a batch, each a sum over its images. Add your own here."""
    top5 = logits.topk(min(5, logits.shape[1]), dim=1).indices
    return {
        "accuracy": (logits.argmax(dim=1) == labels).sum(),
        "top5": (top5 == labels[:, None]).sum(),
    }


def train_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    precision: torch.dtype = torch.float32,
    scaler: torch.amp.GradScaler | None = None,
    loss_weight: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Take one step on a batch; return its loss and logits before the step.

    A 16-bit `precision` runs the forward pass under autocast; the weights stay as they
    are. `loss_weight` corrects DDP's mean over ranks for a batch split unevenly.
    """
    network.train()
    optimizer.zero_grad()
    images = channels_last(images)
    with torch.autocast(images.device.type, precision, enabled=precision.itemsize == 2):
        logits = network(images)
        loss = recipe.criterion(logits, labels)
    if scaler is None:
        (loss * loss_weight).backward()
        optimizer.step()
    else:
        scaler.scale(loss * loss_weight).backward()
        scaler.step(optimizer)
        scaler.update()
    return loss.detach(), logits.detach()


def train_epoch(run: Run, loader: Any, precision: torch.dtype) -> None:
    """Train for an epoch, or the rest of one, or until a signal."""
    device, dtype = run.processes.device, next(run.network.parameters()).dtype
    for images, labels, count in run.batches(loader):
        images = images.to(device, dtype, non_blocking=True)
        labels = labels.to(device, non_blocking=True)
        weight = run.loss_weight(count)
        loss, logits = train_step(
            run.wrapped, run.optimizer, images, labels, precision, run.scaler, weight
        )
        run.add(loss, metrics(logits[:count], labels[:count]), count)


@torch.no_grad()
def predict(network: nn.Module, images: Tensor, precision: torch.dtype) -> Tensor:
    """Return the logits of images (N, C, H, W), or of crops (N, crops, C, H, W).

    Those of crops are the logarithm of their mean probability.
    """
    network.eval()
    with torch.autocast(images.device.type, precision, enabled=precision.itemsize == 2):
        crops = images.unbind(dim=1) if images.ndim == 5 else [images]
        outputs = [network(channels_last(crop)) for crop in crops]
        logits = torch.stack(outputs).to(images.dtype)
    if len(crops) == 1:
        return logits[0]
    return logits.log_softmax(dim=2).logsumexp(dim=0) - math.log(len(crops))


def evaluate(
    network: nn.Module,
    batches: Iterable[Batch],
    processes: Processes,
    precision: torch.dtype = torch.float32,
) -> dict[str, float]:
    """Return the mean loss and the metrics over the batches of all processes."""
    device, dtype = processes.device, next(network.parameters()).dtype
    sums: dict[str, Any] = {}
    for images, labels, count in batches:
        logits = predict(network, images.to(device, dtype), precision)[:count]
        labels = labels.to(device)[:count]
        loss = recipe.criterion(logits, labels) * count if count else 0.0
        batch = {"images": count, "loss": loss, **metrics(logits, labels)}
        sums = {name: sums.get(name, 0) + value for name, value in batch.items()}
    means: dict[str, float] = processes.means(sums)
    return means


def main() -> None:
    """Train, evaluate or predict, as the command line says."""
    options = parse_options(recipe)
    precision = PRECISIONS[options.precision]
    processes = Processes(options.device, options.fsdp)
    with processes, exit_on_error(options.output, processes.rank, processes.world_size):
        data = read_data(options.data)
        if options.predict:
            files = Files(options.predict, torch.zeros(len(options.predict)))
            data = data._replace(validation=files)
        torch.manual_seed(options.seed)
        network: nn.Module = recipe.make_model(data.num_classes).to(processes.device)
        if weights := initial_weights(options):
            load_weights(network, weights, options.head == "new")
        if options.precision == "fp64":
            network = network.double()
        if precision.itemsize == 2:
            widen_norms(network)
        torch.manual_seed(hash((options.seed, processes.rank)))  # of dropout
        run = Run(network, processes, recipe, options, data)
        training, validation = make_loaders(data, recipe, options, processes)
        if options.predict:
            for images, _, _ in run.validation_batches(validation):
                images = images.to(processes.device, next(network.parameters()).dtype)
                run.print_classes(predict(network, images, precision).softmax(dim=1))
            return
        if options.evaluate:
            batches = run.validation_batches(validation)
            run.print_metrics(evaluate(run.wrapped, batches, processes, precision))
            return
        run.stop_on_signals()
        while run.epoch < options.epochs and not run.stop:
            train_epoch(run, training, precision)
            if run.stop:
                run.save()
                break
            batches = run.validation_batches(validation)
            run.end_epoch(evaluate(run.wrapped, batches, processes, precision))
        run.close()


if __name__ == "__main__":
    main()
