"""The recipe of a training: loss, optimizer, schedule and images, each defined once for all targets."""

from __future__ import annotations

from math import cos, pi
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from archspec.names import tagged

Rate = Annotated[float, Field(gt=0, le=1e6)]
Decay = Annotated[float, Field(ge=0, le=1e6)]
Gamma = Annotated[float, Field(gt=0, le=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Beta = Annotated[float, Field(gt=0, lt=1)]
Betas = Annotated[list[Beta], Field(min_length=2, max_length=2)]
Count = Annotated[int, Field(ge=1, le=10**9)]


class _Part(BaseModel):
    """What a part of a recipe is written with."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


# --- optimizers ------------------------------------------------------------------------------------------------------


class Sgd(_Part):
    """v <- momentum v - lr (g + weight_decay w); w <- w + v: Krizhevsky et al. 2012, section 5, and Caffe.

    Trap: torch.optim.SGD keeps the rate out of the velocity, and is another rule from the first change of the rate on.
    Keras' SGD keeps it in, but its `weight_decay` is decoupled: another rule from the first step on.
    """

    optimizer: Literal["sgd"] = "sgd"
    lr: Rate
    momentum: Fraction = 0.0
    weight_decay: Decay = 0.0

    @property
    def states(self) -> int:
        """How many tensors it keeps for each parameter."""
        return 1 if self.momentum else 0


class TorchSgd(_Part):
    """b <- momentum b + g + weight_decay w; w <- w - lr b: torch.optim.SGD, which divides no past step by a new rate.

    With `nesterov`, w <- w - lr (g + weight_decay w + momentum b).
    """

    optimizer: Literal["torch_sgd"] = "torch_sgd"
    lr: Rate
    momentum: Fraction = 0.0
    weight_decay: Decay = 0.0
    nesterov: bool = False

    @property
    def states(self) -> int:
        """How many tensors it keeps for each parameter."""
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
        """How many tensors it keeps for each parameter."""
        return 2


class AdamW(Adam):
    """Adam, after w <- w - lr weight_decay w: Loshchilov and Hutter 2019, as torch.optim.AdamW."""

    optimizer: Literal["adamw"] = "adamw"  # type: ignore[assignment]
    weight_decay: Decay = 1e-2


# --- schedules -------------------------------------------------------------------------------------------------------


class _Schedule(_Part):
    """The rate of an epoch; before it has its full height, it rises to it over `warmup` epochs in equal steps."""

    warmup: Annotated[int, Field(ge=0, le=10_000)] = 0

    def after(self, epoch: int) -> float:
        """Return the factor of the rate `epoch` epochs after the warm-up."""
        raise NotImplementedError

    def factor(self, epoch: int) -> float:
        """Return the factor of the rate in an epoch, counted from 0."""
        return (epoch + 1) / (self.warmup + 1) if epoch < self.warmup else self.after(epoch - self.warmup)


class Constant(_Schedule):
    """The rate as it is."""

    schedule: Literal["constant"] = "constant"

    def after(self, epoch: int) -> float:
        return 1.0


class Step(_Schedule):
    """The rate times `gamma` every `step_size` epochs: torch's StepLR, Caffe's lr_policy "step"."""

    schedule: Literal["step"] = "step"
    step_size: Count
    gamma: Gamma = 0.1

    def after(self, epoch: int) -> float:
        return self.gamma ** (epoch // self.step_size)


class MultiStep(_Schedule):
    """The rate times `gamma` at each of `milestones`: torch's MultiStepLR."""

    schedule: Literal["multi_step"] = "multi_step"
    milestones: Annotated[list[Count], Field(min_length=1, max_length=1000)]
    gamma: Gamma = 0.1

    def after(self, epoch: int) -> float:
        return self.gamma ** sum(epoch >= milestone for milestone in self.milestones)


class Exponential(_Schedule):
    """The rate times `gamma` every epoch: torch's ExponentialLR."""

    schedule: Literal["exponential"] = "exponential"
    gamma: Gamma

    def after(self, epoch: int) -> float:
        return self.gamma**epoch


class Cosine(_Schedule):
    """The rate times (1 + cos(pi epoch / t_max)) / 2: torch's CosineAnnealingLR, down to 0."""

    schedule: Literal["cosine"] = "cosine"
    t_max: Count

    def after(self, epoch: int) -> float:
        return (1 + cos(pi * epoch / self.t_max)) / 2


class ReduceOnPlateau(_Part):
    """The rate times `factor` once `monitor` is no better, by more than `threshold`, for more than `patience` epochs.

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
    """The middle `size` x `size` pixels."""

    transform: Literal["center_crop"] = "center_crop"
    size: Pixels


class RandomCrop(_Part):
    """Any `size` x `size` pixels, of the image with `padding` zeros around it."""

    transform: Literal["random_crop"] = "random_crop"
    size: Pixels
    padding: Annotated[int, Field(ge=0, le=2**15)] = 0


class RandomResizedCrop(_Part):
    """A part with `scale` of the image's area, width by height within `ratio`, made `size` x `size`: torchvision's.

    Area and the shape's logarithm are uniform. Ten are drawn, the first that fits is taken; if none does, the middle.
    """

    transform: Literal["random_resized_crop"] = "random_resized_crop"
    size: Pixels
    scale: Range = [0.08, 1.0]
    ratio: Range = [3 / 4, 4 / 3]


class HorizontalFlip(_Part):
    """The image, or with probability `p` its reflection."""

    transform: Literal["horizontal_flip"] = "horizontal_flip"
    p: Annotated[float, Field(ge=0, le=1)] = 0.5


class PcaNoise(_Part):
    """To every pixel [p1 p2 p3] [a1 l1, a2 l2, a3 l3], with a ~ N(0, std^2) drawn once an image.

    Krizhevsky et al. 2012, section 4.1; p and l are the eigenvectors and eigenvalues of the covariance of the training
    set's colours. Trap: l is the square of their unit, and the paper does not say which: it is 1 for white here.
    """

    transform: Literal["pca_noise"] = "pca_noise"
    std: Annotated[float, Field(gt=0, le=1e3)] = 0.1


class TenCrop(_Part):
    """The corners and the middle, `size` x `size`, and their reflections, whose probabilities are averaged.

    Krizhevsky et al. 2012, section 4.1.
    """

    transform: Literal["ten_crop"] = "ten_crop"
    size: Pixels


class Rescale(_Part):
    """Values of 0 to 1 in place of 0 to 255: torchvision's ToDtype with scale=True."""

    transform: Literal["rescale"] = "rescale"


class SubtractMean(_Part):
    """Less the mean of the training set, pixel for pixel (Krizhevsky et al. 2012, section 2)."""

    transform: Literal["subtract_mean"] = "subtract_mean"


class Normalize(_Part):
    """(x - mean) / std, channel for channel, in the values' own unit."""

    transform: Literal["normalize"] = "normalize"
    mean: Channels
    std: Channels


# --- the recipe ------------------------------------------------------------------------------------------------------

AnyOptimizer = Annotated[
    Adam | AdamW | Sgd | TorchSgd,
    Field(discriminator="optimizer"),
    BeforeValidator(lambda value: tagged(value, "optimizer", "{sgd: {lr: 0.01, momentum: 0.9}}")),
]
AnySchedule = Annotated[
    Constant | Cosine | Exponential | MultiStep | ReduceOnPlateau | Step,
    Field(discriminator="schedule"),
    BeforeValidator(lambda value: tagged(value, "schedule", "{step: {step_size: 30, gamma: 0.1}}")),
]


def _transform(value: Any) -> Any:
    return tagged(value, "transform", "{resize: 256}", "size")


Preprocessing = Annotated[
    CenterCrop | Normalize | Rescale | Resize | SubtractMean,
    Field(discriminator="transform"),
    BeforeValidator(_transform),
]
Augmentation = Annotated[
    HorizontalFlip | PcaNoise | RandomCrop | RandomResizedCrop,
    Field(discriminator="transform"),
    BeforeValidator(_transform),
]
Evaluation = Annotated[CenterCrop | Resize | TenCrop, Field(discriminator="transform"), BeforeValidator(_transform)]


class Training(_Part):
    """How the network is trained. `cross_entropy` reads the scores before any softmax, and is a mean over the batch.

    `preprocessing` is done to every image, after it `augmentation` to those of training and `evaluation` to the others:
    unless said, the middle where training has a random crop. Where nothing crops, images are resized to what the
    network reads.
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
        """All that is done to images: to every one, in training, and in evaluation."""
        return [*self.preprocessing, *self.augmentation, *self.evaluation]

    @property
    def ten_crops(self) -> bool:
        """Whether ten crops of an image are evaluated."""
        return any(part.transform == "ten_crop" for part in self.evaluation)
