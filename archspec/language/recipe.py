"""Training recipes: loss, optimizer, schedule and transforms, each defined once for all targets."""

from __future__ import annotations

from math import cos, pi
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from archspec.language.names import tagged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archspec.language.ops.input import Input
    from archspec.language.source import Diagnostic, Source

Rate = Annotated[float, Field(gt=0, le=1e6)]
Decay = Annotated[float, Field(ge=0, le=1e6)]
Gamma = Annotated[float, Field(gt=0, le=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Beta = Annotated[float, Field(gt=0, lt=1)]
Betas = Annotated[list[Beta], Field(min_length=2, max_length=2)]
Count = Annotated[int, Field(ge=1, le=10**9)]


class _Part(BaseModel):
    """The base of all parts of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


# --- optimizers ------------------------------------------------------------------------------------------------------


class Sgd(_Part):
    """b <- momentum b + g + weight_decay w; w <- w - lr b, as torch.optim.SGD.

    With `nesterov`, w <- w - lr (g + weight_decay w + momentum b). Trap: in Caffe and Keras the learning rate is inside
    the velocity (`caffe_sgd`), which is another rule from the first change of the rate on.
    """

    optimizer: Literal["sgd"] = "sgd"
    lr: Rate
    momentum: Fraction = 0.0
    weight_decay: Decay = 0.0
    nesterov: bool = False

    @property
    def states(self) -> int:
        """The number of state tensors for each parameter."""
        return 1 if self.momentum else 0


class CaffeSgd(_Part):
    """v <- momentum v - lr (g + weight_decay w); w <- w + v: Krizhevsky et al. 2012, section 5, and Caffe.

    Trap: torch.optim.SGD (`sgd`) keeps the learning rate out of the velocity, and is another rule from the first change
    of the rate on. Keras' SGD keeps it in, but its `weight_decay` is decoupled: another rule from the first step on.
    """

    optimizer: Literal["caffe_sgd"] = "caffe_sgd"
    lr: Rate
    momentum: Fraction = 0.0
    weight_decay: Decay = 0.0

    @property
    def states(self) -> int:
        """The number of state tensors for each parameter."""
        return 1 if self.momentum else 0


class Adam(_Part):
    """m <- b1 m + (1 - b1) g, s <- b2 s + (1 - b2) g^2; w <- w - lr m' / (sqrt(s') + eps), with m' and s' unbiased.

    Kingma and Ba 2015, algorithm 1, as torch.optim.Adam; `weight_decay` w is part of g. Trap: Keras' Adam adds its
    epsilon before the bias of s is taken out.
    """

    optimizer: Literal["adam"] = "adam"
    lr: Rate = 1e-3
    betas: Betas = [0.9, 0.999]
    eps: Rate = 1e-8
    weight_decay: Decay = 0.0

    @property
    def states(self) -> int:
        """The number of state tensors for each parameter."""
        return 2


class AdamW(Adam):
    """Adam, after w <- w - lr weight_decay w: Loshchilov and Hutter 2019, as torch.optim.AdamW."""

    optimizer: Literal["adamw"] = "adamw"  # type: ignore[assignment]
    weight_decay: Decay = 1e-2


# --- schedules -------------------------------------------------------------------------------------------------------


class _Schedule(_Part):
    """The learning rate by epoch; in the first `warmup` epochs it rises to its full value in equal steps."""

    warmup: Annotated[int, Field(ge=0, le=10_000)] = 0

    def after(self, epoch: int) -> float:
        """Return the factor of the learning rate `epoch` epochs after the warm-up."""
        raise NotImplementedError

    def factor(self, epoch: int) -> float:
        """Return the factor of the learning rate in an epoch, counted from 0."""
        return (epoch + 1) / (self.warmup + 1) if epoch < self.warmup else self.after(epoch - self.warmup)


class Constant(_Schedule):
    """The learning rate is constant."""

    schedule: Literal["constant"] = "constant"

    def after(self, epoch: int) -> float:
        return 1.0


class Step(_Schedule):
    """The learning rate times `gamma` every `step_size` epochs: torch's StepLR, Caffe's lr_policy "step"."""

    schedule: Literal["step"] = "step"
    step_size: Count
    gamma: Gamma = 0.1

    def after(self, epoch: int) -> float:
        return self.gamma ** (epoch // self.step_size)


class MultiStep(_Schedule):
    """The learning rate times `gamma` at each of `milestones`: torch's MultiStepLR."""

    schedule: Literal["multi_step"] = "multi_step"
    milestones: Annotated[list[Count], Field(min_length=1, max_length=1000)]
    gamma: Gamma = 0.1

    def after(self, epoch: int) -> float:
        return self.gamma ** sum(epoch >= milestone for milestone in self.milestones)


