"""Data sets on disk: this file is the same in the PyTorch and the Keras program."""

import gzip
import math
import os
import stat
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .errors import DataError

MAX_PIXELS = 2**26  # of an image: 8192 x 8192
MAX_BYTES = 2**31  # of an array: a small gzip file can expand to gigabytes
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
DAMAGE = (  # what Pillow raises for damaged files
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
MNIST = [
    (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
    for part in ("train", "t10k")
]


class Source(NamedTuple):
    """Images, (N, H, W, C) of uint8 or the paths of N files, and their labels, (N,)."""

    images: Any
    labels: Any


class Sources(NamedTuple):
    """Training images, validation images, and the number of classes."""

    train: Source
    validation: Source
    num_classes: int


def read_sources(folder: Path | None) -> Sources:
    """Return the data set in a folder; by default, scikit-learn's digits.

    `folder` has train/ and val/ with a folder for each class, MNIST's idx files,
    gzipped or not, or CIFAR-10's binary files. In the folder of a class, images are all
    files with an image's suffix, also in folders below it; names that begin with a dot
    are left out, and links to folders are not followed. Every label is checked here;
    image files are checked as they are read.
    """
    if folder is None:
        return Sources(*_digits(), 10)
    if not folder.is_dir():
        raise DataError(f"no such folder: {folder}")
    parts = [folder / name for name in ("train", "val")]
    if all(part.is_dir() for part in parts):
        return _image_folders(folder, *parts)
    if (folder / "data_batch_1.bin").exists():
        batches = [read_cifar(folder / f"data_batch_{i}.bin") for i in range(1, 6)]
        images, labels = (
            np.concatenate(column) for column in zip(*batches, strict=True)
        )
        return Sources(
            Source(images, labels), read_cifar(folder / "test_batch.bin"), 10
        )
    paths = [[_idx_path(folder / name) for name in names] for names in MNIST]
    if any(path.exists() for pair in paths for path in pair):
        first, second = (_labeled(*pair) for pair in paths)
        if first.labels.min() == first.labels.max():
            raise DataError(f"{paths[0][1]}: all labels are the same: nothing to learn")
        num_classes = int(first.labels.max()) + 1
        _check_labels(paths[1][1], second.labels, num_classes)
        return Sources(first, second, num_classes)
    there = [part.name for part in parts if part.is_dir()]
    if there:
        missing = "val" if there == ["train"] else "train"
        raise DataError(f"{folder} has {there[0]}/ but no folder {missing}/")
    raise DataError(
        f"{folder} has neither train/ and val/, nor MNIST's or CIFAR-10's files"
    )


def is_paths(images: Any) -> bool:
    """Return whether images are the paths of files."""
    return images.dtype.kind in "OU"


def epoch_order(count: int, seed: int, epoch: int) -> Any:
    """Return the order of `count` training images in an epoch, counted from 0."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def _digits() -> tuple[Source, Source]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images * 15).astype(np.uint8)[..., None]
    fifth = np.arange(len(pixels)) % 5 == 0  # for validation
    train, validation = (Source(pixels[i], digits.target[i]) for i in (~fifth, fifth))
    return train, validation


def _check_labels(path: Path, labels: Any, num_classes: int) -> None:
    """Raise DataError if a label is beyond the classes."""
    if labels.max() >= num_classes:
        first = int(np.argmax(labels >= num_classes))
        raise DataError(
            f"{path}: label {int(labels[first])} of image {first}, but the classes are "
            f"0 to {num_classes - 1}"
        )


# --- folders of image files ---


def _image_folders(folder: Path, train: Path, val: Path) -> Sources:
    (images, classes), (validation, others) = read_folder(train), read_folder(val)
    if classes != others:
        odd = min(set(classes) ^ set(others))
        only = "train" if odd in classes else "val"
        raise DataError(
            f"{folder}: train/ and val/ have different classes: "
            f"{odd} is only in {only}/"
        )
    if len(classes) == 1:
        raise DataError(f"{train}: {classes[0]} is the only class: nothing to learn")
    return Sources(images, validation, len(classes))


def read_folder(folder: Path) -> tuple[Source, list[str]]:
    """Return the paths and labels of images in a folder for each class, and these."""
    classes = sorted(
        path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."
    )
    if not classes:
        raise DataError(f"{folder}: no images found: it has no folders of classes")
    paths, labels = [], []
    for label, name in enumerate(classes):
        found = _image_files(folder / name)
        if not found:
            raise DataError(f"{folder / name}: no images found")
        paths += found
        labels += [label] * len(found)
    images = np.empty(len(paths), object)
    images[:] = paths
    return Source(images, np.array(labels)), classes


def _image_files(folder: Path) -> list[str]:
    """Return the paths of the images in a folder and the folders below it, sorted."""
    found, folders = [], [str(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.name.lower().endswith(SUFFIXES) and entry.is_file():
                    found.append(entry.path)
    return sorted(found)


def read_image(path: str) -> Any:
    """Return an image file's pixels, (H, W, 3) of uint8."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                size = f"{image.width} x {image.height}"
                raise DataError(f"{path}: {size} pixels are more than {MAX_PIXELS:,}")
            if image.mode[0] in "IF":
                mode = f"(mode {image.mode})"
                raise DataError(f"{path}: pixels of more than 8 bits {mode}")
            return np.array(image.convert("RGB"))
    except (*DAMAGE, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from None


# --- files of arrays ---


def _idx_path(path: Path) -> Path:
    """Return the path of an idx file, or of the gzip file that there is instead."""
    zipped = path.with_name(f"{path.name}.gz")
    return zipped if zipped.exists() and not path.exists() else path


def _labeled(images_path: Path, labels_path: Path) -> Source:
    """Return the images and labels of two idx files."""
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if not images.size:
        raise DataError(f"{images_path}: no images: its shape is {images.shape}")
    if len(images) != len(labels):
        raise DataError(f"{labels_path}: {len(labels)} labels of {len(images)} images")
    return Source(images[..., None], labels.astype(np.int64))


def read_idx(path: Path, ndim: int) -> Any:
    """Return the array of `ndim` dimensions in an idx file (MNIST's format)."""
    _require_file(path)
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            head = file.read(4)
            if head[:3] != b"\0\0\x08":
                raise DataError(f"{path}: truncated or invalid idx file")
            if head[3:] != bytes([ndim]):
                count = head[3] if len(head) > 3 else "no"
                raise DataError(f"{path}: {count} dimensions, and should have {ndim}")
            sides = file.read(4 * ndim)
            shape = [int.from_bytes(sides[4 * i : 4 * i + 4]) for i in range(ndim)]
            size = math.prod(shape)
            if size > MAX_BYTES:
                raise DataError(f"{path}: {size:,} bytes are more than {MAX_BYTES:,}")
            values = np.frombuffer(file.read(size + 1), np.uint8)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: truncated or invalid gzip file") from error
    if len(sides) != 4 * ndim or values.size != size:
        raise DataError(f"{path}: truncated or invalid idx file")
    return values.reshape(shape).copy()  # writable, as PyTorch wants it


def read_cifar(path: Path) -> Source:
    """Return the images and labels in a binary file of CIFAR-10."""
    size = _require_file(path)
    if not size or size % 3073:
        raise DataError(f"{path}: truncated or invalid CIFAR-10 file")
    if size > MAX_BYTES:
        raise DataError(f"{path}: {size:,} bytes are more than {MAX_BYTES:,}")
    data = np.fromfile(path, np.uint8).reshape(-1, 3073)
    _check_labels(path, data[:, 0], 10)
    images = data[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Source(images, data[:, 0].astype(np.int64))


def _require_file(path: Path) -> int:
    """Return a file's size; raise DataError if there is no regular file."""
    if not path.exists():
        raise DataError(f"{path.parent}: no file {path.name}")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path} is not a file")
    return status.st_size
