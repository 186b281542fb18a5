"""Finds a spec's layers in a model that somebody else wrote: by what its modules read, and by values, not by names.

A module of the model is the layer of the spec that has parameters of the same shapes and reads the same tensor; it then
gets the weights of that layer. A tensor that the model computes is a layer's output if their values are equal.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Array = Any
SAMPLE = 64  # values that are compared before all are
NAMES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


class Weight(NamedTuple):
    """A weight of a model's module: its name there and, of its array, what gives PyTorch's layout."""

    name: str
    shape: tuple[int, ...]  # in PyTorch's layout
    before: tuple[int, ...] | None = None  # the array is reshaped to this first,
    axes: tuple[int, ...] | None = None  # and its axes are put in this order; then it is reshaped to `shape`

    def to_canonical(self, array: Array) -> Array:
        """Return the weight in PyTorch's layout."""
        array = array if self.before is None else array.reshape(self.before)
        return (array if self.axes is None else array.transpose(self.axes)).reshape(self.shape)

    def from_canonical(self, array: Array, own: Sequence[int]) -> Array:
        """Return the array of the shape `own` that `to_canonical` makes `array` of."""
        if self.axes is None:
            return array.reshape(own)
        before = tuple(self.before or own)
        array = array.reshape([before[axis] for axis in self.axes])
        return array.transpose(np.argsort(self.axes)).reshape(own)


class Assigned(NamedTuple):
    """A module that is a layer of the spec: by each of the layer's parameters, the module's weight."""

    layer: str
    weights: dict[str, Weight]
    flattened: tuple[int, int, int] | None = None  # (C, H, W) of the maps that it reads as a vector of (H, W, C)
    surplus: tuple[Weight, ...] = ()  # biases that the layer has not: they are set to 0
    lacking: tuple[str, ...] = ()  # biases of the layer that the module has not