class Exponential(_Schedule):
    """The learning rate times `gamma` every epoch: torch's ExponentialLR."""

    schedule: Literal["exponential"] = "exponential"
    gamma: Gamma

    def after(self, epoch: int) -> float:
        return self.gamma**epoch


class Cosine(_Schedule):
    """The learning rate times (1 + cos(pi epoch / t_max)) / 2: torch's CosineAnnealingLR, down to 0."""

    schedule: Literal["cosine"] = "cosine"
    t_max: Count

    def after(self, epoch: int) -> float:
        return (1 + cos(pi * epoch / self.t_max)) / 2


class ReduceOnPlateau(_Part):
    """The learning rate times `factor` if `monitor` has not improved by `threshold` in over `patience` epochs.

    torch's ReduceLROnPlateau with `threshold_mode="abs"`. Trap: Keras' `patience` is one more.
    """

    schedule: Literal["reduce_on_plateau"] = "reduce_on_plateau"
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    patience: Annotated[int, Field(ge=0, le=10**6)] = 10
    threshold: Decay = 1e-4
    monitor: Literal["validation_error", "validation_loss"] = "validation_error"


# --- images ----------------------------------------------------------------------------------------------------------


def _in_order(pair: list[float]) -> list[float]:
    if pair[0] > pair[1]:
        raise PydanticCustomError("wrong-value", "must have its lower end first")
    return pair


Pixels = Annotated[int, Field(ge=1, le=2**15)]
Range = Annotated[
    list[Annotated[float, Field(gt=0, le=1e3)]], Field(min_length=2, max_length=2), AfterValidator(_in_order)
]
Channels = Annotated[list[Annotated[float, Field(ge=-1e6, le=1e6)]], Field(min_length=1, max_length=64)]


class Resize(_Part):
    """The shorter side to `size` pixels, bilinear with antialiasing: torchvision's Resize."""

    transform: Literal["resize"] = "resize"
    size: Pixels


class CenterCrop(_Part):
    """The center `size` x `size` pixels."""

    transform: Literal["center_crop"] = "center_crop"
    size: Pixels


class RandomCrop(_Part):
    """Random `size` x `size` pixels of the image with `padding` zeros around it."""

    transform: Literal["random_crop"] = "random_crop"
    size: Pixels
    padding: Annotated[int, Field(ge=0, le=2**15)] = 0


class RandomResizedCrop(_Part):
    """A part with `scale` of the image's area, width by height within `ratio`, made `size` x `size`: torchvision's.

    The area and the logarithm of the aspect ratio are uniform. The first of ten draws that fits is used, or the center.
    """

    transform: Literal["random_resized_crop"] = "random_resized_crop"
    size: Pixels
    scale: Range = [0.08, 1.0]
    ratio: Range = [3 / 4, 4 / 3]


class HorizontalFlip(_Part):
    """The reflected image with probability `p`."""

    transform: Literal["horizontal_flip"] = "horizontal_flip"
    p: Annotated[float, Field(ge=0, le=1)] = 0.5


class PcaNoise(_Part):
    """To every pixel [p1 p2 p3] [a1 l1, a2 l2, a3 l3], with a ~ N(0, std^2) drawn once an image.

    Krizhevsky et al. 2012, section 4.1; p and l are the eigenvectors and eigenvalues of the covariance of the training
    set's colors. Trap: l has the square of the pixels' unit, which the paper does not give: here white is 1.
    """

    transform: Literal["pca_noise"] = "pca_noise"
    std: Annotated[float, Field(gt=0, le=1e3)] = 0.1


class TenCrop(_Part):
    """The corners and the center, `size` x `size`, and their reflections; their probabilities are averaged.

    Krizhevsky et al. 2012, section 4.1.
    """

    transform: Literal["ten_crop"] = "ten_crop"
    size: Pixels


class Rescale(_Part):
    """Scale values from 0..255 to 0..1: torchvision's ToDtype with scale=True."""

    transform: Literal["rescale"] = "rescale"


class SubtractMean(_Part):
    """Subtract the mean image of the training set (Krizhevsky et al. 2012, section 2)."""

    transform: Literal["subtract_mean"] = "subtract_mean"


class Normalize(_Part):
    """(x - mean) / std for each channel, in the unit of the values."""

    transform: Literal["normalize"] = "normalize"
    mean: Channels
    std: Channels


# --- the recipe ------------------------------------------------------------------------------------------------------

