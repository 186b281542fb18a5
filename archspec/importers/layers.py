"""The layers of an imported model, before they are folded into blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from archspec.language.ops import OPS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]

Shape = tuple[int, ...]


class Origin(NamedTuple):
    """Where a weight of an imported model comes from, and how it gets PyTorch's layout.

    The array called `key` is reshaped to `before`, its axes are put in the order of `axes`, and it is reshaped to
    `shape`. Without a key it is `constant` everywhere: the model's framework leaves it out.
    """

    key: str
    shape: Shape
    before: Shape | None = None
    axes: tuple[int, ...] | None = None
    constant: float = 1.0

    def canonical(self, arrays: Mapping[str, Array]) -> Array:
        """Return the weight in PyTorch's layout."""
        import numpy as np

        if not self.key:
            return np.full(self.shape, self.constant)
        array = np.asarray(arrays[self.key])
        array = array if self.before is None else array.reshape(self.before)
        return (array if self.axes is None else array.transpose(self.axes)).reshape(self.shape)


@dataclass(eq=False)
class Layer:
    """A layer: its place in the author's module tree, its op with attributes, and what it reads."""

    path: tuple[str, ...]  # e.g. ("layer1", "0", "conv1")
    op: str
    fields: dict[str, Any]
    reads: list[Layer | None]  # None is the network's input
    shape: Shape  # of the output, without the batch
    weights: dict[str, Origin] = field(default_factory=dict)  # by parameter
    classes: tuple[str, ...] = ()  # of the modules on the path


@dataclass
class Captured:
    """What an importer reads of a model: its layers, before they are folded, and its weights.

    `input` is the spec's, e.g. {"channels": 3, ...}; `parameters` are counted by the model's framework, None where
    nothing has counted them; `weights` has arrays by the author's names.
    """

    name: str
    provenance: str  # one sentence
    input: dict[str, int]
    layers: list[Layer]
    parameters: int | None = None
    weights: Mapping[str, Array] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # lines for the reader of the spec


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


class NotSupportedError(Exception):
    """Raised for an operator that is no op of the language."""


class UnknownInputError(Exception):
    """Raised for an operator that reads what an unsupported one gives."""


class LayerList(list[Layer]):
    """The layers of a model as they are read, each of a path of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._taken: Counter[tuple[str, ...]] = Counter()

    def add(
        self,
        path: tuple[str, ...],
        op: str,
        fields: dict[str, Any],
        reads: list[Layer | None],
        shape: Shape,
        weights: Mapping[str, Origin] | None = None,
        classes: tuple[str, ...] = (),
    ) -> Layer:
        """Append a layer and return it; a path that there is already gets a number."""
        self._taken[path] += 1
        if (count := self._taken[path]) > 1:
            path = (*path[:-1], f"{path[-1]}_{count}")
            self._taken[path] += 1
        layer = Layer(path, op, fields, reads, shape, dict(weights or {}), classes)
        self.append(layer)
        return layer


def output_shape(op: str, fields: dict[str, Any], shapes: list[Shape]) -> Shape:
    """Return the shape of an op's output for inputs of `shapes`; raise ShapeError if they do not fit."""
    return OPS[op].model_validate({"op": op, "name": "one", **fields}).output_shape(*shapes)


def leading_to(output: Layer, layers: list[Layer]) -> list[Layer]:
    """Return the layers on which an output depends, in their order."""
    read: set[Layer | None] = {output}
    for layer in reversed(layers):
        if layer in read:
            read.update(layer.reads)
    return [layer for layer in layers if layer in read]


def square(value: list[int]) -> Any:
    """Return a size as a spec has it: one number for two that are equal."""
    return value[0] if value[0] == value[1] else list(value)


class ImportFailedError(Exception):
    """Raised where a model cannot be made or captured."""


class MissingPackageError(ImportFailedError):
    """Raised without PyTorch, or without the package that the model is of."""
