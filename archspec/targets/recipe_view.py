"""A training recipe as the templates read it: plain data, with every decision made."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

from archspec.language.recipe import (
    CaffeSgd,
    Constant,
    PcaNoise,
    RandomCrop,
    RandomResizedCrop,
    ReduceOnPlateau,
    Sgd,
    Training,
)
from archspec.targets.literals import literal
from archspec.targets.view import ModelView


class Step(NamedTuple):
    """One transform of images: the macro that writes it, and its attributes."""

    name: str
    attributes: Any = None


class RecipeView:
    """A training recipe, and the model that it trains, as a target's recipe template reads them."""

    def __init__(self, model: ModelView, training: Training) -> None:
        self.model = model
        self.training = training
        self.optimizer = training.optimizer
        self.schedule: Any = training.schedule

    @property
    def summary(self) -> str:
        """The recipe as a sentence."""
        words = [self.training.loss.replace("_", " "), *_words(self.optimizer), *_words(self.schedule)]
        words[0] = words[0].capitalize()
        return f"{', '.join(words)}; {self.training.epochs} epochs of batches of {self.training.batch_size}."

    @property
    def scheduled(self) -> bool:
        """Whether the learning rate changes."""
        return not isinstance(self.schedule, Constant) or self.schedule.warmup > 0

    @property
    def has_momentum(self) -> bool:
        """Whether the optimizer's rule has a momentum; Caffe's without one is plain SGD."""
        o = self.optimizer
        return isinstance(o, Sgd) or (isinstance(o, CaffeSgd) and o.momentum > 0)

    @property
    def monitor(self) -> str | None:
        """The metric that `reduce_on_plateau` monitors; None for other schedules."""
        return self.schedule.monitor if isinstance(self.schedule, ReduceOnPlateau) else None

    @property
    def expects_probabilities(self) -> bool:
        """Whether the model ends in a softmax or sigmoid, which Keras' losses undo on TensorFlow."""
        return self.model.graph.output.op.probabilities  # type: ignore[union-attr]

    # --- transforms of images ---

    @cached_property
    def prepare(self) -> list[Step]:
        """The transforms of every image."""
        return self._until(lambda part: False)

    @cached_property
    def measured(self) -> list[Step]:
        """The transforms before the statistics of the training images are measured; empty if none are needed."""
        return self._until(lambda part: part.transform == "subtract_mean") if self.needs_statistics else []

    @property
    def augment(self) -> list[Step]:
        """The transforms of training images."""
        steps = []
        for part in self.training.augmentation:
            noise = {"std": part.std, "pixel_max": self._pixel_max} if isinstance(part, PcaNoise) else None
            steps.append(Step(part.transform, noise or part))
        return steps

    @property
    def evaluate(self) -> list[Step]:
        """The transforms of validation images; by default a center crop if training uses a random crop."""
        crops = [part for part in self.training.augmentation if isinstance(part, RandomCrop | RandomResizedCrop)]
        implied = [Step("center_crop", part) for part in crops]
        return [Step(part.transform, part) for part in self.training.evaluation] or implied

    @property
    def needs_statistics(self) -> bool:
        """Whether the mean image or the colors of the training images are needed."""
        return bool({part.transform for part in self.training.transforms} & {"subtract_mean", "pca_noise"})

    @property
    def _pixel_max(self) -> float:
        """The value of white where color noise is added."""
        return 1.0 if any(part.transform == "rescale" for part in self.training.preprocessing) else 255.0

    def _until(self, ends: Callable[[Any], bool]) -> list[Step]:
        if len(self.model.graph.input.output_shape) != 3:
            return []  # vectors are no images
        channels, height, width = self.model.graph.input.output_shape
        crops = any(part.transform.endswith("crop") for part in self.training.transforms)
        to_input = Step("resize_to", (height, width))  # without a crop, images are resized to the input
        steps, is_float = [], False
        for part in self.training.preprocessing:
            if ends(part):
                break
            if part.transform in ("subtract_mean", "normalize") and not is_float:
                steps.append(Step("to_float"))
            is_float = is_float or part.transform in ("rescale", "subtract_mean", "normalize")
            is_input = part.transform == "resize" and not crops and part.size == height == width
            steps.append(to_input if is_input else Step(part.transform, part))
        if not crops and to_input not in steps:
            steps.insert(0, to_input)
        color = {1: [Step("grayscale")], 3: [Step("rgb")]}.get(channels, [])
        return [*color, *steps, *([] if is_float else [Step("to_float")])]


def _words(part: Any) -> list[str]:
    """Return an optimizer or a schedule as words: its name, and its attributes that are not at their default."""
    tag = "optimizer" if "optimizer" in type(part).model_fields else "schedule"
    fields = [field for field in type(part).model_fields if field not in (tag, "warmup")]
    fields += ["warmup"] if "warmup" in type(part).model_fields else []
    words = [
        f"{field} {literal(getattr(part, field))}"
        for field in fields
        if getattr(part, field) != type(part).model_fields[field].default
    ]
    return [" ".join([getattr(part, tag), *words])] if getattr(part, tag) != "constant" or words else []
