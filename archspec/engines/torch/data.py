"""Data sets: files to images, images to batches."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from .distributed import Processes
from .sources import Source, epoch_order, is_paths, read_image, read_sources
from .transforms import Transform, measure


class Data(NamedTuple):
    """A data set: training images, validation images, and the number of classes."""

    train: Any
    validation: Any
    num_classes: int


class Files(Dataset[tuple[Tensor, Tensor]]):
    """Image files and their labels."""

    def __init__(self, paths: Any, labels: Tensor) -> None:
        self.paths, self.labels = paths, labels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels = torch.from_numpy(read_image(self.paths[index]))
        return pixels.permute(2, 0, 1), self.labels[index]


class Images(Dataset[tuple[Tensor, int]]):
    """Images and labels: `prepare` transforms all, then `transform` each.

    The random draws for an image depend on the seed, the epoch and the image alone:
    they are the same for any number of workers, after a resumption, and in the Keras
    program.
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
        order = np.arange(self.count)
        if self.seed is not None:
            order = epoch_order(self.count, self.seed, self.epoch)
        for start in range(self.first * self.size, self.count, self.size):
            batch = order[start : start + self.size].tolist()
            own = batch[self.rank :: self.world_size] or batch[:1]
            yield [(self.epoch, index) for index in own]

    def counts(self, batch: int) -> tuple[int, int]:
        """Return the number of images of a batch: of this rank, and of all."""
        total = min(self.size, self.count - batch * self.size)
        return len(range(self.rank, total, self.world_size)), total


def read_data(folder: Path | None) -> Data:
    """Return the data set in a folder: see `read_sources`."""
    train, validation, num_classes = read_sources(folder)
    return Data(_dataset(train), _dataset(validation), num_classes)


def _dataset(source: Source) -> Dataset[Any]:
    """Return a data set of images, (C, H, W) of uint8, and labels."""
    labels = torch.from_numpy(source.labels)
    if is_paths(source.images):
        return Files(source.images, labels)
    return TensorDataset(torch.from_numpy(source.images).permute(0, 3, 1, 2), labels)


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
