"""Real images as the data of a verification: a folder's, prepared as a spec's recipe prepares them for evaluation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspec.graph import Graph
from archspec.language.recipe import CenterCrop, Normalize, Rescale, Resize, SubtractMean, TenCrop

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
# Of a spec without a recipe: what torchvision's pretrained weights expect.
IMAGENET = Normalize.model_construct(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])


class ImagesError(Exception):
    """Raised for a folder without images, or an image that cannot be read."""


def read_images(
    graph: Graph, folder: Path, count: int, *, noise: bool = True
) -> tuple[NDArray[np.float32], list[Path]]:
    """Return up to `count` images of a folder, evenly spaced among its files, as (N, C, H, W), and their files.

    Prepared as the recipe prepares images for evaluation, ten crops being the one of the center and the mean image that
    of these images; without a recipe, the center as large as possible, scaled to 0..1 and, in color, normalized with
    ImageNet's mean and deviation. `noise` of at most half a gray level is added: where pixels are equal, a maximum is
    several values, and its gradient any of theirs. Raises ImagesError, and ModuleNotFoundError without Pillow.
    """
    import numpy as np

    shape = graph.input.output_shape
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ImagesError(f"{graph.name} reads inputs of {shape}: no images in gray or color")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise ImagesError(f"there are no images in {folder}: files that end in {', '.join(SUFFIXES)}")
    chosen = [files[i * len(files) // count] for i in range(count)] if len(files) > count else files
    recipe = graph.spec.training
    if recipe:
        steps: Sequence[Any] = [*recipe.preprocessing, *recipe.evaluation]
    else:
        steps = [Rescale.model_construct(), *([IMAGENET] if shape[0] == 3 else [])]
    random = np.random.default_rng(0) if noise else None
    images = np.stack([_prepared(path, steps, shape, random) for path in chosen])
    if any(isinstance(step, SubtractMean) for step in steps):
        images -= images.mean(axis=0)
    return images, chosen


def _prepared(
    path: Path, steps: Sequence[Any], shape: tuple[int, ...], random: np.random.Generator | None
) -> NDArray[np.float32]:
    """Return one image as (C, H, W)."""
    import numpy as np

    channels, height, width = shape
    image = _open(path, channels)
    for step in steps:
        if isinstance(step, Resize):
            image = _resized(image, step.size)
        elif isinstance(step, CenterCrop | TenCrop):
            image = _center(image, step.size, step.size)
    if image.size != (width, height):
        image = _center(_resized(image, max(height, width)), height, width)
    values = np.asarray(image, np.float32).reshape(height, width, channels).transpose(2, 0, 1)
    if random:
        values = values + random.uniform(-0.5, 0.5, values.shape).astype(np.float32)
    for step in steps:
        if isinstance(step, Rescale):
            values = values / np.float32(255)
        elif isinstance(step, Normalize):
            mean, std = (np.array(v, np.float32).reshape(-1, 1, 1) for v in (step.mean, step.std))
            values = (values - mean) / std
    return np.ascontiguousarray(values, np.float32)


def _open(path: Path, channels: int) -> Any:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return image.convert("L" if channels == 1 else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImagesError(f"{path} cannot be read: {error}") from None


def _resized(image: Any, shorter: int) -> Any:
    """Return an image whose shorter side has `shorter` pixels, as torchvision's Resize."""
    from PIL import Image

    width, height = image.size
    least = min(width, height)
    size = (shorter, int(shorter * height / width)) if width == least else (int(shorter * width / height), shorter)
    if max(size) > 2**15:
        raise ImagesError(f"an image of {width} x {height} is too long to be resized to {shorter}")
    return image.resize(size, Image.Resampling.BILINEAR)


def _center(image: Any, height: int, width: int) -> Any:
    """Return the center of an image; zeros beyond its edges."""
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def top(scores: NDArray[Any], count: int = 5) -> list[list[int]]:
    """Return the indices of the largest scores of each image, the largest first."""
    import numpy as np

    found = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return [[int(i) for i in row] for row in found]
