"""Train the network of model.py with the recipe of recipe.py.

    python train.py                        # a trial, on scikit-learn's digits
    python train.py --data path/to/images  # train/ and val/, a folder for each class
    python train.py --data path/to/mnist   # MNIST's files, or CIFAR-10's binary ones
    torchrun --nproc-per-node 8 train.py --data path/to/images  # on eight devices

This file is yours to edit: `archspec generate` does not overwrite an edited one.
"""

import sys
import time
from typing import Any

import torch
from torch import Tensor, nn

import recipe
from engine.checkpoint import Run, load_weights
from engine.data import make_loaders, read_data
from engine.distributed import Processes
from engine.errors import exit_on_error
from engine.options import PRECISIONS, parse_options


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
    if images.ndim == 4:
        images = images.to(memory_format=torch.channels_last)  # faster convolutions
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


def train_epoch(run: Run, loader: Any, precision: torch.dtype) -> bool:
    """Train for an epoch, or the rest of one; return False if interrupted."""
    device, dtype = run.processes.device, next(run.network.parameters()).dtype
    batches = loader.batch_sampler
    batches.epoch, batches.first = run.epoch, run.step
    with run.progress_bar(batches.count) as bar:
        for images, labels in loader:
            images = images.to(device, dtype, non_blocking=True)
            labels = labels.to(device, non_blocking=True)
            count, total = batches.counts(run.step)
            weight = count * run.processes.world_size / total
            loss, logits = train_step(
                run.wrapped,
                run.optimizer,
                images,
                labels,
                precision,
                run.scaler,
                weight,
            )
            interrupted = run.add(loss, (logits.argmax(dim=1) == labels).sum(), count)
            mean, accuracy = run.means()
            bar.set_postfix(loss=f"{mean:.4f}", accuracy=f"{accuracy:.4f}")
            bar.update(total)
            if interrupted:
                return False
    return True


@torch.no_grad()
def evaluate(
    network: nn.Module, loader: Any, device: torch.device
) -> tuple[float, float]:
    """Return the mean loss and the accuracy on the images of `loader`."""
    network.eval()
    loss = correct = count = 0.0
    dtype = next(network.parameters()).dtype
    for images, labels in loader:
        images, labels = images.to(device, dtype), labels.to(device)
        crops = images.ndim == 5  # (N, 10, C, H, W): their probabilities are averaged
        images = images.flatten(0, 1) if crops else images
        if images.ndim == 4:
            images = images.to(memory_format=torch.channels_last)
        logits = network(images)
        if crops:
            probabilities = logits.unflatten(0, (len(labels), -1)).softmax(dim=2)
            logits = probabilities.mean(dim=1).log()
        loss += float(recipe.criterion(logits, labels)) * len(labels)
        correct += float((logits.argmax(dim=1) == labels).sum())
        count += len(labels)
    return loss / count, correct / count


def main() -> None:
    """Train as the command line says, with a checkpoint after each epoch."""
    options = parse_options(recipe)
    processes = Processes(options.device, options.fsdp)
    with processes, exit_on_error(options.output, processes.rank, processes.world_size):
        data = read_data(options.data)
        torch.manual_seed(options.seed)
        network: nn.Module = recipe.make_model(data.num_classes).to(processes.device)
        if options.weights:
            load_weights(network, options.weights)
        if options.precision == "fp64":
            network = network.double()
        torch.manual_seed(hash((options.seed, processes.rank)))  # of dropout
        run = Run(network, processes, recipe, options)
        training, validation = make_loaders(data, recipe, options, processes)
        run.finish_on_interrupt()
        while run.epoch < options.epochs:
            start, before = time.perf_counter(), run.sums[2]
            if not train_epoch(run, training, PRECISIONS[options.precision]):
                run.save()
                break
            speed = (run.sums[2] - before) / (time.perf_counter() - start)
            loss, accuracy = evaluate(run.network, validation, processes.device)
            if run.end_epoch(speed, loss, accuracy):
                break
        if run.epoch < options.epochs:
            sys.exit(f"interrupted; resume with --resume from {run.last}")
        if run.log:
            run.log.close()


if __name__ == "__main__":
    main()
