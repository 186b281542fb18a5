"""Transforms of images, and the statistics of the training images that they need."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .checkpoint import save
from .statistics import mean_and_colors

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
    tensors = (transform(images[i][0]) for i in range(len(images)))
    measured = (tensor.permute(1, 2, 0).numpy() for tensor in tensors)
    mean, colors = map(torch.from_numpy, mean_and_colors(measured, len(images)))
    statistics = Statistics(mean.permute(2, 0, 1).contiguous(), colors)
    save(statistics._asdict(), path)
    return statistics


class Grayscale(nn.Module):
    """Convert to one channel: the luma of ITU-R BT.601, rounded, as Pillow does.

    v2.Grayscale rounds down: a gray of 200 becomes 199.
    """

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[-3] == 1:
            return image
        red, green, blue = image.int().unbind(-3)
        luma = (19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16
        return luma.to(torch.uint8).unsqueeze(-3)


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
