"""Transforms of images (H, W, C), and the statistics of training images they need.

They are TensorFlow's on every backend: tf.data makes the batches.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .files import save_arrays

Statistics = dict[str, np.ndarray]
Bounds = tuple[float, float]


def make_transform(
    recipe: Any, statistics: Statistics, seed: int | None, epoch: int = 0
) -> Callable[[Any, Any], Any]:
    """Return the transform of a uint8 image and its index; of training with a seed.

    The random draws for an image depend on the seed, the epoch and the image alone:
    they are the same in any number of processes, and after a resumption.
    """
    import tensorflow as tf

    def transform(image: Any, index: Any) -> Any:
        image = recipe.prepare(image, statistics)
        if seed is None:
            return recipe.evaluate(image)
        key = tf.random.fold_in((seed, epoch), index)
        return recipe.augment(image, statistics, _seeds(key))

    return transform


def _seeds(key: Any) -> Iterator[Any]:
    import tensorflow as tf

    return (tf.random.fold_in(key, i) for i in itertools.count())


def measure(source: Any, recipe: Any, path: Path) -> Statistics:
    """Return the mean image (H, W, C) and the colors (C, C) of the training images.

    The colors are the eigenvectors of the pixels' covariance, a column each, times
    their eigenvalues. They are stored at `path`. A recipe may need none.
    """
    import tensorflow as tf

    from .data import read_image

    if recipe.measured is None:
        return {}
    if path.exists():
        with np.load(path) as arrays:
            return dict(arrays)
    images = source[0]
    mean: Any = 0.0
    squares: Any = 0.0
    for i in range(len(images)):
        image = read_image(images[i]) if images.dtype.kind == "U" else images[i]
        image = recipe.measured(tf.convert_to_tensor(image)).numpy()
        image = image.astype(np.float64) / len(images)
        pixels = image.reshape(-1, image.shape[-1])
        mean += image
        squares += pixels.T @ pixels * (len(images) / len(pixels))
    color = mean.mean(axis=(0, 1))
    values, vectors = np.linalg.eigh(squares - np.outer(color, color))
    arrays = {"mean": mean, "colors": vectors * values}
    statistics = {name: value.astype(np.float32) for name, value in arrays.items()}
    save_arrays(path, **statistics)
    return statistics


def grayscale(image: Any) -> Any:
    """Return the image with one channel."""
    import tensorflow as tf

    return tf.image.rgb_to_grayscale(image) if image.shape[-1] == 3 else image


def rgb(image: Any) -> Any:
    """Return the image with three channels."""
    import tensorflow as tf

    return tf.image.grayscale_to_rgb(image) if image.shape[-1] == 1 else image


def to_float(image: Any) -> Any:
    """Return the image in float32, with the same values."""
    import tensorflow as tf

    return tf.cast(image, tf.float32)


def resize(image: Any, size: int | tuple[int, int]) -> Any:
    """Resize the shorter side to `size`, or both sides; integers stay integers."""
    import tensorflow as tf

    if isinstance(size, int):
        shape = tf.shape(image)[:2]
        size = shape * size // tf.reduce_min(shape)
    resized = tf.image.resize(image, size, antialias=True)
    rounded = tf.round(resized) if image.dtype.is_integer else resized
    return tf.cast(rounded, image.dtype)


def center_crop(image: Any, size: int) -> Any:
    """Return the center; a smaller image is padded with zeros."""
    import tensorflow as tf

    height, width = (tf.maximum(side, size) for side in tf.unstack(tf.shape(image)[:2]))
    image = tf.image.resize_with_crop_or_pad(image, height, width)
    top, left = (tf.cast(tf.round((n - size) / 2), tf.int32) for n in (height, width))
    return image[top : top + size, left : left + size]


def ten_crop(image: Any, size: int) -> Any:
    """Return the corners, the center and their reflections, (10, H, W, C)."""
    import tensorflow as tf

    crops = []
    for side in (image, image[:, ::-1]):
        for rows in (side[:size], side[-size:]):
            crops += [rows[:, :size], rows[:, -size:]]
        crops.append(center_crop(side, size))
    return tf.stack(crops)


def random_crop(image: Any, size: int, seed: Any, padding: int = 0) -> Any:
    """Return any size x size pixels of the zero-padded image."""
    import tensorflow as tf

    image = tf.pad(image, [(padding, padding), (padding, padding), (0, 0)])
    return tf.image.stateless_random_crop(image, (size, size, image.shape[-1]), seed)


def random_resized_crop(
    image: Any,
    size: int,
    seed: Any,
    scale: Bounds = (0.08, 1.0),
    ratio: Bounds = (3 / 4, 4 / 3),
) -> Any:
    """Return a part of the image, of an area and a shape within bounds, resized.

    As torchvision's: ten parts are drawn, and where none fits it is the center.
    """
    import tensorflow as tf

    uniform, seeds = tf.random.stateless_uniform, tf.unstack(tf.random.split(seed, 3))
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    area = tf.reduce_prod(sides) * uniform((10, 1), seeds[0], *scale)
    shape = tf.exp(uniform((10, 1), seeds[1], *map(math.log, ratio)))
    drawn = tf.round(tf.sqrt(tf.concat([area / shape, area * shape], axis=1)))
    center = tf.minimum(sides, tf.round(sides[::-1] * (1 / ratio[0], ratio[1])))
    parts = tf.concat([drawn, center[None]], axis=0)  # height and width of each
    index = tf.argmax(tf.reduce_all((parts > 0) & (parts <= sides), axis=1))
    margin = sides - parts[index]
    place = tf.floor(uniform((2,), seeds[2]) * (margin + 1))
    place = tf.where(index < 10, place, margin // 2)
    (top, left), (height, width) = (
        tf.unstack(tf.cast(pair, tf.int32)) for pair in (place, parts[index])
    )
    return resize(image[top : top + height, left : left + width], (size, size))


def horizontal_flip(image: Any, seed: Any, p: float = 0.5) -> Any:
    """Return the image or, with probability `p`, its reflection."""
    import tensorflow as tf

    flipped = tf.random.stateless_uniform((), seed) < p
    return tf.where(flipped, image[:, ::-1], image)


def pca_noise(image: Any, seed: Any, colors: Any, std: float) -> Any:
    """Add the color noise of Krizhevsky et al. (2012), section 4.1.

    One draw of N(0, std^2) an image for each column of `colors`, (3, 3).
    """
    import tensorflow as tf

    noise = tf.random.stateless_normal((3,), seed, stddev=std)
    return image + tf.linalg.matvec(colors, noise)
