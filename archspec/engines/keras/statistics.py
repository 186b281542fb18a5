"""The statistics of training images: this file is the same in both programs."""

from collections.abc import Iterable
from typing import Any

import numpy as np


def mean_and_colors(images: Iterable[Any], count: int) -> tuple[Any, Any]:
    """Return the mean of `count` images (H, W, C), and their colors, (C, C).

    The colors are the eigenvectors of the covariance of all pixels, a column each,
    times their eigenvalues. The largest component of an eigenvector is positive.
    """
    mean: Any = 0.0
    squares: Any = 0.0
    for image in images:
        share = np.asarray(image, np.float64) / count
        pixels = share.reshape(-1, share.shape[-1])
        mean = mean + share
        squares = squares + pixels.T @ pixels * (count / len(pixels))
    color = mean.mean(axis=(0, 1))
    values, vectors = np.linalg.eigh(squares - np.outer(color, color))
    largest = np.take_along_axis(vectors, abs(vectors).argmax(axis=0)[None], axis=0)
    colors = vectors * np.sign(largest) * values
    return mean.astype(np.float32), colors.astype(np.float32)
