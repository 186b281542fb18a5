"""From the operators that torch.export captures to layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from archspec.importers.attention import MOVES, PARTS, Heads, SelfAttention, find_attention, references, target_of
from archspec.importers.layers import (
    Layer,
    LayerList,
    NotSupportedError,
    Origin,
    Shape,
    UnknownInputError,
    Unsupported,
    UnsupportedModelError,
    leading_to,
    output_shape,
    square,
)
from archspec.importers.views import Axis, View, whole
from archspec.language.ops.base import ShapeError, written_sides

Node = dict[str, Any]

# Operators that are the identity here: evaluation is captured, and layouts are followed.
IDENTITY = ("contiguous", "clone", "alias", "detach", "to", "_to_copy", "lift_fresh_copy", "expand_as")
ACTIVATIONS = {
    "relu": "relu",
    "relu6": "relu6",
    "silu": "silu",
    "hardswish": "hardswish",
    "hardsigmoid": "hardsigmoid",
    "mish": "mish",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "softplus": "softplus",
}


@dataclass(frozen=True)
class Value:
    """A tensor of the graph: the layer whose output it is, and the axes that it has them in.

    `axes` are those of the layer's output, e.g. "NCHW", in the order that the tensor has them, e.g. "NHWC".
    """

    layer: Layer | None
    axes: str
    step: str = ""  # of a hardsigmoid that is written out: "x + 3", then "relu6(x + 3)"
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)  # minus infinity above, below, left and right, for a max pool


def read_layers(captured: dict[str, Any], input_shape: Shape, *, opaque: bool = False) -> list[Layer]:
    """Return the layers of a captured graph; raise UnsupportedModelError with all operators that no op is.

    `opaque`: instead, the modules that have such operators become one opaque layer each, or the modules around them
    where theirs is no single tensor of a shape that the language has.
    """
    paths: frozenset[str] = frozenset()
    while True:
        try:
            return Importer(captured, input_shape, paths).run()
        except UnsupportedModelError as error:
            found = {one.path.rpartition(".")[0] if one.path in paths else one.path for one in error.found}
            if not opaque or "" in found:
                raise
            grown = paths | found
            paths = frozenset(p for p in grown if not any(p.startswith(f"{other}.") for other in grown))


class Importer:
    """Walks over the nodes of a captured graph; the modules of `opaque` are one layer each."""

    def __init__(self, captured: dict[str, Any], input_shape: Shape, opaque: frozenset[str] = frozenset()) -> None:
        self._opaque = opaque
        self._trained: dict[str, int] = {}  # of the parameters
        self._nodes: list[Node] = captured["nodes"]
        self._described: dict[str, Any] = captured["layers"]
        self._classes: dict[str, str] = captured["classes"]
        self._input_shape = input_shape
        self._by_name = {node["name"]: node for node in self._nodes}
        self._values: dict[str, Value] = {}
        self._states: dict[str, str] = {}  # parameters and buffers, and what is only another shape of them
        self._splits: dict[str, tuple[Value, Node]] = {}
        self._attention = find_attention(self._nodes)
        self._inner = {name: core for core, heads in self._attention.heads.items() for name in heads.nodes}
        self._roots: dict[str, Value] = {}  # attention's outputs, of which the graph has views
        self._branches: dict[str, list[Value]] = {}  # tensors of an axis of branches, after the batch
        self._pending: dict[str, str] = {}  # views that are no layer's output yet, and why not
        self.layers = LayerList()
        self.output: Value | None = None

    def run(self) -> list[Layer]:
        """Return the layers in their order; raise UnsupportedModelError with all operators that no op is."""
        unsupported: list[Unsupported] = []
        deferred: dict[str, list[Unsupported]] = {}  # operators of attention that is written out, by its last
        total = 0
        inside: str | None = None
        for node in self._nodes:
            if node["kind"] == "placeholder":
                self._placeholder(node)
            elif node["kind"] == "output":
                (first, *_) = node["args"][0]
                self.output = self._values.get(first["ref"])
            elif node["kind"] == "call_function":
                if node["target"].startswith("aten._assert"):
                    continue
                total += 1
                path = self._whole(node)
                if path and path == inside:
                    continue
                try:
                    if path:
                        inside = path
                        self._module(path, node)
                    elif attention := self._attention.whole.get(node["name"]):
                        self._self_attention(node, attention)
                    elif heads := self._attention.heads.get(node["name"]):
                        self._heads(node, heads)
                        deferred.pop(node["name"], None)
                    else:
                        self._call(node)
                except NotSupportedError as error:
                    where = path if path in self._opaque else _path(node)
                    found = Unsupported(target_of(node), str(where), node["line"], str(error))
                    core = self._inner.get(node["name"])
                    (deferred.setdefault(core, []) if core else unsupported).append(found)
                except UnknownInputError:
                    continue
        unsupported += [found for rest in deferred.values() for found in rest]
        if unsupported:
            raise UnsupportedModelError(unsupported, total)
        if self.output is None or self.output.layer is None:
            raise UnsupportedModelError([Unsupported("output", "", "", "the output is no layer's")], total)
        return leading_to(self.output.layer, self.layers)  # without halves of a split that nothing reads

    # --- values ---

    def _placeholder(self, node: Node) -> None:
        if node["state"]:
            self._states[node["name"]] = node["state"]
            if node["trainable"]:
                self._trained[node["state"]] = prod(node["shape"])
        else:
            axes = {3: "NCHW", 2: "NLD", 1: "NF"}[len(self._input_shape)]
            self._values[node["name"]] = Value(None, axes)

    def _value(self, argument: Any, *, step: str = "", padded: bool = False) -> Value:
        name = argument["ref"] if isinstance(argument, dict) and "ref" in argument else ""
        if name in self._values:
            value = self._values[name]
            if value.step == "x + 3" and not step:
                return self._add(
                    self._by_name[name], "rescaling", {"offset": 3.0}, [value], self._shape(value), axes=value.axes
                )
            if value.step != step:
                raise NotSupportedError(f"reads {value.step}" if value.step else "arithmetic with a number")
            if any(value.pad) and not padded:
                raise NotSupportedError("reads a map padded with minus infinity")
            return value
        if name in self._pending:
            raise NotSupportedError(self._pending[name])
        if name in self._states:
            raise NotSupportedError(f"{self._states[name]} is used as an activation")
        raise UnknownInputError

    def _state(self, argument: Any) -> str | None:
        return self._states.get(argument["ref"]) if isinstance(argument, dict) and "ref" in argument else None

    def _shape(self, value: Value) -> Shape:
        return value.layer.shape if value.layer else self._input_shape

    def _plain(self, value: Value) -> Value:
        """Return a value whose axes are in the order of its layer's output."""
        if value.axes not in ("NCHW", "NLD", "NF"):
            raise NotSupportedError(f"reads a tensor of axes {value.axes}")
        return value

    def _add(
        self,
        node: Node,
        op: str,
        fields: dict[str, Any],
        reads: list[Value],
        shape: Shape,
        weights: Mapping[str, tuple[Any, ...]] | None = None,
        axes: str | None = None,
        path: str | None = None,
    ) -> Value:
        """Append a layer; return its output."""
        where = tuple(part for part in (_path(node) if path is None else path).split(".") if part)
        if path is None and not self._is_leaf(node):
            where = (*where, op.removesuffix("2d") if op != "conv2d" else "conv")
        if not where:
            where = (op,)
        kinds = [self._classes.get(".".join(where[:i]), "") for i in range(1, len(where))]
        origins = {param: Origin(*origin) for param, origin in (weights or {}).items()}
        layer = self.layers.add(where, op, fields, [v.layer for v in reads], shape, origins, tuple(kinds))
        value = Value(layer, axes or {3: "NCHW", 2: "NLD", 1: "NF"}[len(shape)])
        self._values[node["name"]] = value
        return value

    def _is_leaf(self, node: Node) -> bool:
        """Return whether the innermost module of a node is a layer of PyTorch's own."""
        if not node["stack"]:
            return False
        kind = node["stack"][-1][1]
        return kind.startswith("torch.nn.modules.") and ".container." not in kind

    # --- modules that are one layer ---

    def _whole(self, node: Node) -> str | None:
        for path, _ in node["stack"]:
            if path in self._described or path in self._opaque:
                return str(path)
        return None

    def _opaque_module(self, path: str, inside: list[Node]) -> None:
        """Read a module as a layer of which only the shape and the number of parameters are known."""
        names = {n["name"] for n in inside}
        reads = {r: None for n in inside for r in _refs(n) if r not in names and r not in self._states}
        if unknown := [r for r in reads if r not in self._values and r not in self._pending]:
            raise UnknownInputError(unknown[0])
        sources = list(dict.fromkeys(self._value({"ref": r}) for r in reads))
        used = {r for n in self._nodes if n["name"] not in names for r in _refs(n)}
        ends = [n for n in inside if n["name"] in used]
        if len(ends) != 1 or not sources:
            raise NotSupportedError(f"a module of {len(ends)} outputs and {len(sources)} inputs")
        shape = tuple(ends[0]["shape"][1:])
        if not 1 <= len(shape) <= 3:
            raise NotSupportedError(f"an output of {len(shape)} axes")
        axes = None
        if len(shape) == 3 and any(source.axes == "NHWC" for source in sources):
            shape, axes = (shape[2], *shape[:2]), "NHWC"
        states = {self._states[r] for n in inside for r in _refs(n) if r in self._states}
        count = sum(self._trained.get(state, 0) for state in states)
        fields: dict[str, Any] = {"kind": self._classes.get(path, "module")}
        fields |= {"shape": list(shape)} if shape != self._shape(sources[0]) else {}
        fields |= {"parameters": count} if count else {}
        weights: dict[str, tuple[str, Shape]] = {"weight": ("", (count,))} if count else {}
        self._add(ends[0], "opaque", fields, sources, shape, weights, axes, path)

    def _module(self, path: str, node: Node) -> None:
        """Read all of a module as one layer: its first node is `node`."""
        inside = [n for n in self._nodes if n["kind"] == "call_function" and self._whole(n) == path]
        if path in self._opaque:
            self._opaque_module(path, inside)
            return
        names = {n["name"] for n in inside}
        reads = {r for n in inside for r in _refs(n) if r not in names and r in self._values}
        if len({self._values[r].layer for r in reads}) != 1:
            raise NotSupportedError("a module of several inputs, or of what was not understood")
        source = self._values[next(iter(reads))]
        described = self._described[path]
        used = {r for n in self._nodes if n["name"] not in names for r in _refs(n)}
        (end,) = [n for n in inside if n["name"] in used][-1:] or [inside[-1]]
        if "size" in described:
            if source.axes != "NCHW":
                raise NotSupportedError(f"local response normalization of axes {source.axes}")
            value = self._add(end, "local_response_norm", dict(described), [source], self._shape(source), path=path)
            self._values.update({n["name"]: value for n in inside})
            return
        if source.axes != "NLD" or not described["batch_first"]:
            raise NotSupportedError("attention that is not batch_first, of tokens")
        d = self._shape(source)[1]
        state = set(self._states.values())
        weights: dict[str, tuple[str, Shape]] = {"in_proj_weight": (f"{path}.in_proj_weight", (3 * d, d))}
        if biased := f"{path}.in_proj_bias" in state:
            weights["in_proj_bias"] = (f"{path}.in_proj_bias", (3 * d,))
        weights["out_proj.weight"] = (f"{path}.out_proj.weight", (d, d))
        if biased:
            weights["out_proj.bias"] = (f"{path}.out_proj.bias", (d,))
        fields = {"num_heads": described["num_heads"], **({} if biased else {"bias": False})}
        value = self._add(end, "multihead_attention", fields, [source], self._shape(source), weights, path=path)
        for n in inside:
            self._values[n["name"]] = value

    def _self_attention(self, node: Node, attention: SelfAttention) -> None:
        """Read attention that is written out as one layer, at its last operator."""
        if node is not attention.out_proj:
            return
        value = self._value(attention.in_proj["args"][0])
        if value.axes != "NLD":
            raise NotSupportedError(f"attention of axes {value.axes}")
        d = self._shape(value)[1]
        weights: dict[str, tuple[str, Shape]] = {}
        for name, linear, rows in (("in_proj_", attention.in_proj, 3 * d), ("out_proj.", attention.out_proj, d)):
            for i, param, shape in ((1, "weight", (rows, d)), (2, "bias", (rows,))):
                if state := self._state(self._argument(linear, i, param, None)):
                    weights[f"{name}{param}"] = (state, shape)
        fields = {"num_heads": attention.num_heads, **({} if "out_proj.bias" in weights else {"bias": False})}
        path = _path(attention.core)
        self._add(node, "multihead_attention", fields, [value], self._shape(value), weights, path=path)

    def _heads(self, node: Node, heads: Heads) -> None:
        """Read attention of queries, keys and values that are parts of any layers' outputs."""
        parts = [self._tokens_of(node, view, heads.num_heads) for view in (heads.q, heads.k, heads.v)]
        shape = (self._shape(parts[0])[0], self._shape(parts[2])[1])
        fields = {"num_heads": heads.num_heads}
        path = f"{_path(node)}.heads".removeprefix(".")
        value = self._add(node, "dot_product_attention", fields, parts, shape, path=path)
        del self._values[node["name"]]
        self._roots[node["name"]] = value
        self._pending[node["name"]] = "heads of attention as an axis"

    def _tokens_of(self, node: Node, view: View, heads: int) -> Value:
        """Return the queries, keys or values of all heads as tokens: the heads side by side, in their order."""
        value = self._root(view)
        shape = self._shape(value)
        channels = shape[-1] if len(shape) < 3 else shape[0]
        feature, *places = (i for letter in ("CD", "H", "W", "L") for i, a in enumerate(value.axes) if a in letter)
        size = view.shape[-1]
        leading = [axis for axes in view.axes[:-2] for axis in axes if axis.of]
        step = leading[0].stride if leading else size
        expected = (
            [Axis(feature, step, heads)] if heads > 1 else [],
            [Axis(place, 1, self._size(value, place)) for place in places if self._size(value, place) > 1],
            [Axis(feature, 1, size)] if size > 1 else [],
        )
        if (leading, *map(list, view.axes[-2:])) != expected or any(view.start[place] for place in places):
            raise NotSupportedError("attention of other axes than tokens and features")
        start = view.start[feature]
        if step == size:
            value = self._block(node, value, start, heads * size, channels)
        else:  # of each head, q, k and v are side by side
            blocks = [self._block(node, value, start + i * step, size, channels) for i in range(heads)]
            first = self._shape(blocks[0])
            joined = (first[0], heads * size) if len(first) == 2 else (heads * size, *first[1:])
            value = self._add(node, "concat", {}, blocks, joined, axes=value.axes)
        if len(self._shape(value)) == 3:
            _, height, width = self._shape(value)
            value = self._add(node, "tokens", {}, [value], (height * width, heads * size))
        elif value.axes == "NDL":
            value = replace(value, axes="NLD")
        return value

    def _root(self, view: View) -> Value:
        """Return the value of a view's source."""
        if view.source in self._branches and view.source not in self._roots:
            branches = self._branches[view.source]
            channels, *places = self._shape(branches[0])
            made = self._add(self._by_name[view.source], "concat", {}, branches, (len(branches) * channels, *places))
            del self._values[view.source]
            self._roots[view.source] = made
        if view.source in self._roots:
            return self._roots[view.source]
        return self._value({"ref": view.source})

    def _size(self, value: Value, axis: int) -> int:
        """Return the size of an axis of a tensor."""
        canonical = {3: "CHW", 2: "LD", 1: "F"}[len(self._shape(value))]
        return self._shape(value)[canonical.index(value.axes[axis])]

    def _block(self, node: Node, value: Value, start: int, size: int, channels: int) -> Value:
        """Return `size` channels or features from `start` on."""
        if size == channels:
            return value
        if size and channels % size == 0 and start % size == 0:
            return self._taken(node, value, [size] * (channels // size), start // size)
        return self._taken(node, value, [n for n in (start, size, channels - start - size) if n], int(start > 0))

    def _view(self, node: Node, error: Exception) -> None:
        """Read a node as a view of a layer's output; if it is none that a layer gives, what reads it may know more."""
        view = self._attention.views.get(node["name"])
        if not view and target_of(node) in PARTS and node["args"][0]["ref"] in self._attention.views:
            return
        if not view and target_of(node) not in PARTS:
            raise error
        if view and view.source in self._states:
            self._view_of_state(node, view)
            return
        root = self._root(view) if view else self._value(node["args"][0])
        if not view or view.factor != 1 or "P" in root.axes or root.step or any(root.pad):
            if view:
                raise error
            return
        value = self._resolved(node, view, root)
        if value:
            self._values[node["name"]] = value
        else:
            self._pending[node["name"]] = str(error) or f"{tuple(node['shape'])} of axes {root.axes}"

    def _view_of_state(self, node: Node, view: View) -> None:
        """Read a parameter that was taken apart and put together again."""
        state = self._states[view.source]
        if view.axes == whole(view.source, node["shape"]).axes and not any(view.start) and view.factor == 1:
            self._states[node["name"]] = state
        else:
            self._pending[node["name"]] = f"{state} is used as an activation"

    def _resolved(self, node: Node, view: View, root: Value) -> Value | None:
        """Return a view of a layer's output as the output of that layer, or of a split, tokens or maps after it."""
        letters = root.axes
        shape = self._shape(root)
        feature = next(i for i, letter in enumerate(letters) if letter in "CDF")
        channels = shape[-1] if len(shape) < 3 else shape[0]
        if any(start for i, start in enumerate(view.start) if i != feature):
            return None
        flat = [axis for axes in view.axes for axis in axes if axis.of == feature]
        names = ["".join(letters[axis.of] for axis in axes) for axes in view.axes]
        if letters == "NCHW" and names == ["N", "CC", "H", "W"] and flat[0].size * flat[1].size == channels:
            inner, groups = flat
            if (inner.stride, groups.stride) == (1, inner.size):
                return self._add(node, "channel_shuffle", {"groups": groups.size}, [root], shape)
        if len(flat) != 1 or flat[0].stride != 1:
            return None
        complete = all(
            axis.stride == 1 and (axis.of in (0, feature) or axis.size == self._size(root, axis.of))
            for axes in view.axes
            for axis in axes
        )
        start, size = view.start[feature], flat[0].size
        if complete and sorted(names) == sorted(letters):
            return replace(self._block(node, root, start, size, channels), axes="".join(names))
        if complete and names in (["N", "HW", "C"], ["N", "C", "HW"]):
            block = self._block(node, root, start, size, channels)
            made = self._add(node, "tokens", {}, [block], (prod(shape[1:]), size))
            return made if names[2] == "C" else replace(made, axes="NDL")
        places = [axes for axes in view.axes if axes and letters[axes[0].of] == "L"]
        if len(shape) == 2 and len(places) == 2 and len(view.axes) == 4 and all(len(axes) == 1 for axes in view.axes):
            (rows,), (columns,) = places
            if (rows.stride, columns.stride) != (columns.size, 1) or rows.size * columns.size != shape[0]:
                return None
            block = self._block(node, root, start, size, channels)
            made = self._add(
                node,
                "maps",
                {"height": rows.size},
                [replace(block, axes="NLD")],
                (size, rows.size, columns.size),
            )
            axes = "".join({"L": "H", "D": "C"}.get(name, name) for name in names)
            return replace(made, axes=axes.replace("HH", "HW") if "HH" in axes else axes[:-1] + "W")
        return None

    # --- operators ---

    def _call(self, node: Node) -> None:
        target = target_of(node)
        if target in IDENTITY:
            self._alias(node)
            return
        handler: Callable[[Node], None] | None = getattr(self, f"_op_{target}", None)
        if handler or target in MOVES or node["name"] in self._attention.views:
            try:
                if not handler:
                    raise NotSupportedError("")
                handler(node)
            except (NotSupportedError, UnknownInputError) as error:
                self._view(node, error)
        elif target in ACTIVATIONS:
            self._each(node, ACTIVATIONS[target], {})
        else:
            raise NotSupportedError(self._attention.against.get(node["name"], ""))

    def _alias(self, node: Node) -> None:
        source = node["args"][0]["ref"]
        if state := self._states.get(source):
            self._states[node["name"]] = state
        elif source in self._pending:
            self._pending[node["name"]] = self._pending[source]
        else:
            self._values[node["name"]] = self._value(node["args"][0])

    def _each(self, node: Node, op: str, fields: dict[str, Any]) -> None:
        value = self._value(node["args"][0])
        self._add(node, op, fields, [value], self._shape(value), axes=value.axes)

    def _argument(self, node: Node, i: int, name: str, default: Any) -> Any:
        return node["args"][i] if len(node["args"]) > i else node["kwargs"].get(name, default)

    def _op_conv2d(self, node: Node) -> None:
        value = self._value(node["args"][0])
        if value.axes != "NCHW":
            raise NotSupportedError(f"a convolution of a tensor of axes {value.axes}")
        weight, bias = self._state(node["args"][1]), self._state(self._argument(node, 2, "bias", None))
        stride = self._argument(node, 3, "stride", [1, 1])
        padding = self._argument(node, 4, "padding", [0, 0])
        dilation = self._argument(node, 5, "dilation", [1, 1])
        groups = self._argument(node, 6, "groups", 1)
        if weight is None:
            raise NotSupportedError("a kernel that is no parameter")
        shape = self._by_name[node["args"][1]["ref"]]["shape"]
        if isinstance(padding, str):  # PyTorch adds the odd row and column at the end
            added = [d * (k - 1) * (padding == "same") for d, k in zip(_two(dilation), shape[2:], strict=True)]
            padding = written_sides(added[0] // 2, -(-added[0] // 2), added[1] // 2, -(-added[1] // 2))
        else:
            padding = square(_two(padding))
        fields: dict[str, Any] = {"out_channels": shape[0], "kernel_size": square(shape[2:])}
        for name, given, usual in (
            ("stride", square(_two(stride)), 1),
            ("padding", padding, 0),
            ("dilation", square(_two(dilation)), 1),
        ):
            if given != usual:
                fields[name] = given
        if groups != 1:
            fields["groups"] = groups
        weights = {"weight": (weight, tuple(shape))}
        if bias:
            weights["bias"] = (bias, (shape[0],))
        else:
            fields["bias"] = False
        self._add(node, "conv2d", fields, [value], tuple(node["shape"][1:]), weights)

    def _op_conv_transpose2d(self, node: Node) -> None:
        value = self._plain(self._value(node["args"][0]))
        weight, bias = self._state(node["args"][1]), self._state(self._argument(node, 2, "bias", None))
        if weight is None:
            raise NotSupportedError("a kernel that is no parameter")
        shape = self._by_name[node["args"][1]["ref"]]["shape"]
        groups = self._argument(node, 6, "groups", 1)
        fields: dict[str, Any] = {"out_channels": shape[1] * groups, "kernel_size": square(shape[2:])}
        for i, (name, usual) in enumerate((("stride", 1), ("padding", 0), ("output_padding", 0)), 3):
            given = square(_two(self._argument(node, i, name, usual)))
            if given != usual:
                fields[name] = given
        if (dilation := square(_two(self._argument(node, 7, "dilation", 1)))) != 1:
            fields["dilation"] = dilation
        if groups != 1:
            fields["groups"] = groups
        weights = {"weight": (weight, tuple(shape))}
        if bias:
            weights["bias"] = (bias, (shape[1] * groups,))
        else:
            fields["bias"] = False
        self._add(node, "conv_transpose2d", fields, [value], tuple(node["shape"][1:]), weights)

    def _op_linear(self, node: Node) -> None:
        value = self._value(node["args"][0])
        weight, bias = self._state(node["args"][1]), self._state(self._argument(node, 2, "bias", None))
        if weight is None:
            raise NotSupportedError("a weight that is no parameter")
        out, size = self._by_name[node["args"][1]["ref"]]["shape"]
        unbiased = {} if bias else {"bias": False}
        biases = {"bias": (bias, (out,))} if bias else {}
        if value.axes == "NHWC":  # a linear layer at each place is a convolution of 1 x 1
            weights = {"weight": (weight, (out, size, 1, 1)), **biases}
            fields = {"out_channels": out, "kernel_size": 1, **unbiased}
            self._add(node, "conv2d", fields, [value], (out, *self._shape(value)[1:]), weights, "NHWC")
            return
        fields = {"out_features": out, **unbiased}
        weights = {"weight": (weight, (out, size)), **biases}
        if value.axes == "NDL":  # features of tokens that were exchanged
            value = self._transposed(node, value)
        shape = self._shape(self._plain(value))
        if value.axes == "NCHW":
            raise NotSupportedError("a linear layer of the last axis of feature maps")
        self._add(node, "linear", fields, [value], (*shape[:-1], out), weights)

    def _transposed(self, node: Node, value: Value) -> Value:
        shape = self._shape(value)
        name = node["name"]
        made = self._add(node, "transpose", {}, [value], (shape[1], shape[0]))
        self._values.pop(name)
        return made

    def _op_batch_norm(self, node: Node) -> None:
        given = self._value(node["args"][0])
        value = self._as_maps(node, given)
        names = ("weight", "bias", "running_mean", "running_var")
        found = {name: self._state(argument) for name, argument in zip(names, node["args"][1:5], strict=True)}
        if not found["running_mean"] or bool(found["weight"]) != bool(found["bias"]) or value.axes != "NCHW":
            raise NotSupportedError("batch normalization without running statistics, or of vectors")
        fields: dict[str, Any] = {}
        if (eps := node["args"][7]) != 1e-5:
            fields["eps"] = eps
        if (momentum := node["args"][6]) != 0.1:
            fields["momentum"] = momentum
        if not found["weight"]:
            fields["affine"] = False
        channels = (self._shape(value)[0],)
        weights = {name: (state, channels) for name, state in found.items() if state}
        made = self._add(node, "batch_norm2d", fields, [value], self._shape(value), weights)
        if given.axes == "NF":
            self._add(node, "flatten", {}, [made], channels)
        elif given.axes == "NDL":
            tokens = self._add(node, "tokens", {}, [made], self._shape(given))
            self._values[node["name"]] = replace(tokens, axes="NDL")

    def _as_maps(self, node: Node, value: Value) -> Value:
        """Return a vector that was maps of one place, or tokens whose features come first, as feature maps."""
        layer = value.layer
        before = layer.reads[0] if layer and layer.reads else None
        if value.axes == "NDL":
            length, features = self._shape(value)
            if before and before.shape == (features, 1, length):  # they were maps of one row
                return Value(before, "NCHW")
            return self._add(node, "maps", {"height": 1}, [value], (features, 1, length))
        if value.axes == "NF" and before and before.shape == (*self._shape(value), 1, 1):
            return Value(before, "NCHW")
        return self._plain(value)

    def _op_layer_norm(self, node: Node) -> None:
        value = self._value(node["args"][0])
        channels = self._shape(value)[-1] if len(self._shape(value)) < 3 else self._shape(value)[0]
        if node["args"][1] != [channels] or value.axes not in ("NHWC", "NLD", "NF"):
            raise NotSupportedError(f"layer normalization over {node['args'][1]} of axes {value.axes}")
        weight, bias = (self._state(self._argument(node, i, n, None)) for i, n in ((2, "weight"), (3, "bias")))
        fields: dict[str, Any] = {}
        if (eps := self._argument(node, 4, "eps", 1e-5)) != 1e-5:
            fields["eps"] = eps
        if not weight:
            fields["elementwise_affine"] = False
        elif not bias:
            fields["bias"] = False
        found = {"weight": weight, "bias": bias}
        weights = {name: (state, (channels,)) for name, state in found.items() if state}
        self._add(node, "layer_norm", fields, [value], self._shape(value), weights, value.axes)

    def _op_group_norm(self, node: Node) -> None:
        value = self._plain(self._value(node["args"][0]))
        weight, bias = (self._state(self._argument(node, i, n, None)) for i, n in ((2, "weight"), (3, "bias")))
        if bool(weight) != bool(bias):
            raise NotSupportedError("group normalization with a weight and no bias")
        fields: dict[str, Any] = {"num_groups": node["args"][1]}
        if (eps := self._argument(node, 4, "eps", 1e-5)) != 1e-5:
            fields["eps"] = eps
        if not weight:
            fields["affine"] = False
        channels = (self._shape(value)[0],)
        weights = {n: (s, channels) for n, s in (("weight", weight), ("bias", bias)) if s}
        self._add(node, "group_norm", fields, [value], self._shape(value), weights)

    def _op_max_pool2d(self, node: Node) -> None:
        self._pool(node, "max_pool2d", ("dilation", "ceil_mode"))

    def _op_avg_pool2d(self, node: Node) -> None:
        if self._argument(node, 6, "divisor_override", None) is not None:
            raise NotSupportedError("divisor_override")
        self._pool(node, "avg_pool2d", ("ceil_mode", "count_include_pad"))

    def _pool(self, node: Node, op: str, rest: tuple[str, str]) -> None:
        value = self._plain(self._value(node["args"][0], padded=op == "max_pool2d"))
        kernel = square(_two(node["args"][1]))
        stride = self._argument(node, 2, "stride", []) or node["args"][1]
        fields: dict[str, Any] = {"kernel_size": kernel}
        if square(_two(stride)) != kernel:
            fields["stride"] = square(_two(stride))
        if (padding := square(_two(self._argument(node, 3, "padding", 0)))) != 0:
            fields["padding"] = padding
        if any(value.pad):
            if padding:
                raise NotSupportedError("padding of a map that is padded")
            fields["padding"] = written_sides(*value.pad)
        for i, name in enumerate(rest, 4):
            usual = {"dilation": 1, "ceil_mode": False, "count_include_pad": True}[name]
            given = self._argument(node, i, name, usual)
            given = square(_two(given)) if name == "dilation" else given
            if given != usual:
                fields[name] = given
        self._add(node, op, fields, [value], tuple(node["shape"][1:]))

    def _op_avg_pool1d(self, node: Node) -> None:
        """Read means of consecutive tokens: of maps of one row."""
        value = self._value(node["args"][0])
        (size,), (stride,) = node["args"][1], self._argument(node, 2, "stride", None) or node["args"][1]
        if value.axes == "NCP":
            channels, *places = self._shape(value)
            value = replace(self._add(node, "tokens", {}, [value], (prod(places), channels)), axes="NDL")
        if value.axes != "NDL" or len(node["args"]) > 3 or node["kwargs"]:
            raise NotSupportedError(f"a pool of axes {value.axes}, or with padding")
        features = self._shape(value)[1]
        row = self._as_maps(node, value)
        fields = {"kernel_size": square([1, size]), **({"stride": square([1, stride])} if stride != size else {})}
        count = node["shape"][2]
        pooled = self._add(node, "avg_pool2d", fields, [row], (features, 1, count))
        self._values[node["name"]] = replace(self._add(node, "tokens", {}, [pooled], (count, features)), axes="NDL")

    def _op_adaptive_avg_pool2d(self, node: Node) -> None:
        value = self._plain(self._value(node["args"][0]))
        fields = {"output_size": square(_two(node["args"][1]))}
        self._add(node, "adaptive_avg_pool2d", fields, [value], tuple(node["shape"][1:]))

    def _op_mean(self, node: Node) -> None:
        value = self._value(node["args"][0])
        rank = len(value.axes)
        axes = "".join(sorted(value.axes[dim % rank] for dim in node["args"][1]))
        keep = self._argument(node, 2, "keepdim", False)
        if axes in ("HW", "P") and len(self._shape(value)) == 3 and not (keep and "P" in axes):
            channels, kept = self._shape(value)[0], value.axes
            fields = {"output_size": 1}
            pooled = self._add(node, "adaptive_avg_pool2d", fields, [value], (channels, 1, 1), axes=kept)
            if not keep:
                self._add(node, "flatten", {}, [replace(pooled, axes="NCHW")], (channels,))
        elif axes == "L" and not keep:
            self._add(node, "mean", {}, [value], self._shape(value)[1:])
        else:
            raise NotSupportedError(f"a mean over {axes} of axes {value.axes}")

    def _op_dropout(self, node: Node) -> None:
        kind = self._classes.get(_path(node), "")
        value = self._value(node["args"][0])
        p = node["args"][1]
        if not p:  # it never drops
            self._values[node["name"]] = value
            return
        op = "stochastic_depth" if kind in ("StochasticDepth", "DropPath") else "dropout"
        path = _path(node) if op == "stochastic_depth" else None
        self._add(node, op, {"p": p}, [value], self._shape(value), axes=value.axes, path=path)

    def _op_gelu(self, node: Node) -> None:
        kind = self._argument(node, 1, "approximate", "none")
        self._each(node, "gelu", {} if kind == "none" else {"approximate": kind})

    def _op_hardtanh(self, node: Node) -> None:
        if (self._argument(node, 1, "min_val", -1), self._argument(node, 2, "max_val", 1)) != (0, 6):
            raise NotSupportedError("a hardtanh other than relu6")
        self._op_relu6(node)

    def _op_relu6(self, node: Node) -> None:
        source = node["args"][0]
        if isinstance(source, dict) and (known := self._values.get(source.get("ref", ""))) and known.step == "x + 3":
            self._values[node["name"]] = replace(known, step="relu6(x + 3)")
        else:
            self._each(node, "relu6", {})

    def _op_div(self, node: Node) -> None:
        number = node["args"][1]
        if not isinstance(number, int | float) or not number or node["kwargs"]:
            raise NotSupportedError("a division by no number")
        source = node["args"][0]
        known = self._values.get(source["ref"]) if isinstance(source, dict) else None
        if known and known.step == "relu6(x + 3)":
            value = self._value(source, step=known.step)
            if number != 6:
                raise NotSupportedError(f"relu6(x + 3) / {number}")
            self._add(node, "hardsigmoid", {}, [value], self._shape(value), axes=value.axes)
        else:
            self._each(node, "rescaling", {"scale": 1 / number})

    def _op_sub(self, node: Node) -> None:
        a, b = node["args"][:2]
        if node["kwargs"].get("alpha", 1) != 1:
            raise NotSupportedError("a difference with a factor")
        if isinstance(b, int | float):
            self._each(node, "rescaling", {"offset": -float(b)})
            return
        if not isinstance(a, dict) or self._state(a) or self._state(b):
            raise NotSupportedError("a difference with a number or a parameter")
        self._value(a)
        value = self._value(b)
        negative = self._add(node, "rescaling", {"scale": -1.0}, [value], self._shape(value), axes=value.axes)
        del self._values[node["name"]]
        self._sum(node, "add", self._value(a), negative)

    def _op_neg(self, node: Node) -> None:
        self._each(node, "rescaling", {"scale": -1.0})

    def _op_channel_shuffle(self, node: Node) -> None:
        self._each(node, "channel_shuffle", {"groups": node["args"][1]})

    _op_native_channel_shuffle = _op_channel_shuffle

    def _op_leaky_relu(self, node: Node) -> None:
        slope = self._argument(node, 1, "negative_slope", 0.01)
        self._each(node, "leaky_relu", {} if slope == 0.01 else {"negative_slope": slope})

    def _op_elu(self, node: Node) -> None:
        alpha = self._argument(node, 1, "alpha", 1.0)
        self._each(node, "elu", {} if alpha == 1 else {"alpha": alpha})

    # --- branches ---

    def _branches_of(self, argument: Any) -> list[Value] | None:
        """Return the branches of a tensor (N, branches, C, H, W): those stacked, or blocks of channels."""
        name = argument["ref"] if isinstance(argument, dict) else ""
        view = self._attention.views.get(name)
        if name in self._branches and (not view or view.source == name):
            return self._branches[name]
        rest = view and [axes for axes in view.axes[1:] if axes]
        if not view or not rest or len(rest) < 2 or any(len(axes) != 1 or axes[0].of != 1 for axes in rest[:2]):
            return None
        (count,), (channels,) = rest[:2]
        places = [axes[0].of for axes in rest[2:] if len(axes) == 1]
        if count.stride != channels.size or channels.stride != 1 or places != [2, 3][: len(places)]:
            return None
        if view.source in self._branches:
            return self._branches[view.source] if len(self._branches[view.source]) == count.size else None
        root = self._root(view)
        total = self._shape(root)
        sizes = [channels.size, *(axes[0].size for axes in rest[2:])]
        if root.axes != "NCHW" or prod(sizes) * count.size != prod(total) or any(view.start):
            return None
        node = self._by_name[name]
        return [self._block(node, root, i * channels.size, channels.size, total[0]) for i in range(count.size)]

    def _op_stack(self, node: Node) -> None:
        values = [self._plain(self._value(argument)) for argument in node["args"][0]]
        if self._argument(node, 1, "dim", 0) != 1 or any(value.axes != "NCHW" for value in values):
            raise NotSupportedError("a stack of other tensors than feature maps, or along another axis than 1")
        self._branches[node["name"]] = values
        self._pending[node["name"]] = "feature maps that are stacked"

    def _op_sum(self, node: Node) -> None:
        branches = self._branches_of(node["args"][0])
        if not branches or node["args"][1] != [1] or self._argument(node, 2, "keepdim", False):
            raise NotSupportedError("a sum of other values than of stacked feature maps")
        self._add(node, "add", {}, branches, self._shape(branches[0]))

    def _weighted(self, node: Node) -> bool:
        """Read a product of branches with a factor for each; return whether it is one."""
        pair = [self._branches_of(argument) for argument in node["args"][:2]]
        if not pair[0] or not pair[1] or len(pair[0]) != len(pair[1]) or len(node["shape"]) != 5:
            return False
        values = []
        for a, b in zip(*pair, strict=True):
            self._sum(node, "mul", a, b)
            values.append(self._values.pop(node["name"]))
        self._branches[node["name"]] = values
        self._pending[node["name"]] = "feature maps that are stacked"
        return True

    def _between_branches(self, node: Node) -> bool:
        """Read a softmax over the branches, of each channel, as one of features; return whether it is one."""
        view = self._attention.views.get(node["args"][0]["ref"])
        branches = self._branches_of(node["args"][0]) if view else None
        if not view or not branches or self._shape(branches[0])[1:] != (1, 1):
            return False
        dim, channels = node["args"][1] % len(view.axes), self._shape(branches[0])[0]
        if len(view.axes[dim]) != 1 or view.axes[dim][0].stride != channels:
            return False
        columns = []
        for branch in branches:
            token = self._add(node, "tokens", {}, [branch], (1, channels))
            columns.append(self._add(node, "transpose", {}, [token], (channels, 1)))
        sides = self._add(node, "concat", {}, columns, (channels, len(columns)))
        weights = self._add(node, "softmax", {}, [sides], (channels, len(columns)))
        found = []
        for i in range(len(columns)):
            column = self._block(node, weights, i, 1, len(columns))
            token = self._add(node, "transpose", {}, [column], (1, channels))
            found.append(self._add(node, "maps", {"height": 1}, [token], (channels, 1, 1)))
        del self._values[node["name"]]
        self._branches[node["name"]] = found
        self._pending[node["name"]] = "a softmax over branches"
        return True

    def _op_softmax(self, node: Node) -> None:
        if node["args"][0]["ref"] in self._pending and self._between_branches(node):
            return
        value = self._value(node["args"][0])
        dim = node["args"][1] % len(value.axes)
        if value.axes[dim] not in "CDF":
            raise NotSupportedError(f"a softmax over axis {value.axes[dim]}")
        self._each(node, "softmax", {})

    def _op_add(self, node: Node) -> None:
        if node["args"][1] in (3, 3.0) and node["kwargs"].get("alpha", 1) == 1:
            self._values[node["name"]] = replace(self._value(node["args"][0]), step="x + 3")
            return
        if _is_number(node["args"][1], 0):  # sum() begins with it
            self._alias(node)
            return
        if isinstance(node["args"][1], int | float) and node["kwargs"].get("alpha", 1) == 1:
            self._each(node, "rescaling", {"offset": float(node["args"][1])})
            return
        self._combine(node, "add")

    def _op_mul(self, node: Node) -> None:
        if _is_number(node["args"][1], 1):
            self._alias(node)
            return
        if isinstance(node["args"][1], int | float):
            self._each(node, "rescaling", {"scale": float(node["args"][1])})
        elif not self._weighted(node):
            self._combine(node, "mul")

    def _combine(self, node: Node, op: str) -> None:
        states = [self._state(argument) for argument in node["args"][:2]]
        if node["kwargs"].get("alpha", 1) != 1 or not all(isinstance(a, dict) for a in node["args"][:2]):
            raise NotSupportedError("arithmetic with a number")
        if any(states):
            self._with_parameter(node, op, states)
            return
        a, b = (self._value(argument) for argument in node["args"][:2])
        self._sum(node, op, a, b)

    def _sum(self, node: Node, op: str, a: Value, b: Value) -> None:
        """Append a sum or a product of two values."""
        if {a.axes, b.axes} == {"NLD", "NDL"}:
            a, b = (self._transposed(node, v) if v.axes == "NDL" else v for v in (a, b))
        if a.axes != b.axes:
            raise NotSupportedError(f"axes {a.axes} and {b.axes}")
        values = sorted((a, b), key=lambda value: -self._shape(value)[0]) if op == "mul" else [a, b]
        shapes = [self._shape(value) for value in values]
        try:
            shape = output_shape(op, {}, shapes)
        except ShapeError:
            raise NotSupportedError(f"shapes {shapes[0]} and {shapes[1]}") from None
        self._add(node, op, {}, values, shape, axes=a.axes)

    def _with_parameter(self, node: Node, op: str, states: list[str | None]) -> None:
        i = 0 if states[0] else 1
        state = states[i]
        assert state
        value = self._value(node["args"][1 - i])
        shape = self._shape(value)
        size = self._by_name[node["args"][i]["ref"]]["shape"]
        if op == "add" and value.axes == "NLD" and size == [1, *shape]:
            self._named(node, state, "position_embedding", value, shape, {"weight": (state, (1, *shape))})
        elif op == "add" and value.axes in ("NCHW", "NHWC") and size == [1, *self._sizes(value)[1:]]:
            self._places(node, state, value, size)
        elif op == "mul" and prod(size) == (shape[-1] if len(shape) < 3 else shape[0]):
            channels = prod(size)
            self._named(node, state, "layer_scale", value, shape, {"weight": (state, (channels,))})
        else:
            raise NotSupportedError(f"{op} of a parameter of {size}")

    def _sizes(self, value: Value) -> list[int]:
        """Return the sizes of a tensor's axes, 0 for the batch."""
        canonical = {3: "CHW", 2: "LD", 1: "F"}[len(self._shape(value))]
        return [self._shape(value)[canonical.index(a)] if a != "N" else 0 for a in value.axes]

    def _places(self, node: Node, state: str, value: Value, size: list[int]) -> None:
        """Add a position embedding to feature maps: as tokens, which then are maps again."""
        channels, height, width = self._shape(value)
        tokens = self._add(node, "tokens", {}, [value], (height * width, channels))
        order = tuple(value.axes.index(axis) for axis in "NHWC")
        origin = (state, (1, height * width, channels), tuple(size), order)
        self._named(node, state, "position_embedding", tokens, (height * width, channels), {"weight": origin})
        made = self._values[node["name"]]
        maps = {"height": height}
        self._values[node["name"]] = replace(self._add(node, "maps", maps, [made], self._shape(value)), axes=value.axes)

    def _named(
        self, node: Node, state: str, op: str, value: Value, shape: Shape, weights: Mapping[str, tuple[Any, ...]]
    ) -> None:
        """Append a layer with the name of the parameter that it is."""
        self._add(node, op, {}, [value], shape, weights, value.axes, state)

    def _op_expand(self, node: Node) -> None:
        self._alias(node)
        if node["name"] in self._states:
            self._by_name[node["name"]]["shape"] = self._by_name[node["args"][0]["ref"]]["shape"]

    def _op_cat(self, node: Node) -> None:
        arguments = node["args"][0]
        states = [self._state(argument) for argument in arguments]
        if len(arguments) == 2 and states[0] and self._value(arguments[1]).axes == "NLD":
            value = self._value(arguments[1])
            length, features = self._shape(value)
            weights = {"weight": (states[0], (1, 1, features))}
            self._named(node, states[0], "class_token", value, (length + 1, features), weights)
            return
        values = [self._value(argument) for argument in arguments]
        if len(values) == 1:
            self._values[node["name"]] = values[0]
            return
        dim = self._argument(node, 1, "dim", 0) % len(values[0].axes)
        if all(value.axes == "NLD" for value in values) and dim == 1:  # tokens: as features, between two transpositions
            exchanged = [self._transposed(node, value) for value in values]
            shapes = [self._shape(value) for value in exchanged]
            joined = self._add(node, "concat", {}, exchanged, (shapes[0][0], sum(shape[1] for shape in shapes)))
            self._values[node["name"]] = self._transposed(node, joined)
            return
        if len({value.axes for value in values}) > 1 or values[0].axes[dim] not in "CDF":
            raise NotSupportedError(f"a concatenation along axis {values[0].axes[dim]}")
        shapes = [self._shape(value) for value in values]
        total = sum(s[-1] if len(s) == 2 else s[0] for s in shapes)
        shape = (shapes[0][0], total) if len(shapes[0]) == 2 else (total, *shapes[0][1:])
        self._add(node, "concat", {}, values, shape, axes=values[0].axes)

    def _op_pad(self, node: Node) -> None:
        value = self._plain(self._value(node["args"][0]))
        sides = node["args"][1]
        mode, fill = self._argument(node, 2, "mode", "constant"), self._argument(node, 3, "value", None)
        if fill == float("-inf") and value.axes == "NCHW" and len(sides) == 4 and min(sides) >= 0:
            left, right, top, bottom = sides
            self._values[node["name"]] = replace(value, pad=(top, bottom, left, right))
            return
        if not any(sides):
            self._values[node["name"]] = value
            return
        if mode == "constant" and not fill and value.axes == "NCHW" and len(sides) == 4 and min(sides) < 0:
            self._moved(node, value, sides)
            return
        spatial = len(sides) == 4 or not any(sides[4:])
        if value.axes != "NCHW" or mode != "constant" or fill or len(sides) not in (4, 6) or min(sides) < 0:
            raise NotSupportedError(f"padding by {sides} of axes {value.axes}")
        if not spatial and any(sides[:4]):
            raise NotSupportedError(f"padding by {sides}, of channels and places at once")
        channels, *places = self._shape(value)
        if spatial:
            left, right, top, bottom = sides[:4]
            shape = (channels, top + places[0] + bottom, left + places[1] + right)
            self._add(node, "zero_pad2d", {"padding": written_sides(top, bottom, left, right)}, [value], shape)
            return
        before, after = sides[4:]
        fields = {"before": before, "after": after}
        self._add(node, "pad_channels", fields, [value], (before + channels + after, *places))

    def _moved(self, node: Node, value: Value, sides: list[int]) -> None:
        """Move maps by rows and columns: pad them by twice as many, of which a center crop leaves the middle."""
        left, right, top, bottom = sides
        if left + right or top + bottom:
            raise NotSupportedError(f"padding by {sides}")
        channels, height, width = self._shape(value)
        padding = [max(2 * side, 0) for side in (top, bottom, left, right)]
        shape = (channels, height + padding[0] + padding[1], width + padding[2] + padding[3])
        padded = self._add(node, "zero_pad2d", {"padding": written_sides(*padding)}, [value], shape)
        self._add(node, "center_crop", {}, [padded, value], self._shape(value))

    def _op_chunk(self, node: Node) -> None:
        self._split(node)

    def _op_split(self, node: Node) -> None:
        self._split(node)

    _op_split_with_sizes = _op_split

    def _split(self, node: Node) -> None:
        value = self._value(node["args"][0])
        dim = self._argument(node, 2, "dim", 0) % len(value.axes)
        if value.axes[dim] not in "CDF":
            raise NotSupportedError(f"a split of axis {value.axes[dim]}")
        self._splits[node["name"]] = (value, node)

    def _op_getitem(self, node: Node) -> None:
        source = node["args"][0]["ref"]
        if source not in self._splits:
            raise UnknownInputError
        value, split = self._splits[source]
        index = node["args"][1]
        shape = self._shape(value)
        channels = shape[-1] if len(shape) == 2 else shape[0]
        given = split["args"][1]
        if target_of(split) == "chunk":
            each = -(-channels // given)
            sizes = [each] * (channels // each) + ([channels % each] if channels % each else [])
        elif isinstance(given, int):
            sizes = [given] * (channels // given) + ([channels % given] if channels % given else [])
        else:
            sizes = list(given)
        self._taken(node, value, sizes, index)

    # --- axes ---

    def _op_permute(self, node: Node) -> None:
        self._reorder(node, [d % len(node["args"][1]) for d in node["args"][1]])

    def _op_transpose(self, node: Node) -> None:
        value = self._value(node["args"][0])
        rank = len(value.axes)
        order = list(range(rank))
        a, b = (d % rank for d in node["args"][1:])
        order[a], order[b] = order[b], order[a]
        self._reorder(node, order)

    _op_swapaxes = _op_transpose

    def _reorder(self, node: Node, order: list[int]) -> None:
        value = self._value(node["args"][0])
        if len(order) != len(value.axes):
            raise NotSupportedError(f"axes {value.axes} in the order {order}")
        axes = "".join(value.axes[i] for i in order)
        if axes == "NPC":
            self._tokens(node, value)
        else:
            self._values[node["name"]] = Value(value.layer, axes)

    def _op_flatten(self, node: Node) -> None:
        value = self._value(node["args"][0])
        first = self._argument(node, 1, "start_dim", 0)
        last = self._argument(node, 2, "end_dim", -1) % len(value.axes)
        if first == last:
            self._values[node["name"]] = value
        elif first == 1 and last == len(value.axes) - 1:
            self._vector(node, value)
        elif (first, last, value.axes) == (2, 3, "NCHW"):
            self._values[node["name"]] = Value(value.layer, "NCP")
        elif (first, last, value.axes) == (1, 2, "NHWC"):
            self._tokens(node, value)
        else:
            raise NotSupportedError(f"axes {first} to {last} of {value.axes} flattened")

    def _vector(self, node: Node, value: Value) -> None:
        shape = self._shape(value)
        if len(shape) == 1:
            self._values[node["name"]] = value
        elif value.axes in ("NCHW", "NLD") or (value.axes == "NHWC" and shape[1:] == (1, 1)):
            self._add(node, "flatten", {}, [value], (prod(shape),))
        else:
            raise NotSupportedError(f"axes {value.axes} as a vector")

    def _tokens(self, node: Node, value: Value) -> None:
        channels, height, width = self._shape(value)
        self._add(node, "tokens", {}, [value], (height * width, channels))

    def _op_view(self, node: Node) -> None:
        self._reshape(node)

    _op_reshape = _op_view
    _op__unsafe_view = _op_view

    def _reshape(self, node: Node) -> None:
        name = node["args"][0]["ref"]
        shape = node["shape"]
        if name in self._states:
            self._states[node["name"]] = self._states[name]
            return
        value = self._value(node["args"][0])
        own = self._shape(value)
        if tuple(shape[1:]) == own and value.axes in ("NCHW", "NLD", "NF"):
            self._values[node["name"]] = value
        elif len(shape) == 2 and prod(shape[1:]) == prod(own):
            self._vector(node, value)
        elif value.axes == "NCHW" and shape[1:] == [own[0], own[1] * own[2]]:
            self._values[node["name"]] = Value(value.layer, "NCP")
        elif value.axes == "NF" and shape[1:] == [own[0], 1, 1]:
            raise NotSupportedError("a vector as feature maps")
        else:
            raise NotSupportedError(f"{tuple(shape)} of axes {value.axes}")

    def _op_select(self, node: Node) -> None:
        value = self._value(node["args"][0])
        dim, index = node["args"][1] % len(value.axes), node["args"][2]
        if value.axes != "NLD" or dim != 1:
            raise NotSupportedError(f"an item of axis {value.axes[dim]}")
        length, features = self._shape(value)
        self._add(node, "select", {"index": index % length}, [value], (features,))

    def _op_slice(self, node: Node) -> None:
        value = self._value(node["args"][0])
        if tuple(node["shape"][1:]) == self._shape(value):
            self._values[node["name"]] = value
            return
        dim = self._argument(node, 1, "dim", 0) % len(value.axes)
        start, step = self._argument(node, 2, "start", None) or 0, self._argument(node, 4, "step", 1)
        size = self._by_name[node["args"][0]["ref"]]["shape"][dim]
        start += size if start < 0 else 0
        if step != 1 or value.axes[dim] not in "CDFL":
            raise NotSupportedError(f"a slice of axis {value.axes[dim]}")
        taken = node["shape"][dim]
        sizes = [n for n in (start, taken, size - start - taken) if n]
        if value.axes[dim] == "L":  # tokens: as features, between two transpositions
            value = self._transposed(node, value)
            part = self._taken(node, value, sizes, int(start > 0))
            self._values[node["name"]] = self._transposed(node, part)
        else:
            self._taken(node, value, sizes, int(start > 0))

    def _taken(self, node: Node, value: Value, sizes: list[int], index: int) -> Value:
        """Append a split along channels or features; return the part at `index`."""
        shape = self._shape(value)
        fields = {"sections": len(sizes)} if len(set(sizes)) == 1 else {"sizes": sizes}
        out = (shape[0], sizes[index]) if len(shape) == 2 else (sizes[index], *shape[1:])
        return self._add(node, "split", {**fields, "index": index}, [value], out, axes=value.axes)

    def _op_upsample_nearest2d(self, node: Node) -> None:
        self._upsample(node, {})

    def _op_upsample_bilinear2d(self, node: Node) -> None:
        aligned = {"align_corners": True} if node["args"][2] else {}
        self._upsample(node, {"mode": "bilinear", **aligned})

    def _upsample(self, node: Node, fields: dict[str, Any]) -> None:
        value = self._plain(self._value(node["args"][0]))
        before, after = self._shape(value), node["shape"][1:]
        if any(b % a for a, b in zip(before[1:], after[1:], strict=True)):
            raise NotSupportedError("an upsampling by no whole factor")
        factors = square([b // a for a, b in zip(before[1:], after[1:], strict=True)])
        self._add(node, "upsample", {"scale_factor": factors, **fields}, [value], tuple(after))


def _refs(node: Node) -> list[str]:
    return references((node["args"], node["kwargs"]))


def _is_number(argument: Any, number: int) -> bool:
    return isinstance(argument, int | float) and argument == number


def _path(node: Node) -> str:
    return str(node["stack"][-1][0]) if node["stack"] else ""


def _two(value: Any) -> list[int]:
    found = value if isinstance(value, list) else [value, value]
    return found * 2 if len(found) == 1 else found
