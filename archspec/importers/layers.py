"""The layers of an imported model, before they are folded into blocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int, ...]


@dataclass(eq=False)
class Layer:
    """A layer: its place in the author's module tree, its op with attributes, and what it reads."""

    path: tuple[str, ...]  # e.g. ("layer1", "0", "conv1")
    op: str
    fields: dict[str, Any]
    reads: list[Layer | None]  # None is the network's input
    shape: Shape  # of the output, without the batch
    weights: dict[str, tuple[str, Shape]] = field(default_factory=dict)  # by parameter: the author's name, and a shape
    classes: tuple[str, ...] = ()  # of the modules on the path


@dataclass(frozen=True)
class Unsupported:
    """An operator that no op of the language is."""

    target: str
    path: str
    line: str
    why: str = ""


class UnsupportedModelError(Exception):
    """Raised for a model with operators that the language lacks: all of them, with the number of all operators."""

    def __init__(self, found: list[Unsupported], total: int) -> None:
        super().__init__(f"{len(found)} of {total} operators are not supported")
        self.found, self.total = found, total


class ImportFailedError(Exception):
    """Raised where a model cannot be made or captured."""


class MissingPackageError(ImportFailedError):
    """Raised without PyTorch, or without the package that the model is of."""