class Matcher:
    """The layers of a spec, with what they compute on the data of the comparison, and which of them were found."""

    def __init__(self, layers: list[dict[str, Any]], outputs: Mapping[str, Array], inputs: Array) -> None:
        """`layers` have name, reads, params (shapes by name) and, for readers of flattened maps, flattened (C, H, W).

        `outputs` and `inputs` have PyTorch's layouts; a layer that reads "" reads the inputs.
        """
        self.layers = {layer["name"]: layer for layer in layers}
        self._values = {"": inputs, **outputs}
        self._largest = {name: float(abs(value).max()) for name, value in self._values.items()}
        self._by_shape: dict[tuple[int, ...], list[str]] = {}
        for layer in layers:
            if layer["name"] in outputs:
                self._by_shape.setdefault(outputs[layer["name"]].shape, []).append(layer["name"])
        self.free = [layer["name"] for layer in layers if layer["params"]]  # not assigned to a module
        self.found: dict[str, str] = {}  # by layer, where in the model its output is
        self.ambiguous: list[tuple[str, str]] = []  # layers that nothing but their order tells apart
        self._others: list[tuple[str, Array]] = []  # tensors that are no layer's output

    # --- modules ---

    def assign(self, weights: Sequence[Weight], reads: Array | None, last: bool = False) -> Assigned | None:
        """Return the layer that a module with `weights` is, and take it; None if no layer has such parameters.

        Among layers of the same shapes, the first that reads the tensor `reads`, or else the first. `last`: vectors are
        of flattened (H, W, C) where the values do not tell.
        """
        fitting = [name for name in self.free if self._fits(name, weights)]
        exact = [name for name in fitting if not any(self._unpaired(name, weights))]
        fitting = exact or fitting
        if not fitting:
            return None
        flattened: tuple[int, int, int] | None = None
        equal = []
        for name in fitting:
            if reads is not None and (how := self._reads(name, reads)) is not None:
                equal.append((name, how))
        name = equal[0][0] if equal else fitting[0]
        self.ambiguous += [(name, other) for other, _ in equal[1:]]
        maps = self.layers[name].get("flattened")
        if maps and (equal[0][1] == "last" if equal else last):
            flattened = tuple(maps)
        self.free.remove(name)
        return self._as(name, weights, flattened)

    def _as(self, name: str, weights: Sequence[Weight], flattened: tuple[int, int, int] | None = None) -> Assigned:
        """Return a module with `weights` as a layer."""
        surplus, lacking = self._unpaired(name, weights)
        pairs = _pairs(self.layers[name]["params"], weights)
        return Assigned(name, pairs, flattened, tuple(surplus), tuple(lacking))

    def _fits(self, name: str, weights: Sequence[Weight]) -> bool:
        """Return whether weights are those of a layer, but for biases."""
        surplus, lacking = self._unpaired(name, weights)
        biases = [*(NAMES.get(weight.name, weight.name) for weight in surplus), *lacking]
        return all(name == "bias" for name in biases) and len(lacking) < len(self.layers[name]["params"])

    def _unpaired(self, name: str, weights: Sequence[Weight]) -> tuple[list[Weight], list[str]]:
        """Return the weights that are none of a layer's, and the layer's that are none of these."""
        params = self.layers[name]["params"]
        pairs = _pairs(params, weights)
        names = {weight.name for weight in pairs.values()}
        return [weight for weight in weights if weight.name not in names], [p for p in params if p not in pairs]

    def follow(self, weights: Sequence[Weight], layer: str) -> Assigned | None:
        """Return the layer that reads the output of `layer` and has parameters of these shapes, and take it."""
        for name in self.free:
            if self._fits(name, weights) and self.layers[name]["reads"] == [layer]:
                self.free.remove(name)
                surplus, lacking = self._unpaired(name, weights)
                return Assigned(
                    name, _pairs(self.layers[name]["params"], weights), None, tuple(surplus), tuple(lacking)
                )
        return None

    def _reads(self, name: str, value: Array) -> str | None:
        """Return the order in which a tensor is what a layer reads: "first" or "last"; None if it is not."""
        layer = self.layers[name]
        expected = self._values.get(layer["reads"][0])
        if expected is None:
            return None
        if self._is_equal(layer["reads"][0], value):
            return "first"
        if (maps := layer.get("flattened")) and value.shape == expected.shape:
            c, h, w = maps
            if self._is_equal(layer["reads"][0], value.reshape(-1, h, w, c).transpose(0, 3, 1, 2).reshape(value.shape)):
                return "last"
        return None

    # --- tensors ---

    def see(self, place: str, value: Array, last: bool = False) -> None:
        """Note a tensor that the model computes, in its own layout; `last`: maps are (N, H, W, C)."""
        if not np.issubdtype(value.dtype, np.floating) or value.ndim < 2:
            return
        other = value.transpose(0, 3, 1, 2) if value.ndim == 4 else None
        known = False
        for array in (other, value) if last else (value, other):
            if array is None:
                continue
            known = known or array.shape in self._by_shape
            self._find(place, array)
        if value.ndim == 2:
            for maps in {tuple(layer["flattened"]) for layer in self.layers.values() if layer.get("flattened")}:
                c, h, w = maps
                if value.shape[1] == c * h * w:
                    self._find(place, value.reshape(-1, h, w, c).transpose(0, 3, 1, 2).reshape(value.shape))
        if known:
            self._others.append((place, (other if last and other is not None else value).copy()))

    def _find(self, place: str, value: Array) -> None:
        for name in self._by_shape.get(value.shape, ()):
            if name not in self.found and self._is_equal(name, value):
                self.found[name] = place

    def _is_equal(self, name: str, value: Array) -> bool:
        expected, largest = self._values[name], self._largest[name]
        if value.shape != expected.shape:
            return False
        near = 1e-9 * (largest or 1.0)
        step = max(1, value.size // SAMPLE)
        if not bool((abs(value.ravel()[::step] - expected.ravel()[::step]) <= near).all()):
            return False
        return bool((abs(value - expected) <= near).all())

    def first_apart(self) -> str:
        """Return the first layer that the model does not compute though it has what it reads; empty if there is none.

        A layer is passed over if the model has the output of one that reads it: two layers may be one expression.
        """
        passed: dict[str, bool] = dict.fromkeys(self.layers, False)
        for name, layer in reversed(self.layers.items()):
            if name in self.found or passed[name]:
                passed.update(dict.fromkeys((read for read in layer["reads"] if read), True))
        for name, layer in self.layers.items():
            has_inputs = all(read == "" or read in self.found for read in layer["reads"])
            if name not in self.found and has_inputs and not passed[name]:
                return str(name)
        return ""

    def nearest(self, layer: str, place: str = "") -> tuple[str, Array] | None:
        """Return the tensor of the shape of a layer's output that is nearest to it, with its place in the model.

        The last one at `place`, if there is one: the output of the module that the layer is.
        """
        expected = self._values[layer]
        others = [(where, value) for where, value in self._others if value.shape == expected.shape]
        if place and (here := [one for one in others if one[0].partition(",")[0] == place]):
            return here[-1]
        unknown = [one for one in others if one[0] not in set(self.found.values())] or others

        def apart(one: tuple[str, Array]) -> tuple[bool, float]:
            value = one[1]  # the same values in another order come first
            same = np.allclose([value.mean(), value.std()], [expected.mean(), expected.std()], rtol=1e-9, atol=0)
            return not same, float(abs(value - expected).max())

        return min(unknown, key=apart, default=None)


def _pairs(params: Mapping[str, Sequence[int]], weights: Sequence[Weight]) -> dict[str, Weight]:
    """Return a module's weights by the names of a layer's parameters of their shapes, as far as there are such.

    Of several with one shape, those of the same or of a known name; the others in their order.
    """
    left = list(weights)
    found: dict[str, Weight] = {}
    for by_name in (True, False):
        for param, shape in params.items():
            if param in found:
                continue
            for weight in left:
                if _size(weight.shape) == _size(shape) and (not by_name or _is_called(param, weight.name)):
                    found[param] = weight._replace(shape=tuple(shape))
                    left.remove(weight)
                    break
    return found


def _is_called(param: str, name: str) -> bool:
    return param == name or param.rpartition(".")[2] == NAMES.get(name, name)


def _size(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape without axes of one place: a linear layer may be a convolution."""
    return tuple(size for size in shape if size != 1)


def spec_weights(assigned: Assigned, weights: Mapping[str, Array]) -> Iterator[tuple[Weight, Array]]:
    """Yield a module's weights with the arrays of the layer, in PyTorch's layout; of surplus biases zeros."""
    for weight in assigned.surplus:
        yield weight, np.zeros(weight.shape)
    for param, weight in assigned.weights.items():
        array = weights[f"{assigned.layer}.{param}"]
        if assigned.flattened and array.ndim == 2:
            c, h, w = assigned.flattened
            array = array.reshape(-1, c, h, w).transpose(0, 2, 3, 1).reshape(array.shape)
        yield weight, array


def canonical(assigned: Assigned, weight: Weight, array: Array) -> Array:
    """Return an array of a module's weight, such as its gradient, as the layer has it."""
    array = weight.to_canonical(array)
    if assigned.flattened and array.ndim == 2:
        c, h, w = assigned.flattened
        array = array.reshape(-1, h, w, c).transpose(0, 3, 1, 2).reshape(array.shape)
    return array


def describe(
    matcher: Matcher, assigned: dict[str, Assigned], classes: dict[str, str], surplus: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return which layers were found in a model, and the first that parts, as data."""
    return {
        "assigned": {
            path: {
                "layer": a.layer,
                "class": classes.get(path, "parameter"),
                "flattened": a.flattened is not None,
                "surplus": {weight.name: list(weight.shape) for weight in a.surplus},
                "lacking": list(a.lacking),
            }
            for path, a in assigned.items()
        },
        "surplus": surplus,
        "lacking": {name: matcher.layers[name]["params"] for name in matcher.free},
        "found": matcher.found,
        "apart": matcher.first_apart(),
        "place": "",
        "ambiguous": [list(pair) for pair in matcher.ambiguous],
    }
