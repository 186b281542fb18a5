"""Views: tensors that have the values of another one in another order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import prod
from typing import NamedTuple


class Axis(NamedTuple):
    """Indices of one axis of the source: `size` of them, every `stride`-th."""

    of: int
    stride: int
    size: int


Axes = tuple[Axis, ...]


@dataclass(frozen=True)
class View:
    """A tensor with the values of another one, `source`, times `factor`.

    Each of its axes runs over axes of the source together, the last one fastest, from the indices `start` on.
    """

    source: str
    axes: tuple[Axes, ...]
    start: tuple[int, ...]
    factor: float = 1.0
    nodes: frozenset[str] = frozenset()  # of the graph, from the source to this tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of its axes."""
        return tuple(prod(axis.size for axis in axes) for axes in self.axes)

    def reshaped(self, shape: Sequence[int]) -> View | None:
        """Return it in another shape; None if its axes do not divide into that."""
        rest = [axis for axes in self.axes for axis in axes]
        found: list[Axes] = []
        for size in shape:
            taken: list[Axis] = []
            while size > 1:
                if not rest:
                    return None
                first = rest.pop(0)
                if size % first.size == 0:
                    taken.append(first)
                    size //= first.size
                elif first.size % size == 0:
                    inner = first.size // size
                    taken.append(Axis(first.of, first.stride * inner, size))
                    rest.insert(0, Axis(first.of, first.stride, inner))
                    size = 1
                else:
                    return None
            found.append(_joined(taken))
        return None if rest else replace(self, axes=tuple(found))

    def permuted(self, order: Sequence[int]) -> View:
        """Return it with its axes in another order."""
        return replace(self, axes=tuple(self.axes[i] for i in order))

    def narrowed(self, dim: int, start: int, size: int) -> View | None:
        """Return `size` indices of an axis from `start` on; None if the axis is no single one of the source."""
        if len(self.axes[dim]) != 1:
            return None
        (axis,) = self.axes[dim]
        starts = list(self.start)
        starts[axis.of] += start * axis.stride
        axes = list(self.axes)
        axes[dim] = (axis._replace(size=size),) if size > 1 else ()
        return replace(self, axes=tuple(axes), start=tuple(starts))

    def selected(self, dim: int, index: int) -> View | None:
        """Return the part at one index of an axis, without that axis."""
        found = self.narrowed(dim, index, 1)
        return found and replace(found, axes=found.axes[:dim] + found.axes[dim + 1 :])

    def followed(self, dim: int, other: View) -> View | None:
        """Return it with another part of the same source after it along an axis; None if that does not follow it."""
        here, there = self.axes[dim], other.axes[dim]
        rest = [axes for i, axes in enumerate(self.axes) if i != dim] == [
            a for i, a in enumerate(other.axes) if i != dim
        ]
        moved = [(of, b - a) for of, (a, b) in enumerate(zip(self.start, other.start, strict=False)) if a != b]
        if self.source != other.source or self.factor != other.factor or not rest or len(moved) != 1:
            return None
        ((of, distance),) = moved
        size, stride = prod(axis.size for axis in here), (here or there or (Axis(of, 1, 1),))[0].stride
        if any(axis.of != of or axis.stride != stride for axis in (*here, *there)) or distance != size * stride:
            return None
        joined = (Axis(of, stride, size + prod(axis.size for axis in there)),)
        axes = (*self.axes[:dim], joined, *self.axes[dim + 1 :])
        return replace(self, axes=axes, nodes=self.nodes | other.nodes)

    def split(self, dim: int, sizes: Sequence[int]) -> list[View] | None:
        """Return the parts of given sizes along an axis."""
        starts = list(accumulate(sizes, initial=0))
        found = [self.narrowed(dim, start, size) for start, size in zip(starts, sizes, strict=False)]
        return None if None in found else [part for part in found if part]


def whole(source: str, shape: Sequence[int]) -> View:
    """Return the view that is its source."""
    axes = tuple((Axis(i, 1, size),) if size > 1 else () for i, size in enumerate(shape))
    return View(source, axes, (0,) * len(shape), nodes=frozenset({source}))


def _joined(axes: list[Axis]) -> Axes:
    """Return axes with neighbours that were one axis of the source as one again."""
    found: list[Axis] = []
    for axis in axes:
        if found and found[-1].of == axis.of and found[-1].stride == axis.stride * axis.size:
            found[-1] = Axis(axis.of, axis.stride, found[-1].size * axis.size)
        else:
            found.append(axis)
    return tuple(found)
