"""Data sets: files to images, images to batches."""

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .errors import DataError

Source = tuple[np.ndarray, np.ndarray]  # images, or the paths of their files; labels
Part = tuple[np.ndarray, np.ndarray]  # indices of a batch's images, and their weights


class Data(NamedTuple):
    """A data set: training images, validation images, and the number of classes."""

    train: Source
    validation: Source
    num_classes: int


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

    images, labels = (tf.constant(values) for values in source)

    def read(index: Any, weight: Any) -> Any:
        image = images[index]
        if image.dtype == tf.string:
            image = tf.numpy_function(read_image, [image], tf.uint8)
            image.set_shape((None, None, 3))
        return transform(image, index), labels[index], weight

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


def read_data(folder: Path | None) -> Data:
    """Return the data set in a folder.

    `folder` has train/ and val/ with a folder for each class, MNIST's idx files or
    CIFAR-10's binary files; by default, scikit-learn's digits.
    """
    if folder is None:
        return _digits()
    if not folder.is_dir():
        raise DataError(f"no such folder: {folder}")
    if (folder / "train").is_dir() and (folder / "val").is_dir():
        train, classes = read_folder(folder / "train")
        validation, others = read_folder(folder / "val")
        if classes != others:
            raise DataError(f"{folder}: train/ and val/ have different classes")
        return Data(train, validation, len(classes))
    if (folder / "data_batch_1.bin").is_file():
        found = [read_cifar(folder / f"data_batch_{i}.bin") for i in range(1, 6)]
        images, labels = (np.concatenate(column) for column in zip(*found, strict=True))
        return Data((images, labels), read_cifar(folder / "test_batch.bin"), 10)
    kinds = ("images-idx3", "labels-idx1")
    names = [f"{part}-{kind}-ubyte*" for part in ("train", "t10k") for kind in kinds]
    paths = [sorted(folder.glob(name)) for name in names]
    if not all(paths):
        raise DataError(
            f"{folder} has neither train/ and val/, nor MNIST's or CIFAR-10's files"
        )
    arrays = [read_idx(path[0]) for path in paths]
    train, test = (arrays[0][..., None], arrays[1]), (arrays[2][..., None], arrays[3])
    return Data(train, test, int(arrays[1].max()) + 1)


def _digits() -> Data:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images * 15).astype(np.uint8)[..., None]
    fifth = np.arange(len(pixels)) % 5 == 0  # for validation
    train, validation = [(pixels[i], digits.target[i]) for i in (~fifth, fifth)]
    return Data(train, validation, 10)


def read_folder(folder: Path) -> tuple[Source, list[str]]:
    """Return the paths and labels of images in a folder for each class, and these."""
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    kinds = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
    found = [
        (str(path), label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in kinds
    ]
    if not found:
        raise DataError(f"{folder}: no images found")
    paths, labels = zip(*found, strict=True)
    return (np.array(paths), np.array(labels)), classes


def read_image(path: bytes | str) -> np.ndarray:
    """Return an image file's pixels, (H, W, 3) of 0 to 255."""
    from PIL import Image

    path = os.fsdecode(path)
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from None


def read_idx(path: Path) -> np.ndarray:
    """Return the array in an idx file (MNIST's format), gzipped or not."""
    data = path.read_bytes()
    try:
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: truncated or invalid gzip file") from error
    dims = data[3] if len(data) > 3 else 0
    shape = [int.from_bytes(data[4 * i : 4 * i + 4]) for i in range(1, dims + 1)]
    values = np.frombuffer(data[4 + 4 * dims :], np.uint8)
    if data[:3] != b"\0\0\x08" or values.size != math.prod(shape):
        raise DataError(f"{path}: truncated or invalid idx file")
    return values.reshape(shape)


def read_cifar(path: Path) -> Source:
    """Return the images and labels in a binary file of CIFAR-10."""
    data = np.frombuffer(path.read_bytes(), np.uint8)
    if not data.size or data.size % 3073:
        raise DataError(f"{path}: truncated or invalid CIFAR-10 file")
    data = data.reshape(-1, 3073)
    return data[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), data[:, 0]
