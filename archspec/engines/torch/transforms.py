"""Transforms of images, and the statistics of the training images that they need."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .checkpoint import save

Transform = Callable[[Any], Tensor]


class Transforms(NamedTuple):
    """What is done to images: to all, then to each one of training or validation."""

    prepare: Transform
    augment: Transform
    evaluate: Transform


class Statistics(NamedTuple):
    """The mean image of the training set, (C, H, W), and its colors, (C, C).

    The colors are the eigenvectors of the pixels' covariance, a column each, times
    their eigenvalues.
    """

    mean: Tensor = torch.tensor(0.0)
    colors: Tensor = torch.tensor(0.0)


def measure(images: Any, transform: Transform | None, path: Path) -> Statistics:
    """Return the statistics of a data set; they are stored at `path`.

    Without a transform none are needed.
    """
    if transform is None:
        return Statistics()
    if path.exists():
        return Statistics(**torch.load(path, weights_only=True))
    mean = squares = torch.zeros((), dtype=torch.float64)
    for i in range(len(images)):
        image = transform(images[i][0]).double() / len(images)
        pixels = image.flatten(1)
        mean = mean + image
        squares = squares + pixels @ pixels.T * (len(images) / pixels.shape[1])
    color = mean.flatten(1).mean(dim=1)
    values, vectors = torch.linalg.eigh(squares - torch.outer(color, color))
    statistics = Statistics(mean.float(), (vectors * values).float())
    save(statistics._asdict(), path)
    return statistics


class SubtractMean(nn.Module):
    """Subtract the mean image of the training set."""

    def __init__(self, mean: Tensor) -> None:
        super().__init__()
        self.mean = mean

    def forward(self, image: Tensor) -> Tensor:
        return image - self.mean


class PCANoise(nn.Module):
    """Add the color noise of Krizhevsky et al. (2012), section 4.1.

    One draw of N(0, std^2) an image for each column of `colors`, (3, 3).
    """

    def __init__(self, colors: Tensor, std: float) -> None:
        super().__init__()
        self.colors, self.std = colors, std

    def forward(self, image: Tensor) -> Tensor:
        noise = self.colors @ (torch.randn(3) * self.std)
        return image + noise.view(3, 1, 1)
