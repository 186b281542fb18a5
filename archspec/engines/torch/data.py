"""Data sets: files to images, images to batches."""

import gzip
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from .distributed import Processes
from .errors import DataError
from .transforms import Transform, measure


class Data(NamedTuple):
    """A data set: training images, validation images, and the number of classes."""

    train: Any
    validation: Any
    num_classes: int


class Files(Dataset[tuple[Tensor, Tensor]]):
    """Image files and their labels."""

    def __init__(self, paths: list[str], labels: Tensor) -> None:
        self.paths, self.labels = paths, labels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return read_image(self.paths[index]), self.labels[index]


class Images(Dataset[tuple[Tensor, int]]):
    """Images and labels: `prepare` transforms all, then `transform` each.

    The random draws for an image depend on the seed, the epoch and the image alone:
    they are the same for any number of workers, and after a resumption.
    """

    def __init__(
        self, source: Any, prepare: Transform, transform: Transform, seed: int
    ) -> None:
        self.source, self.seed = source, seed
        self.prepare, self.transform = prepare, transform

    def __len__(self) -> int:
        return len(self.source)

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[tuple[Tensor, int]]:
        if isinstance(self.source, TensorDataset):  # of one size: all at once
            pixels, labels = self.source[[index for _, index in keys]]
            images = list(self.prepare(pixels))
        else:
            pixels, labels = zip(*(self.source[i] for _, i in keys), strict=True)
            images = [self.prepare(image) for image in pixels]
        state = torch.get_rng_state()
        for i, key in enumerate(keys):
            torch.default_generator.manual_seed(hash((self.seed, *key)))
            images[i] = self.transform(images[i])
        torch.set_rng_state(state)
        return [(image, int(y)) for image, y in zip(images, labels, strict=True)]


class Batches:
    """A batch sampler: the images of an epoch, shuffled if there is a seed.

    Rank r takes samples r, r + world_size, ... of each batch; a rank without one gets a
    dummy, which counts with weight 0.
    """

    def __init__(
        self,
        count: int,
        size: int,
        seed: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.count, self.size, self.seed = count, size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = self.first = 0  # the epoch, and its first batch

    def __len__(self) -> int:
        return -(-self.count // self.size) - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = torch.arange(self.count)
        if self.seed is not None:
            generator = torch.Generator().manual_seed(hash((self.seed, self.epoch)))
            order = torch.randperm(self.count, generator=generator)
        for start in range(self.first * self.size, self.count, self.size):
            batch = order[start : start + self.size].tolist()
            own = batch[self.rank :: self.world_size] or batch[:1]
            yield [(self.epoch, index) for index in own]

    def counts(self, batch: int) -> tuple[int, int]:
        """Return the number of images of a batch: of this rank, and of all."""
        total = min(self.size, self.count - batch * self.size)
        return len(range(self.rank, total, self.world_size)), total


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
        from torchvision.datasets import ImageFolder

        train, val = (
            ImageFolder(str(folder / name), loader=read_image)
            for name in ("train", "val")
        )
        if train.classes != val.classes:
            raise DataError(f"{folder}: train/ and val/ have different classes")
        return Data(train, val, len(train.classes))
    if (folder / "data_batch_1.bin").is_file():
        parts = [read_cifar(folder / f"data_batch_{i}.bin") for i in range(1, 6)]
        pixels, labels = (torch.cat(part) for part in zip(*parts, strict=True))
        test = TensorDataset(*read_cifar(folder / "test_batch.bin"))
        return Data(TensorDataset(pixels, labels), test, 10)
    kinds = ("images-idx3", "labels-idx1")
    names = [f"{part}-{kind}-ubyte*" for part in ("train", "t10k") for kind in kinds]
    found = [sorted(folder.glob(name)) for name in names]
    if not all(found):
        raise DataError(
            f"{folder} has neither train/ and val/, nor MNIST's or CIFAR-10's files"
        )
    arrays = [read_idx(paths[0]) for paths in found]
    images = TensorDataset(arrays[0].unsqueeze(1), arrays[1].long())
    test = TensorDataset(arrays[2].unsqueeze(1), arrays[3].long())
    return Data(images, test, int(arrays[1].max()) + 1)


def _digits() -> Data:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = torch.from_numpy(digits.images * 15).to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(digits.target)
    fifth = torch.arange(len(labels)) % 5 == 0  # for validation
    train = TensorDataset(pixels[~fifth], labels[~fifth])
    return Data(train, TensorDataset(pixels[fifth], labels[fifth]), 10)


def make_loaders(
    data: Data, recipe: Any, options: Any, processes: Processes
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Return the loaders of training and of validation batches."""
    path = options.output / "statistics.pt"
    statistics = measure(data.train, recipe.measured(), path)
    prepare, augment, evaluate = recipe.make_transforms(statistics)
    ranks = processes.rank, processes.world_size
    train = Batches(len(data.train), options.batch_size, options.seed, *ranks)
    validation = Batches(len(data.validation), options.batch_size, None, *ranks)
    training_loader, validation_loader = (
        DataLoader(
            Images(images, prepare, transform, options.seed),
            batch_sampler=batches,
            generator=torch.Generator(),  # its own: the model's draws stay the same
            num_workers=options.workers,
            persistent_workers=options.workers > 0,
            pin_memory=processes.device.type == "cuda",
        )
        for images, transform, batches in (
            (data.train, augment, train),
            (data.validation, evaluate, validation),
        )
    )
    return training_loader, validation_loader


def read_image(path: str) -> Tensor:
    """Return an image file's pixels, (C, H, W) of 0 to 255."""
    from PIL import Image
    from torchvision.transforms.v2.functional import pil_to_tensor

    try:
        with Image.open(path) as image:
            pixels: Tensor = pil_to_tensor(image.convert("RGB"))
    except OSError as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from None
    return pixels


def read_idx(path: Path) -> Tensor:
    """Return the array in an idx file (MNIST's format), gzipped or not."""
    data = path.read_bytes()
    try:
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: truncated or invalid gzip file") from error
    dims = data[3] if len(data) > 3 else 0
    shape = [int.from_bytes(data[4 * i : 4 * i + 4]) for i in range(1, dims + 1)]
    start = 4 + 4 * dims
    if data[:3] != b"\0\0\x08" or len(data) - start != math.prod(shape):
        raise DataError(f"{path}: truncated or invalid idx file")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)[start:].view(shape)


def read_cifar(path: Path) -> tuple[Tensor, Tensor]:
    """Return the images and labels in a binary file of CIFAR-10."""
    content = bytearray(path.read_bytes())
    if not content or len(content) % 3073:
        raise DataError(f"{path}: truncated or invalid CIFAR-10 file")
    data = torch.frombuffer(content, dtype=torch.uint8).view(-1, 3073)
    return data[:, 1:].reshape(-1, 3, 32, 32), data[:, 0].long()
