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
        fitting = [found for name in self.free if (found := self._as(name, weights))]
        fitting = [one for one in fitting if not one.surplus and not one.lacking] or fitting
        if not fitting:
            return None
        ways = [(one, self._reads(one.layer, reads) if reads is not None else None) for one in fitting]
        equal = [(one, way) for one, way in ways if way]
        chosen, way = equal[0] if equal else (fitting[0], "last" if last else "first")
        self.ambiguous += [(chosen.layer, other.layer) for other, _ in equal[1:]]
        self.free.remove(chosen.layer)
        maps = self.layers[chosen.layer].get("flattened")
        return chosen._replace(flattened=tuple(maps)) if maps and way == "last" else chosen

    def follow(self, weights: Sequence[Weight], layer: str) -> Assigned | None:
        """Return the layer that reads the output of `layer` and has parameters of these shapes, and take it."""
        for name in self.free:
            if self.layers[name]["reads"] == [layer] and (found := self._as(name, weights)):
                self.free.remove(name)
                return found
        return None

    def _as(self, name: str, weights: Sequence[Weight]) -> Assigned | None:
        """Return a module with `weights` as a layer; None if more than biases differ."""
        params = self.layers[name]["params"]
        pairs = _pairs(params, weights)
        names = {weight.name for weight in pairs.values()}
        surplus = tuple(weight for weight in weights if weight.name not in names)
        lacking = tuple(param for param in params if param not in pairs)
        biases = [*(NAMES.get(weight.name, weight.name) for weight in surplus), *lacking]
        fits = pairs and all(bias == "bias" for bias in biases)
        return Assigned(name, pairs, None, surplus, lacking) if fits else None

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


class Observer:
    """Which modules of a model are which layers, and with which tensors: what the frameworks' observers share."""

    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher
        self.assigned: dict[str, Assigned] = {}  # by the path of the module, or of a parameter of the model's own
        self.surplus: list[dict[str, Any]] = []  # modules that are no layer
        self.classes: dict[str, str] = {}  # of the modules, by path
        self.tensors: dict[str, dict[str, Any]] = {}  # of the modules, by path and name

    def add_surplus(self, path: str, weights: Sequence[Weight]) -> None:
        """Note a module that is no layer."""
        shapes = {weight.name: list(weight.shape) for weight in weights}
        self.surplus.append({"path": path, "class": self.classes.get(path, "parameter"), "shapes": shapes})

    def pairs(self) -> Iterator[tuple[Assigned, str, Weight, Any]]:
        """Yield every parameter that was found: its layer, its name, the module's weight and tensor."""
        for path, assigned in self.assigned.items():
            for param, weight in assigned.weights.items():
                yield assigned, param, weight, self.tensors[path][weight.name]

    def answer(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """Return what was found, as data; add the tensor that is nearest to the first layer that parts to `arrays`."""
        parts = self.matcher.first_apart()
        module = next((path for path, assigned in self.assigned.items() if assigned.layer == parts), "")
        near = self.matcher.nearest(parts, module) if parts else None
        if near:
            arrays["apart"] = near[1]
        return {
            "assigned": {
                path: {
                    "layer": a.layer,
                    "class": self.classes.get(path, "parameter"),
                    "flattened": a.flattened is not None,
                    "surplus": {weight.name: list(weight.shape) for weight in a.surplus},
                    "lacking": list(a.lacking),
                }
                for path, a in self.assigned.items()
            },
            "surplus": self.surplus,
            "lacking": {name: self.matcher.layers[name]["params"] for name in self.matcher.free},
            "apart": parts,
            "place": near[0] if near else "",
            "ambiguous": [list(pair) for pair in self.matcher.ambiguous],
        }
