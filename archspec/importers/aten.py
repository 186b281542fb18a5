"""From the operators that torch.export captures to layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from archspec.importers.attention import SelfAttention, find_attention, references
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
    square,
)
from archspec.language.ops.base import written_sides

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


class Importer:
    """Walks over the nodes of a captured graph."""

    def __init__(self, captured: dict[str, Any], input_shape: Shape) -> None:
        self._nodes: list[Node] = captured["nodes"]
        self._described: dict[str, Any] = captured["layers"]
        self._classes: dict[str, str] = captured["classes"]
        self._input_shape = input_shape
        self._by_name = {node["name"]: node for node in self._nodes}
        self._values: dict[str, Value] = {}
        self._states: dict[str, str] = {}  # parameters and buffers, and what is only another shape of them
        self._splits: dict[str, tuple[Value, Node]] = {}
        self._reshaped: dict[str, tuple[Value, Shape]] = {}  # channels in groups, on the way to a shuffle
        found, self._against = find_attention(self._nodes)
        self._attention = {name: attention for attention in found for name in attention.nodes}
        self.layers = LayerList()
        self.output: Value | None = None

    def run(self) -> list[Layer]:
        """Return the layers in their order; raise UnsupportedModelError with all operators that no op is."""
        unsupported: list[Unsupported] = []
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
                    elif node["name"] in self._attention:
                        self._part(node, self._attention[node["name"]])
                    else:
                        self._call(node)
                except NotSupportedError as error:
                    unsupported.append(Unsupported(_short(node["target"]), _path(node), node["line"], str(error)))
                except UnknownInputError:
                    continue
        if unsupported:
            raise UnsupportedModelError(unsupported, total)
        if self.output is None or self.output.layer is None:
            raise UnsupportedModelError([Unsupported("output", "", "", "the output is no layer's")], total)
        return leading_to(self.output.layer, self.layers)  # without halves of a split that nothing reads

    # --- values ---

    def _placeholder(self, node: Node) -> None:
        if node["state"]:
            self._states[node["name"]] = node["state"]
        else:
            axes = {3: "NCHW", 2: "NLD", 1: "NF"}[len(self._input_shape)]
            self._values[node["name"]] = Value(None, axes)

    def _value(self, argument: Any, *, step: str = "", padded: bool = False) -> Value:
        name = argument["ref"] if isinstance(argument, dict) and "ref" in argument else ""
        if name in self._values:
            value = self._values[name]
            if value.step != step:
                raise NotSupportedError(f"reads {value.step}" if value.step else "arithmetic with a number")
            if any(value.pad) and not padded:
                raise NotSupportedError("reads a map padded with minus infinity")
            return value
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
        weights: Mapping[str, tuple[str, Shape]] | None = None,
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
            if path in self._described:
                return str(path)
        return None

    def _module(self, path: str, node: Node) -> None:
        """Read all of a module as one layer: its first node is `node`."""
        inside = [n for n in self._nodes if n["kind"] == "call_function" and self._whole(n) == path]
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

    def _part(self, node: Node, attention: SelfAttention) -> None:
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

    # --- operators ---

    def _call(self, node: Node) -> None:
        target = _short(node["target"])
        if target in IDENTITY:
            self._alias(node)
            return
        handler: Callable[[Node], None] | None = getattr(self, f"_op_{target}", None)
        if handler:
            handler(node)
        elif target in ACTIVATIONS:
            self._each(node, ACTIVATIONS[target], {})
        else:
            raise NotSupportedError(self._against.get(node["name"], ""))

    def _alias(self, node: Node) -> None:
        source = node["args"][0]["ref"]
        if state := self._states.get(source):
            self._states[node["name"]] = state
        elif source in self._reshaped:
            self._reshaped[node["name"]] = self._reshaped[source]
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
        value = self._plain(self._value(node["args"][0]))
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
        self._add(node, "batch_norm2d", fields, [value], self._shape(value), weights)

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

    def _op_adaptive_avg_pool2d(self, node: Node) -> None:
        value = self._plain(self._value(node["args"][0]))
        fields = {"output_size": square(_two(node["args"][1]))}
        self._add(node, "adaptive_avg_pool2d", fields, [value], tuple(node["shape"][1:]))

    def _op_mean(self, node: Node) -> None:
        value = self._value(node["args"][0])
        rank = len(value.axes)
        axes = "".join(sorted(value.axes[dim % rank] for dim in node["args"][1]))
        keep = self._argument(node, 2, "keepdim", False)
        if axes == "HW" and value.axes == "NCHW":
            channels = self._shape(value)[0]
            pooled = self._add(node, "adaptive_avg_pool2d", {"output_size": 1}, [value], (channels, 1, 1))
            if not keep:
                self._add(node, "flatten", {}, [pooled], (channels,))
        elif axes == "L" and value.axes == "NLD" and not keep:
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
        value = self._value(node["args"][0], step="relu6(x + 3)")
        if node["args"][1] != 6:
            raise NotSupportedError("arithmetic with a number")
        self._add(node, "hardsigmoid", {}, [value], self._shape(value), axes=value.axes)

    def _op_channel_shuffle(self, node: Node) -> None:
        self._each(node, "channel_shuffle", {"groups": node["args"][1]})

    _op_native_channel_shuffle = _op_channel_shuffle

    def _op_leaky_relu(self, node: Node) -> None:
        slope = self._argument(node, 1, "negative_slope", 0.01)
        self._each(node, "leaky_relu", {} if slope == 0.01 else {"negative_slope": slope})

    def _op_elu(self, node: Node) -> None:
        alpha = self._argument(node, 1, "alpha", 1.0)
        self._each(node, "elu", {} if alpha == 1 else {"alpha": alpha})

    def _op_softmax(self, node: Node) -> None:
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
        self._combine(node, "add")

    def _op_mul(self, node: Node) -> None:
        if _is_number(node["args"][1], 1):
            self._alias(node)
            return
        self._combine(node, "mul")

    def _combine(self, node: Node, op: str) -> None:
        states = [self._state(argument) for argument in node["args"][:2]]
        if node["kwargs"].get("alpha", 1) != 1 or not all(isinstance(a, dict) for a in node["args"][:2]):
            raise NotSupportedError("arithmetic with a number")
        if any(states):
            self._with_parameter(node, op, states)
            return
        a, b = (self._value(argument) for argument in node["args"][:2])
        if {a.axes, b.axes} == {"NLD", "NDL"}:
            a, b = (self._transposed(node, v) if v.axes == "NDL" else v for v in (a, b))
        if a.axes != b.axes:
            raise NotSupportedError(f"axes {a.axes} and {b.axes}")
        shapes = [self._shape(a), self._shape(b)]
        largest = max(shapes, key=prod)
        if any(s != largest and (op == "add" or s != (largest[0], 1, 1)) for s in shapes):
            raise NotSupportedError(f"shapes {shapes[0]} and {shapes[1]}")
        self._add(node, op, {}, [a, b], largest, axes=a.axes)

    def _with_parameter(self, node: Node, op: str, states: list[str | None]) -> None:
        i = 0 if states[0] else 1
        state = states[i]
        assert state
        value = self._value(node["args"][1 - i])
        shape = self._shape(value)
        size = self._by_name[node["args"][i]["ref"]]["shape"]
        if op == "add" and value.axes == "NLD" and size == [1, *shape]:
            self._named(node, state, "position_embedding", value, shape, {"weight": (state, (1, *shape))})
        elif op == "mul" and prod(size) == (shape[-1] if len(shape) < 3 else shape[0]):
            channels = prod(size)
            self._named(node, state, "layer_scale", value, shape, {"weight": (state, (channels,))})
        else:
            raise NotSupportedError(f"{op} of a parameter of {size}")

    def _named(
        self, node: Node, state: str, op: str, value: Value, shape: Shape, weights: Mapping[str, tuple[str, Shape]]
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
        if _short(split["target"]) == "chunk":
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
        name = node["args"][0]["ref"]
        if name in self._reshaped:
            self._reshaped[node["name"]] = self._reshaped[name]
            if sorted(node["args"][1:]) != [1, 2]:
                raise NotSupportedError("axes of groups exchanged")
            return
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
        if name in self._reshaped:
            value, groups = self._reshaped[name]
            if tuple(shape[1:]) != self._shape(value):
                raise NotSupportedError("channels in groups as other axes")
            self._add(node, "channel_shuffle", {"groups": groups[0]}, [value], self._shape(value))
            return
        value = self._value(node["args"][0])
        own = self._shape(value)
        if tuple(shape[1:]) == own and value.axes in ("NCHW", "NLD", "NF"):
            self._values[node["name"]] = value
        elif len(shape) == 2 and prod(shape[1:]) == prod(own):
            self._vector(node, value)
        elif value.axes == "NCHW" and shape[1:] == [own[0], own[1] * own[2]]:
            self._values[node["name"]] = Value(value.layer, "NCP")
        elif value.axes == "NCHW" and len(shape) == 5 and shape[3:] == list(own[1:]) and shape[1] * shape[2] == own[0]:
            self._reshaped[node["name"]] = (value, (shape[1], shape[2]))
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


def _short(target: str) -> str:
    """Return `conv2d` of `aten.conv2d.default`, `add` of `aten.add_.Tensor`."""
    name = target.split(".")[1] if target.startswith("aten.") else target.rpartition(".")[2]
    return name.rstrip("_") if not name.startswith("__") else name


def _is_number(argument: Any, number: int) -> bool:
    return isinstance(argument, int | float) and argument == number


def _path(node: Node) -> str:
    return str(node["stack"][-1][0]) if node["stack"] else ""


def _two(value: Any) -> list[int]:
    found = value if isinstance(value, list) else [value, value]
    return found * 2 if len(found) == 1 else found
