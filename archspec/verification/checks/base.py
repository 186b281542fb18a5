"""What the checks share: a target's run, and the context of the judgement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from archspec.graph import Graph, Node
from archspec.graph.layouts import Layout, flattened_maps
from archspec.language.names import class_name
from archspec.targets import target_of
from archspec.verification import canonical_weights
from archspec.verification.evidence import Comparison
from archspec.verification.inputs import Inputs
from archspec.verification.processes import Workers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]
    Arrays = Mapping[str, Array]


class ArrayFile(Mapping[str, "Array"]):
    """The arrays of a .npz file, each read when it is accessed: all of a large network's would not fit in memory."""

    def __init__(self, path: Path) -> None:
        import numpy as np

        self._path = path
        with np.load(path) as arrays:
            self._names = tuple(arrays.files)

    def __getitem__(self, name: str) -> Array:
        import numpy as np

        with np.load(self._path) as arrays:
            array: Array = arrays[name]
        return array

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Check(Protocol):
    """A module of this package."""

    def ask(self, run: TargetRun) -> Any:
        """Have a target compute, and return its result; raise WorkerError if it fails."""

    def judge(self, context: Context, results: Mapping[str, Any]) -> Iterator[Comparison]:
        """Yield the comparisons of the results, which are by target, in the order of the layers."""


@dataclass(frozen=True)
class TargetRun:
    """One target's part in a verification."""

    graph: Graph
    target: str
    workers: Workers
    inputs: Inputs
    folder: Path  # of its generated files
    dtypes: tuple[str, ...]

    def ask(self, job: str, **arguments: Any) -> dict[str, Any]:
        """Have the worker do a job; return its answer."""
        return self.workers.ask(
            self.target,
            job,
            folder=str(self.folder),
            name=class_name(self.graph.name),
            parameters=canonical_weights.shapes(self.graph),
            **arguments,
        )

    def output(self, *words: str) -> Path:
        """Return the path of an output file of the worker."""
        return self.inputs.workdir / f"{'-'.join((self.target, *words))}.npz"

    @property
    def layers(self) -> list[str]:
        """The names of the layers."""
        return [node.name for node in self.graph.nodes]


@dataclass(frozen=True)
class Context:
    """What a judgement needs besides the results."""

    graph: Graph
    inputs: Inputs
    targets: tuple[str, ...]
    dtypes: tuple[str, ...]

    @cached_property
    def layouts(self) -> dict[str, Layout]:
        """The layout of each target's arrays."""
        flattened = flattened_maps(self.graph)
        return {target: Layout(target_of(target).channels_last, flattened) for target in self.targets}

    @cached_property
    def params(self) -> list[tuple[Node, str]]:
        """Every trainable parameter: its layer and its name."""
        return [(node, name) for node in self.graph.nodes for name in node.trainable]

    @property
    def random_layers(self) -> list[Node]:
        """The layers that draw random numbers in training."""
        return [node for node in self.graph.nodes if node.op.random]  # type: ignore[union-attr]

    @cached_property
    def buffers(self) -> list[tuple[Node, str]]:
        """Every buffer, such as running statistics: its layer and its name."""
        return [(n, name) for n in self.graph.nodes for name, param in n.params.items() if not param.trainable]

    def read_param(self, arrays: Arrays, node: Node, name: str, prefix: str = "") -> Array | None:
        """Return a target's array of a parameter; None if there is none."""
        key = f"{prefix}{node.name}.{name}"
        return arrays.get(key)

    def deviation(self, arrays: Arrays, node: Node, name: str) -> float:
        """Return the largest running deviation of the layer of a running mean, which may be 0; 0 for others."""
        key = f"{node.name}.running_var"
        if node.params[name].role != "running_mean" or key not in arrays:
            return 0.0
        return sqrt(float(abs(arrays[key]).max()))

    def largest(self, arrays: Arrays, prefix: str = "") -> float:
        """Return the largest magnitude among the arrays of all parameters."""
        keys = [f"{prefix}{node.name}.{name}" for node, name in self.params]
        return max((float(abs(arrays[key]).max()) for key in keys if key in arrays), default=0.0)


def pairs(results: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the pairs to compare: the reference, the first target that gave a result, and each of the others."""
    first, *others = [*results] or [""]
    for target in others:
        yield first, target
