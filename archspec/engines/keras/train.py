"""Train the network of model.py with the recipe of recipe.py.

    python train.py                        # a trial, on scikit-learn's digits
    python train.py --data path/to/images  # train/ and val/, a folder for each class
    python train.py --data path/to/mnist   # MNIST's files, or CIFAR-10's binary ones
    python train.py --evaluate             # the best weights of the run
    python train.py --predict image.jpg    # its five likeliest classes

This file is yours to edit: `archspec generate` does not overwrite an edited one. It
does not use `fit`, which cannot resume in the middle of an epoch.
"""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

import recipe
from engine.arguments import hyperparameters, initial_weights
from engine.checkpoint import Run, array, load_weights
from engine.data import epoch_order, make_dataset, read_data, split_batches
from engine.distributed import Devices, Step
from engine.errors import exit_on_error
from engine.layers import CropModel, split_groups
from engine.options import parse_options, set_precision
from engine.transforms import make_transform, measure


def top5(labels: Any, logits: Any) -> Any:
    """Return whether each image's label is among its five largest logits."""
    best = ops.top_k(logits, min(5, logits.shape[-1]))[1]
    labels = ops.cast(ops.expand_dims(labels, -1), best.dtype)
    return ops.any(best == labels, axis=-1)


METRICS = ["accuracy", top5]  # add your own here


def compile_model(
    model: keras.Model, jit_compile: bool | str = "auto", **hyperparameters: float
) -> None:
    """Compile the model with the recipe's optimizer and loss."""
    split_groups(model)  # faster without a GPU; same weights and outputs
    model.compile(
        optimizer=recipe.make_optimizer(model, **hyperparameters),
        loss=recipe.make_loss(),
        weighted_metrics=METRICS,
        jit_compile=jit_compile,
    )


def make_evaluator(model: keras.Model, crops: bool) -> keras.Model:
    """Return the model that evaluates images or, if `crops`, crops of each."""
    if not crops:
        return model
    evaluator = CropModel(model)
    evaluator.compile(loss=recipe.make_loss(), weighted_metrics=METRICS)
    return evaluator


def train_epoch(run: Run, step: Step, source: Any, statistics: Any) -> None:
    """Train for an epoch, or the rest of one, or until a signal."""
    options, devices, count = run.options, run.devices, len(source[0])
    order = epoch_order(count, options.seed, run.epoch)
    transform = make_transform(recipe, statistics, options.seed, run.epoch)
    parts = split_batches(order, options.batch_size, *devices.ranks)[run.step :]
    batches: Any = []
    if parts:
        loaders = options.workers, devices.replicas
        batches = devices.share(make_dataset(source, parts, transform, *loaders))
    run.start_epoch()
    for batch in run.batches(batches, count):
        run.add(step(*batch))


def evaluate(test: Step, batches: Iterable[tuple[Any, int]]) -> dict[str, float]:
    """Return the mean loss and metrics over batches, each with its number of images."""
    sums: dict[str, float] = {}
    images = 0
    for batch, count in batches:
        for name, value in test(*batch).items():
            sums[name] = sums.get(name, 0.0) + float(value) * count
        images += count
    return {name: total / images for name, total in sums.items()}


def main() -> None:
    """Train, evaluate or predict, as the command line says."""
    options = parse_options(recipe)
    devices = Devices(options.distribute, options.device)
    set_precision(options.precision)
    keras.utils.set_random_seed(options.seed)
    with exit_on_error(options.output, devices.rank, devices.world_size), devices.use():
        data = read_data(options.data)
        if options.predict:
            paths = np.array(options.predict), np.zeros(len(options.predict), int)
            data = data._replace(validation=paths)
        with devices.scope():
            model = recipe.make_model(data.num_classes)
            if weights := initial_weights(options):
                load_weights(model, recipe, weights, options.head == "new")
            compile_model(model, options.compile or "auto", **hyperparameters(options))
            run = Run(model, devices, recipe, options, data)
        statistics = measure(data.train, recipe, options.output / "statistics.npz")
        transform = make_transform(recipe, statistics, seed=None)
        count = len(data.validation[0])
        parts = split_batches(np.arange(count), options.batch_size, *devices.ranks)
        loaders = options.workers, devices.replicas
        dataset = make_dataset(data.validation, parts, transform, *loaders)
        with devices.scope():
            crops = len(dataset.element_spec[0].shape) == 5
            evaluator = make_evaluator(model, crops)
        step, test = devices.functions(model, evaluator)
        if options.predict:
            for images, _, _ in dataset:
                logits = evaluator.predict_on_batch(np.asarray(images))
                run.print_classes(array(keras.ops.softmax(logits)))
            return
        validation = devices.share(dataset)
        if options.evaluate:
            run.print_metrics(evaluate(test, run.validation_batches(validation, count)))
            return
        run.stop_on_signals()
        while run.epoch < options.epochs and not run.stop:
            train_epoch(run, step, data.train, statistics)
            if run.stop:
                run.save()
                break
            run.end_epoch(evaluate(test, run.validation_batches(validation, count)))
        run.close()


if __name__ == "__main__":
    main()
