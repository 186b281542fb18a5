"""A target: a framework that code is generated for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from archspec.targets.recipe_view import RecipeView
from archspec.targets.view import ModelView


class Launch(Protocol):
    """How the training program is started in several processes."""

    def __call__(self, backend: str, rank: int, ports: list[int]) -> tuple[dict[str, str], list[str]]:
        """Return the environment variables and the arguments of one process; there is a port for each."""


@dataclass(frozen=True)
class Target:
    """Everything about a target that code outside its own file and templates needs."""

    name: str  # on the command line and of its folder of templates, e.g. `torch`
    title: str  # e.g. `PyTorch`
    folder: str  # of its generated files, below the spec's
    extra: str  # of the distribution, with the framework
    worker: str  # in archspec/workers
    model: type[ModelView]
    recipe: type[RecipeView] | None = None  # None: the target runs forward only
    backends: tuple[str, ...] = ()
    places: bool = False  # whether it has a model-parallel placement
    environment: Callable[[str], dict[str, str]] = lambda backend: {}  # of a process that runs a backend
    launch: Launch | None = None  # None: the training program runs in one process
    launched: tuple[str, ...] = ()  # the backends that `launch` supports; an empty one is the default

    @property
    def channels_last(self) -> bool:
        """Whether its feature maps are (N, H, W, C), not (N, C, H, W)."""
        return self.model.channels_last

    @property
    def trains(self) -> bool:
        """Whether it has a training program."""
        return self.recipe is not None

    @property
    def engine(self) -> str:
        """The folder of its training engine in archspec/engines."""
        return self.name

    def template(self, name: str) -> str:
        """Return the path of one of its templates."""
        return f"{self.name}/{name}"


def split_variant(name: str) -> tuple[str, str]:
    """Return target and backend of a variant: `keras` and `jax` for `keras-jax`; the default backend is empty."""
    target, _, backend = name.partition("-")
    return target, backend