AnyOptimizer = Annotated[
    Adam | AdamW | CaffeSgd | Sgd,
    Field(discriminator="optimizer"),
    BeforeValidator(lambda value: tagged(value, "optimizer", "{sgd: {lr: 0.01, momentum: 0.9}}", {})),
]
AnySchedule = Annotated[
    Constant | Cosine | Exponential | MultiStep | ReduceOnPlateau | Step,
    Field(discriminator="schedule"),
    BeforeValidator(lambda value: tagged(value, "schedule", "{step: {step_size: 30, gamma: 0.1}}", {})),
]


# Transforms whose first attribute may be given without its name, as in {resize: 256}.
BARE = {
    **dict.fromkeys(("resize", "center_crop", "random_crop", "random_resized_crop", "ten_crop"), "size"),
    "horizontal_flip": "p",
    "pca_noise": "std",
}


def _transform(example: str) -> BeforeValidator:
    return BeforeValidator(lambda value: tagged(value, "transform", example, BARE))


Preprocessing = Annotated[
    CenterCrop | Normalize | Rescale | Resize | SubtractMean,
    Field(discriminator="transform"),
    _transform("{resize: 256}"),
]
Augmentation = Annotated[
    HorizontalFlip | PcaNoise | RandomCrop | RandomResizedCrop,
    Field(discriminator="transform"),
    _transform("{random_crop: {size: 224, padding: 4}}"),
]
Evaluation = Annotated[
    CenterCrop | Resize | TenCrop, Field(discriminator="transform"), _transform("{center_crop: 224}")
]


class Training(_Part):
    """A training recipe. `cross_entropy` is that of logits, the mean over the batch.

    `preprocessing` applies to every image, then `augmentation` to training images and `evaluation` to validation
    images, by default a center crop if training uses a random crop. Without a crop, images are resized to the input.
    """

    loss: Literal["cross_entropy"] = "cross_entropy"
    batch_size: Count = 128
    epochs: Count = 10
    optimizer: AnyOptimizer
    schedule: AnySchedule = Constant.model_construct(schedule="constant", warmup=0)
    preprocessing: Annotated[list[Preprocessing], Field(max_length=16)] = []
    augmentation: Annotated[list[Augmentation], Field(max_length=16)] = []
    evaluation: Annotated[list[Evaluation], Field(max_length=16)] = []

    @property
    def transforms(self) -> list[Any]:
        """All transforms of images."""
        return [*self.preprocessing, *self.augmentation, *self.evaluation]


# --- checks against the network's input ------------------------------------------------------------------------------

SECTIONS = ("preprocessing", "augmentation", "evaluation")


def check_images(recipe: Training | None, input: Input, source: Source) -> Iterator[Diagnostic]:
    """Yield the errors of transforms that do not produce images of the network's input shape."""
    if recipe is None:
        return
    if input.features is not None:
        message = "the training programs read images, and the input is a vector: leave training out"
        yield source.error("images", message, ("training",), key=True)
        return
    parts = [(section, i, part) for section in SECTIONS for i, part in enumerate(getattr(recipe, section))]
    crop = any(part.transform.endswith("crop") for _, _, part in parts)
    reported = set()
    paths = SECTIONS[1:] if recipe.evaluation else SECTIONS[1:2]  # by default evaluation crops to the same size
    for path in paths if crop else ():
        sized = [at for at in parts if at[0] in (SECTIONS[0], path) and hasattr(at[2], "size")]
        if not any(part.transform.endswith("crop") for _, _, part in sized):
            which = "training" if path == "augmentation" else "validation"
            section_loc = ("training", path) if getattr(recipe, path) else ("training",)
            message = f"{which} images are not cropped, and may be of any size: add a crop"
            yield source.error("images", message, section_loc)
        elif {sized[-1][2].size} != {input.height, input.width} and sized[-1][:2] not in reported:
            section, i, part = sized[-1]
            reported.add((section, i))
            message = f"the images are {part.size} x {part.size}, but the input is {input.height} x {input.width}"
            yield source.error("images", message, ("training", section, i))
    for section, i, part in parts:
        where = ("training", section, i)
        if isinstance(part, Normalize) and {len(part.mean), len(part.std)} != {input.channels}:
            message = f"normalize needs a mean and a std for each of the {input.channels} channels"
            yield source.error("images", message, where)
        if isinstance(part, Normalize) and 0 in part.std:
            yield source.error("images", "normalize divides by std, which contains 0", where)
        if isinstance(part, PcaNoise) and input.channels != 3:
            message = f"pca_noise needs 3 color channels, but the input has {input.channels}"
            yield source.error("images", message, where)
        if part.transform == "ten_crop" and i + 1 < len(recipe.evaluation):
            yield source.error("images", "ten_crop must be last: it makes ten images of one", where)
