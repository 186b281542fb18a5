"""Train the network of model.py with the recipe of recipe.py.

    python train.py                        # a trial, on scikit-learn's digits
    python train.py --data path/to/images  # train/ and val/, a folder for each class
    python train.py --data path/to/mnist   # MNIST's files, or CIFAR-10's binary ones

This file is yours to edit: `archspec generate` does not overwrite an edited one. It
does not use `fit`, which cannot resume in the middle of an epoch.
"""

import sys
import time
from typing import Any

import keras
import numpy as np

import recipe
from engine.checkpoint import Run, array, load_weights
from engine.data import epoch_order, make_dataset, read_data, split_batches
from engine.distributed import Devices
from engine.errors import exit_on_error
from engine.layers import split_groups
from engine.options import parse_options, set_precision
from engine.transforms import make_transform, measure


def compile_model(model: keras.Model, jit_compile: bool | str = "auto") -> None:
    """Compile the model with the recipe's optimizer and loss."""
    split_groups(model)  # faster without a GPU; same weights and outputs
    model.compile(
        optimizer=recipe.make_optimizer(model),
        loss=recipe.make_loss(),
        weighted_metrics=["accuracy"],
        jit_compile=jit_compile,
    )


def train_epoch(run: Run, step: Any, source: Any, statistics: Any) -> bool:
    """Train for an epoch, or the rest of one; return False if interrupted."""
    options, devices = run.options, run.devices
    count, size = len(source[0]), options.batch_size
    order = epoch_order(count, options.seed, run.epoch)
    transform = make_transform(recipe, statistics, options.seed, run.epoch)
    ranks = devices.rank, devices.world_size, devices.count
    parts = split_batches(order, size, *ranks)[run.step :]
    dataset = make_dataset(source, parts, transform, options.workers, devices.replicas)
    run.start_epoch()
    with run.progress_bar(count) as bar:
        for batch in devices.share(dataset):
            images = min(size, count - run.step * size)
            run.add(step(*batch), images)
            loss, accuracy = run.means()
            bar.set_postfix(loss=f"{loss:.4f}", accuracy=f"{accuracy:.4f}")
            bar.update(images)
            if run.interrupted:
                return False
    return True


def evaluate(model: keras.Model, predict: Any, dataset: Any) -> tuple[float, float]:
    """Return the mean loss and the accuracy on the images of a dataset."""
    loss = correct = count = 0.0
    for images, labels, _ in dataset:
        images, labels = np.asarray(images), np.asarray(labels)
        if images.ndim == 5:  # (N, 10, H, W, C): the crops' probabilities are averaged
            crops = images.reshape(-1, *images.shape[2:])
            probabilities = array(keras.ops.softmax(np.asarray(predict(crops))))
            logits = np.log(probabilities.reshape(*images.shape[:2], -1).mean(axis=1))
        else:
            logits = np.asarray(predict(images))
        loss += float(model.loss(labels, logits)) * len(labels)
        correct += float((logits.argmax(axis=1) == labels).sum())
        count += len(labels)
    return loss / count, correct / count


def main() -> None:
    """Train as the command line says, with a checkpoint after each epoch."""
    options = parse_options(recipe)
    devices = Devices(options.distribute, options.device)
    set_precision(options.precision)
    keras.utils.set_random_seed(options.seed)
    with exit_on_error(options.output, devices.rank, devices.world_size), devices.use():
        data = read_data(options.data)
        with devices.scope():
            model = recipe.make_model(data.num_classes)
            if options.weights:
                load_weights(model, recipe, options.weights)
            compile_model(model, jit_compile=options.compile or "auto")
            run = Run(model, devices, recipe, options)
        statistics = measure(data.train, recipe, options.output / "statistics.npz")
        transform = make_transform(recipe, statistics, seed=None)
        parts = split_batches(np.arange(len(data.validation[0])), options.batch_size)
        validation = make_dataset(data.validation, parts, transform, options.workers)
        step, predict = devices.functions(model)
        run.finish_on_interrupt()
        while run.epoch < options.epochs:
            start, before = time.perf_counter(), run.sums[2]
            if not train_epoch(run, step, data.train, statistics):
                run.save()
                break
            speed = (run.sums[2] - before) / (time.perf_counter() - start)
            loss, accuracy = evaluate(model, predict, validation)
            if run.end_epoch(speed, loss, accuracy):
                break
        if run.epoch < options.epochs:
            sys.exit(f"interrupted; resume with --resume from {run.last}")
        if run.log:
            run.log.close()


if __name__ == "__main__":
    main()
