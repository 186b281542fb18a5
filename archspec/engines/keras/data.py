"""Data sets: files to images, images to batches."""

import os
from typing import Any

import numpy as np

from .sources import Source, epoch_order, is_paths, read_image
from .sources import Sources as Data
from .sources import read_sources as read_data

__all__ = ["Data", "epoch_order", "make_dataset", "read_data", "split_batches"]

Part = tuple[np.ndarray, np.ndarray]  # indices of a batch's images, and their weights


def split_batches(
    indices: np.ndarray, size: int, rank: int = 0, world_size: int = 1, devices: int = 1
) -> list[Part]:
    """Return this process's part of every batch of `size` images, and their weights.

    The parts of a batch are of one size, for any number of devices: where an image is
    missing, another has its place with weight 0. So the mean over the devices is the
    mean over the batch.
    """
    parts = []
    for start in range(0, len(indices), size):
        batch = indices[start : start + size]
        padded = np.resize(batch, -(-len(batch) // devices) * devices)
        weights = np.zeros(len(padded))
        weights[: len(batch)] = len(padded) / len(batch)
        parts.append((padded[rank::world_size], weights[rank::world_size]))
    return parts


def make_dataset(
    source: Source, parts: list[Part], transform: Any, workers: int, replicas: int = 1
) -> Any:
    """Return a tf.data.Dataset of batches: images, labels, weights.

    It prepares the next batches while the model works on one.
    """
    import tensorflow as tf

    images, labels = source
    if is_paths(images):
        images = [os.fsencode(path) for path in images]
    images, labels = tf.constant(images), tf.constant(labels)

    def read(index: Any, weight: Any) -> Any:
        image = images[index]
        if image.dtype == tf.string:
            image = tf.numpy_function(_read_file, [image], tf.uint8)
            image.set_shape((None, None, 3))
        return transform(image, index), labels[index], weight

    # Traced once, also where the last batch is smaller; there is no control flow in it.
    read = tf.function(read, autograph=False)

    def batched(parts: list[Part]) -> Any:
        columns = tuple(np.concatenate(column) for column in zip(*parts, strict=True))
        dataset = tf.data.Dataset.from_tensor_slices(columns)
        dataset = dataset.map(read, workers or tf.data.AUTOTUNE, deterministic=True)
        return dataset.batch(len(parts[0][0]) // replicas)

    full = [part for part in parts if len(part[0]) == len(parts[0][0])]
    dataset = batched(full)
    if len(full) < len(parts):
        dataset = dataset.concatenate(batched(parts[len(full) :]))
    return dataset.prefetch(2)


def _read_file(path: bytes) -> Any:
    return read_image(os.fsdecode(path))
