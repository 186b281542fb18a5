"""Transforms of images (H, W, C), and the statistics of training images they need.

They are TensorFlow's on every backend: tf.data makes the batches.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import save_arrays
from .draws import Draws, to_uniform
from .sources import Source, is_paths, read_image
from .statistics import mean_and_colors

Statistics = dict[str, np.ndarray]
Bounds = tuple[float, float]


def make_transform(
    recipe: Any, statistics: Statistics, seed: int | None, epoch: int = 0
) -> Callable[[Any, Any], Any]:
    """Return the transform of a uint8 image and its index; of training with a seed.

    The random draws for an image depend on the seed, the epoch and the image alone:
    they are the same in any number of processes, after a resumption, and in the PyTorch
    program.
    """

    def transform(image: Any, index: Any) -> Any:
        image = recipe.prepare(image, statistics)
        if seed is None:
            return recipe.evaluate(image)
        return recipe.augment(image, statistics, Draws(seed, epoch, index))

    return transform


def measure(source: Source, recipe: Any, path: Path) -> Statistics:
    """Return the mean image (H, W, C) and the colors (C, C) of the training images.

    They are stored at `path`. A recipe may need none.
    """
    import tensorflow as tf

    if recipe.measured is None:
        return {}
    if path.exists():
        with np.load(path) as arrays:
            return dict(arrays)
    images, _ = source
    pixels = map(read_image, images) if is_paths(images) else images
    tensors = (recipe.measured(tf.convert_to_tensor(image)) for image in pixels)
    measured = (tensor.numpy() for tensor in tensors)
    mean, colors = mean_and_colors(measured, len(images))
    save_arrays(path, mean=mean, colors=colors)
    return {"mean": mean, "colors": colors}


def grayscale(image: Any) -> Any:
    """Return the image with one channel: the luma of ITU-R BT.601, as Pillow's."""
    import tensorflow as tf

    if image.shape[-1] == 1:
        return image
    red, green, blue = tf.unstack(tf.cast(image, tf.int32), axis=-1)
    luma = (19595 * red + 38470 * green + 7471 * blue + 2**15) // 2**16
    return tf.cast(luma, tf.uint8)[..., None]


def rgb(image: Any) -> Any:
    """Return the image with three channels."""
    import tensorflow as tf

    return tf.image.grayscale_to_rgb(image) if image.shape[-1] == 1 else image


def to_float(image: Any) -> Any:
    """Return the image in float32, with the same values."""
    import tensorflow as tf

    return tf.cast(image, tf.float32)


def rescale(image: Any) -> Any:
    """Return the image in float32, with values from 0 to 1."""
    return to_float(image) * (1 / 255)  # in this order, as torchvision


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


def random_crop(image: Any, size: int, draws: Draws, padding: int = 0) -> Any:
    """Return any size x size pixels of the zero-padded image."""
    import tensorflow as tf

    image = tf.pad(image, [(padding, padding), (padding, padding), (0, 0)])
    height, width = tf.unstack(tf.shape(image)[:2])
    top, left = draws.integer(height - size + 1), draws.integer(width - size + 1)
    return tf.slice(image, (top, left, 0), (size, size, image.shape[-1]))


def random_resized_crop(
    image: Any,
    size: int,
    draws: Draws,
    scale: Bounds = (0.08, 1.0),
    ratio: Bounds = (3 / 4, 4 / 3),
) -> Any:
    """Return a part of the image, of an area and a shape within bounds, resized.

    As torchvision's: ten parts are drawn, and where none fits it is the center.
    """
    import tensorflow as tf

    words = draws.words(22)
    sides = tf.cast(tf.shape(image)[:2], tf.float64)
    area = tf.cast(to_uniform(words[:20:2], *scale), tf.float64)
    area *= tf.reduce_prod(sides)
    bounds = math.log(ratio[0]), math.log(ratio[1])
    shape = tf.cast(tf.exp(to_uniform(words[1:20:2], *bounds)), tf.float64)
    drawn = tf.round(tf.sqrt(tf.stack([area / shape, area * shape], axis=1)))
    center = tf.minimum(sides, tf.round(sides[::-1] * (1 / ratio[0], ratio[1])))
    parts = tf.concat([drawn, center[None]], axis=0)  # height and width of each
    fits = tf.reduce_all((parts > 0) & (parts <= sides), axis=1)
    index = tf.argmax(fits, output_type=tf.int32)  # the center always fits
    draws.give_back(tf.where(index < 10, 18 - 2 * index, 2))
    margin = tf.cast(sides - parts[index], tf.int64)
    next_words = words[tf.minimum(2 * index + 2, 20) :][:2]
    place = tf.where(index < 10, next_words % (margin + 1), margin // 2)
    (top, left), (height, width) = (
        tf.unstack(tf.cast(pair, tf.int32)) for pair in (place, parts[index])
    )
    return resize(image[top : top + height, left : left + width], (size, size))


def horizontal_flip(image: Any, draws: Draws, p: float = 0.5) -> Any:
    """Return the image or, with probability `p`, its reflection."""
    import tensorflow as tf

    return tf.where(draws.uniform() < p, image[:, ::-1], image)


def pca_noise(image: Any, draws: Draws, colors: Any, std: float) -> Any:
    """Add the color noise of Krizhevsky et al. (2012), section 4.1.

    One draw of N(0, std^2) an image for each column of `colors`, (3, 3).
    """
    import tensorflow as tf

    return image + tf.linalg.matvec(colors, draws.normal(3) * std)
