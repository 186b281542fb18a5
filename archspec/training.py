"""The recipe of a training: loss, optimizer and schedule, each defined once for all targets."""

from __future__ import annotations

from math import cos, pi
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

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


class Training(_Part):
    """How the network is trained. `cross_entropy` reads the scores before any softmax, and is a mean over the batch."""

    loss: Literal["cross_entropy"] = "cross_entropy"
    batch_size: Count = 128
    epochs: Count = 10
    optimizer: AnyOptimizer
    schedule: AnySchedule = Constant.model_construct(schedule="constant", warmup=0)
