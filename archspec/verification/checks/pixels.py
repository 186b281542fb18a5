"""images: what the training programs feed their models, of the same image files, seed and epochs: order and pixels.

`archspec verify --data` is something else: outputs on a user's images (archspec/verification/images.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspec.language.recipe import (
    CenterCrop,
    Normalize,
    PcaNoise,
    RandomCrop,
    RandomResizedCrop,
    Rescale,
    Resize,
    SubtractMean,
    TenCrop,
    Training,
)
from archspec.verification.checks.base import ArrayFile, Context, TargetRun, pairs
from archspec.verification.evidence import Comparison
from archspec.verification.inputs import Inputs
from archspec.verification.tensors import NAN, looks_like, shape_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archspec.graph import Graph
    from archspec.verification.checks.base import Array, Arrays

EPOCHS = 2
BATCH = 3
SIZES = [3, 3, 1]  # of the batches of an epoch: the last one is partial

# Differences are relative to the range of the values, which is 255 gray levels. Where nothing is resized:
EXACT = 0.0
NOISE_BOUND = 1e-6  # with pca_noise, which is a sum of products in float32
# Where images are resized, bilinear with antialiasing in both targets:
RESIZE_BOUND = 1 / 255  # of integers, which PyTorch rounds after each axis and TensorFlow once: one gray level
MEAN_BOUND = 1 / 255  # more, where the mean of resized images is subtracted
BIAS_BOUND = 0.25 / 255  # of the mean of these differences: rounding down in one target makes it half a level
FLOAT_BOUND = 1e-4  # of images that are floats before they are resized

# What each image has more than the side that its recipe asks for, in pixels: height and width.
MARGINS = ((0, 0), (0, 7), (5, 0), (0, 1), (2, 0), (0, 12), (9, 0))
RESIZED = 4  # images that are resized


@dataclass(frozen=True)
class Result:
    """What the program read of images that have the size that the recipe resizes to, and of others, if it resizes.

    `training0.images` are those of the first epoch, (N, C, H, W), `.labels` their labels, which number the images, and
    `.sizes` the sizes of the batches; `validation0` are those of the validation after it.
    """

    fitting: Arrays
    others: Arrays | None


def skip_reason(graph: Graph) -> str:
    """Return why the check does not apply to a network; empty if it does."""
    from importlib.util import find_spec

    shape = graph.input.output_shape
    if graph.spec.training is None:
        return "the spec has no recipe"
    if len(shape) != 3 or shape[0] not in (1, 3):
        return "the training programs read images of 1 or 3 channels"
    if find_spec("PIL") is None:
        return "Pillow is not installed"
    return ""


# --- the images ------------------------------------------------------------------------------------------------------


def image_sizes(recipe: Training, shape: Sequence[int]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the heights and widths of images that the recipe does not resize before a crop, and of others.

    The others are those of a recipe that resizes; of another there are none.
    """
    parts = recipe.transforms
    resize = next((p.size for p in [*recipe.preprocessing, *recipe.evaluation] if isinstance(p, Resize)), 0)
    if not any(part.transform.endswith("crop") for part in parts):
        height, width = shape[1:]
        fitting = [(height, width)] * len(MARGINS)
        return fitting, [(height + height // 3 + a, width + width // 5 + b) for a, b in MARGINS[:RESIZED]]
    side = resize or max(part.size for part in parts if hasattr(part, "size"))
    kinds = [type(part) for part in recipe.preprocessing]
    if SubtractMean in kinds and CenterCrop not in kinds[: kinds.index(SubtractMean)]:
        fitting = [(side + 3, side + 5) if not resize else (side, side)] * len(MARGINS)  # of one size, for the mean
        others = [(side + side // 3, side + side // 3)] * RESIZED
    else:
        more = 0 if resize else 2
        fitting = [(side + a + more, side + b + more) for a, b in MARGINS]
        scales = (1.0, 1.7, 0.6, 1.2)
        sizes = zip(scales, MARGINS, strict=False)
        others = [(int(scale * side) + 9 * a, int(1.3 * side) + 9 * b) for scale, (a, b) in sizes]
    resizes = resize or any(isinstance(part, RandomResizedCrop) for part in parts)
    return fitting, others if resizes else []


def write_images(inputs: Inputs) -> None:
    """Write the image files: for training and validation, a class for each, in PNG and JPEG, one in gray."""
    import numpy as np
    from PIL import Image

    for name, sizes in zip(
        ("fitting", "others"), image_sizes(inputs.recipe, inputs.graph.input.output_shape), strict=True
    ):
        random = np.random.default_rng([inputs.seed, 2])
        for part in ("train", "val") if sizes else ():
            for i, size in enumerate(sizes):
                # Channels of different variance: the eigenvectors of their covariance are well determined.
                noise = random.integers(0, 256, (*size, 3)) * np.array([0.9, 0.6, 0.3]) + 8 * i % 25
                image = Image.fromarray(noise.astype(np.uint8))
                path = inputs.workdir / name / part / f"{i:02}" / f"image.{'jpg' if i % 3 == 1 else 'png'}"
                path.parent.mkdir(parents=True)
                image = image.convert("L") if i == 3 else image
                image.save(path, quality=90, compress_level=1)


# --- the check -------------------------------------------------------------------------------------------------------


def ask(run: TargetRun) -> Result:
    """Ask for the batches of two epochs and of the validation after each; of one where images are resized."""
    found = {}
    for name, epochs in (("fitting", EPOCHS), ("others", 1)):
        if (folder := run.inputs.workdir / name).is_dir():
            output = run.output("images", name)
            run.ask("images", data=str(folder), seed=run.inputs.seed, size=BATCH, epochs=epochs, output=str(output))
            found[name] = ArrayFile(output)
    return Result(found["fitting"], found.get("others"))


def judge(context: Context, results: Mapping[str, Result]) -> Iterator[Comparison]:
    """Judge each target's order and augmentation, then compare the targets' order and pixels."""
    recipe = context.inputs.recipe
    expected = evaluation_images(context.inputs)
    for target, result in results.items():
        for what, problem in _faults(recipe, result.fitting):
            yield Comparison("images", "", what, target, "float32", NAN if problem else 0.0, 0.0, problem, by_spec=True)
        if expected is not None:
            found = result.fitting["validation0.images"]
            bound = NOISE_BOUND
            yield _compare("evaluation by the spec", target, expected, found, _span(recipe), bound, by_spec=True)
    for first, target in pairs(results):
        for name, a, b in (
            ("", results[first].fitting, results[target].fitting),
            ("resized ", results[first].others, results[target].others),
        ):
            if a is None or b is None:
                continue
            for key in [name.partition(".")[0] for name in a if name.endswith(".labels")]:
                part, epoch = key[:-1], int(key[-1]) + 1
                orders = a[f"{key}.labels"], b[f"{key}.labels"]
                problem = _order_fault(*orders, first, epoch)
                what = f"{name}{part} order"
                value = NAN if problem else 0.0
                yield Comparison("images", "", what, target, "float32", value, 0.0, problem)
                if not problem:
                    images = a[f"{key}.images"], b[f"{key}.images"]
                    yield from _compare_pixels(context.inputs, f"{name}{part} images", target, key, *images, orders[0])


def _faults(recipe: Training, arrays: Arrays) -> Iterator[tuple[str, str]]:
    """Yield what of a target's batches is judged by itself, and what is wrong with it."""
    import numpy as np

    count = len(MARGINS)
    for key in (f"{part}{epoch}" for epoch in range(EPOCHS) for part in ("training", "validation")):
        labels, sizes = arrays[f"{key}.labels"], arrays[f"{key}.sizes"].tolist()
        where = f"in epoch {int(key[-1]) + 1}"
        yield "batches", "" if sizes == SIZES else f"are of {sizes} images {where}, and should be of {SIZES}"
        if key.startswith("validation"):
            problem = (
                "" if labels.tolist() == list(range(count)) else "labels are not those of the files in their order"
            )
            yield "validation labels", problem
        else:
            problem = "" if sorted(labels.tolist()) == list(range(count)) else f"do not have each image once {where}"
            yield "training labels", problem
            shuffled = labels.tolist() != list(range(count))
            yield "shuffling", "" if shuffled else f"does not happen {where}: images come in the order of their files"
    first, second = (arrays[f"training{i}.labels"] for i in range(2))
    yield "shuffling", "the order is the same in every epoch" if (first == second).all() else ""
    a, b = (arrays[f"training{i}.images"][np.argsort(labels)] for i, labels in enumerate((first, second)))
    differ = a.shape != b.shape or bool((a != b).any())
    yield "augmentation", "is the same in every epoch" if recipe.augmentation and not differ else ""
    a, b = (arrays[f"validation{i}.images"] for i in range(2))
    same = a.shape == b.shape and bool((a == b).all())
    yield "evaluation", "" if same else "is not the same in every epoch: it draws random numbers"


def _order_fault(a: Array, b: Array, reference: str, epoch: int) -> str:
    if a.shape == b.shape and (a == b).all():
        return ""
    listed = ", ".join(map(str, b[:6].tolist())), ", ".join(map(str, a[:6].tolist()))
    return f"starts with images {listed[0]} in epoch {epoch}, and with {listed[1]} in {reference}"


def _compare_pixels(
    inputs: Inputs, what: str, target: str, key: str, a: Array, b: Array, order: Array
) -> Iterator[Comparison]:
    """Compare the images of an epoch."""
    recipe, shape = inputs.recipe, inputs.graph.input.output_shape
    part = key[:-1]
    sizes = image_sizes(recipe, shape)[1 if what.startswith("resized") else 0]
    resized = _resized_as(recipe, part, sizes, shape)
    noise = part == "training" and any(isinstance(p, PcaNoise) for p in recipe.augmentation)
    bound = EXACT
    if resized == "integers":
        mean = any(isinstance(p, SubtractMean) for p in recipe.preprocessing)
        bound = RESIZE_BOUND + MEAN_BOUND * mean
    elif resized == "floats":
        bound = FLOAT_BOUND
    bound += NOISE_BOUND * noise + (1e-3 / 255 if resized and noise else 0.0) + (1e-6 if resized else 0.0)
    span = _span(recipe)
    yield _compare(what, target, a, b, span, bound, epoch=int(key[-1]) + 1, order=order)
    if resized and a.shape == b.shape:
        bias = float(abs(((b - a) / span).mean()))
        yield Comparison("images", "", f"{what}' mean", target, "float32", bias, BIAS_BOUND)


def _compare(
    what: str,
    target: str,
    a: Array,
    b: Array,
    span: Array,
    bound: float,
    *,
    epoch: int = 1,
    order: Array | None = None,
    by_spec: bool = False,
) -> Comparison:
    """Compare images (N, C, H, W), or crops of them (N, 10, C, H, W), relative to the `span` of each channel."""
    import numpy as np

    problem = hint = ""
    value = NAN
    if a.shape != b.shape:
        problem = f"are {shape_text(b.shape)} in epoch {epoch}, and should be {shape_text(a.shape)}"
    elif b.dtype != np.float32:
        problem = f"are {b.dtype}, and should be float32"
    elif not np.isfinite(b).all():
        problem = "are not finite"
    else:
        apart = abs((a - b) / span).reshape(len(a), -1).max(axis=1)
        value = float(apart.max())
        worst = int(apart.argmax())
        if value > bound:
            which = worst if order is None else int(order[worst])
            many = int((apart > bound).sum())
            look = _hint(a[worst], b[worst]) or looks_like(a[worst], b[worst], None)
            hint = f"in {many} of {len(a)} images of epoch {epoch}, most in image {which}" + (
                f": {look}" if look else ""
            )
    return Comparison("images", "", what, target, "float32", value, bound, problem, looks_like=hint, by_spec=by_spec)


def _hint(a: Array, b: Array) -> str:
    """Return what image `b` is of image `a`: mirrored, upside down, another order of channels or crops."""
    near = 1e-5 * float(abs(a).max())
    for name, turned in (
        ("mirrored", a[..., ::-1]),
        ("upside down", a[..., ::-1, :]),
        ("channels in reverse order", a[..., ::-1, :, :]),
    ):
        if abs(turned - b).max() <= near:
            return name
    return ""


def _span(recipe: Training) -> Array:
    """Return what 255 gray levels are in the values that the model reads: a number, or one for each channel."""
    import numpy as np

    span: Any = np.float32(1.0 if any(isinstance(p, Rescale) for p in recipe.preprocessing) else 255.0)
    for part in recipe.preprocessing:
        if isinstance(part, Normalize):
            span = span / np.abs(np.array(part.std, np.float32)).reshape(-1, 1, 1)
    return np.asarray(span)


def _resized_as(recipe: Training, part: str, sizes: Sequence[tuple[int, int]], shape: Sequence[int]) -> str:
    """Return whether any image is resized as `integers` or as `floats`, in training or validation; empty if none is."""
    steps = [*recipe.preprocessing, *(recipe.augmentation if part == "training" else recipe.evaluation)]
    if not any(step.transform.endswith("crop") for step in recipe.transforms):
        return "integers" if any(size != tuple(shape[1:]) for size in sizes) else ""
    sides = set(sizes)
    is_float = False
    for step in steps:
        if isinstance(step, RandomResizedCrop) or (
            isinstance(step, Resize) and any(min(size) != step.size for size in sides)
        ):
            return "floats" if is_float else "integers"
        is_float = is_float or isinstance(step, Rescale | SubtractMean | Normalize)
        if isinstance(step, CenterCrop | TenCrop | RandomCrop):
            sides = {(step.size, step.size)}
    return ""


# --- evaluation in NumPy ---------------------------------------------------------------------------------------------


def evaluation_images(inputs: Inputs) -> NDArray[Any] | None:
    """Return the fitting validation images as the spec has them prepared; None where it resizes them."""
    import numpy as np

    recipe, shape = inputs.recipe, inputs.graph.input.output_shape
    sizes = image_sizes(recipe, shape)[0]
    if _resized_as(recipe, "validation", sizes, shape):
        return None
    folder = inputs.workdir / "fitting"
    mean: Any = 0.0
    if any(isinstance(step, SubtractMean) for step in recipe.preprocessing):
        until = [type(step) for step in recipe.preprocessing].index(SubtractMean)
        files = sorted((folder / "train").rglob("image.*"))
        mean = np.mean([_transformed(path, recipe.preprocessing[:until], shape) for path in files], axis=0)
    crops = [step for step in recipe.augmentation if isinstance(step, RandomCrop | RandomResizedCrop)]
    implied = [CenterCrop.model_construct(transform="center_crop", size=step.size) for step in crops]
    steps = [*recipe.preprocessing, *(recipe.evaluation or implied)]
    files = sorted((folder / "val").rglob("image.*"))
    return np.stack([_transformed(path, steps, shape, mean) for path in files])


def _transformed(path: Path, steps: Sequence[Any], shape: Sequence[int], mean: Any = 0.0) -> NDArray[Any]:
    """Return an image file as (C, H, W), transformed by steps that are not random and do not resize it."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as file:
        pixels = np.asarray(file.convert("RGB").convert("L" if shape[0] == 1 else "RGB"), np.float64)
    image = pixels.reshape(*pixels.shape[:2], shape[0]).transpose(2, 0, 1)
    for step in steps:
        if isinstance(step, CenterCrop):
            image = _center(image, step.size)
        elif isinstance(step, TenCrop):
            n = step.size
            sides = (image, image[..., ::-1])
            crops = [
                crop
                for side in sides
                for crop in (
                    side[:, :n, :n],
                    side[:, :n, -n:],
                    side[:, -n:, :n],
                    side[:, -n:, -n:],
                    _center(side, n),
                )
            ]
            image = np.stack(crops)
        elif isinstance(step, Rescale):
            image = image / 255
        elif isinstance(step, SubtractMean):
            image = image - mean
        elif isinstance(step, Normalize):
            image = (image - np.reshape(step.mean, (-1, 1, 1))) / np.reshape(step.std, (-1, 1, 1))
    return image


def _center(image: NDArray[Any], size: int) -> NDArray[Any]:
    top, left = (round((side - size) / 2) for side in image.shape[-2:])
    return image[..., top : top + size, left : left + size]
