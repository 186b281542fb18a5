"""ONNX models: read by the onnx package, with constants folded."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspec.importers import process
from archspec.importers.layers import (
    Captured,
    ImportFailedError,
    Layer,
    LayerList,
    NotSupportedError,
    Origin,
    Shape,
    UnknownInputError,
    Unsupported,
    UnsupportedModelError,
    output_shape,
    square,
)
from archspec.language.ops import OPS
from archspec.language.ops.base import ShapeError, channels_of, written_sides

if TYPE_CHECKING:
    from archspec.importers.layers import Array

KIND = "onnx"
WORKER = "onnx_import.py"
MOST_VALUES = 2**30  # of a constant that is computed
IDENTITY = ("Identity", "Cast")
EACH: dict[str, tuple[str, dict[str, tuple[str, float]]]] = {  # op, and attributes: ours and ONNX' default
    "Relu": ("relu", {}),
    "Sigmoid": ("sigmoid", {}),
    "Tanh": ("tanh", {}),
    "Softplus": ("softplus", {}),
    "Mish": ("mish", {}),
    "HardSwish": ("hardswish", {}),
    "LeakyRelu": ("leaky_relu", {"alpha": ("negative_slope", 0.01)}),
    "Elu": ("elu", {"alpha": ("alpha", 1.0)}),
}


@dataclass(frozen=True)
class Value:
    """A tensor: the layer whose output it is, the network's input if None, and its shape without the batch."""

    layer: Layer | None
    shape: Shape
    order: tuple[int, ...] = ()  # of a channel shuffle: (groups, channels in each), exchanged or not yet
    exchanged: bool = False


class Importer:
    """Walks over the nodes of a graph."""

    def __init__(self, model: Any, input_shape: Shape | None) -> None:
        from onnx import numpy_helper

        self._graph = model.graph
        self._opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
        self.constants: dict[str, Any] = {}
        for initializer in self._graph.initializer:
            self.constants[initializer.name] = numpy_helper.to_array(initializer)
        self._derived: dict[str, tuple[str, Any]] = {}  # constants that are another shape of a weight: its name
        self._values: dict[str, Value] = {}
        self._uses: Counter[str] = Counter(name for node in self._graph.node for name in node.input)
        self.layers = LayerList()
        self.input = self._input(input_shape)

    def _input(self, given: Shape | None) -> Shape:
        inputs = [value for value in self._graph.input if value.name not in self.constants]
        if len(inputs) != 1:
            raise UnsupportedModelError([Unsupported("input", "", "", f"a model of {len(inputs)} inputs")], 1)
        sizes = [d.dim_value or None for d in inputs[0].type.tensor_type.shape.dim][1:]
        shape = given or tuple(b if a is None else a for a, b in zip(sizes, (3, 224, 224), strict=False))
        if len(sizes) not in (1, 3) or len(shape) != len(sizes):
            raise ImportFailedError(f"the model's input has {len(sizes) + 1} axes: it is neither images nor a vector")
        self._values[inputs[0].name] = Value(None, shape)
        return shape

    def run(self) -> list[Layer]:
        """Return the layers in their order; raise UnsupportedModelError with all operators that no op is."""
        unsupported: list[Unsupported] = []
        total = 0
        for node in self._graph.node:
            if all(name in self.constants for name in node.input if name):
                self._fold(node)
                continue
            total += 1
            try:
                self._node(node)
            except (NotSupportedError, ShapeError) as error:
                unsupported.append(Unsupported(node.op_type, node.name or node.output[0], "", str(error)))
            except UnknownInputError:
                continue
        if not unsupported and len(self._graph.output) != 1:
            unsupported.append(Unsupported("output", "", "", f"a model of {len(self._graph.output)} outputs"))
        if unsupported:
            raise UnsupportedModelError(unsupported, total)
        end = self._values.get(self._graph.output[0].name)
        if end is None or end.layer is None or end.layer is not self.layers[-1]:
            raise UnsupportedModelError(
                [Unsupported("output", "", "", "the output is not that of the last layer")], total
            )
        return self.layers

    # --- constants ---

    def _fold(self, node: Any) -> None:
        """Compute a node whose inputs are all constants."""
        import numpy as np
        from onnx import helper, numpy_helper

        fields = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "ConstantOfShape":
            shape = [int(n) for n in self.constants[node.input[0]]]
            if prod(shape) > MOST_VALUES or any(n < 0 for n in shape):
                raise ImportFailedError(f"{node.output[0]} would have {prod(shape):,} values")
            value = numpy_helper.to_array(fields["value"]) if "value" in fields else np.zeros(1, np.float32)
            self.constants[node.output[0]] = np.broadcast_to(value.ravel(), shape)
            return
        if node.op_type in ("Unsqueeze", "Squeeze", "Reshape", "Flatten") and node.input[0] in self.constants:
            source = node.input[0]
            value = self.constants[source]
            made = self._evaluate(node) if node.op_type == "Flatten" or len(node.input) > 1 else None
            if made is None:
                axes = [int(a) for a in fields.get("axes", fields.get("shape", ()))]
                if node.op_type == "Unsqueeze":
                    made = np.expand_dims(value, tuple(axes))
                elif node.op_type == "Squeeze":
                    made = np.squeeze(value, tuple(axes) if axes else None)
                else:
                    made = value.reshape(axes)
            self.constants[node.output[0]] = made
            self._derived[node.output[0]] = (self._derived.get(source, (source, None))[0], made)
            return
        for name, made in zip(node.output, self._outputs(node), strict=False):
            self.constants[name] = made

    def _evaluate(self, node: Any) -> Any:
        return self._outputs(node)[0]

    def _outputs(self, node: Any) -> list[Any]:
        import numpy as np
        from onnx import TensorProto, helper
        from onnx.reference import ReferenceEvaluator

        names = [name for name in dict.fromkeys(node.input) if name]
        size = sum(int(np.asarray(self.constants[name]).size) for name in names)
        if size > MOST_VALUES or node.op_type in ("Loop", "Scan", "If", "Expand", "Tile", "Range", "Resize", "Pad"):
            raise ImportFailedError(f"{node.op_type} of constants is not computed")
        kind = TensorProto.FLOAT
        inputs = [helper.make_tensor_value_info(name, kind, None) for name in names]
        outputs = [helper.make_tensor_value_info(name, kind, None) for name in node.output]
        graph = helper.make_graph([node], "one", inputs, outputs)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self._opset)])
        found = ReferenceEvaluator(model).run(None, {name: self.constants[name] for name in names})
        return list(found)

    def _constant(self, name: str) -> Any:
        if name not in self.constants:
            raise NotSupportedError("reads a value where only a constant is known")
        return self.constants[name]

    def _weight(self, name: str) -> str:
        """Return the key of a weight; one that has another shape is known by its source."""
        return self._derived.get(name, (name, None))[0]

    # --- nodes ---

    def _node(self, node: Any) -> None:
        from onnx import helper

        if node.domain not in ("", "ai.onnx"):
            raise NotSupportedError(f"of the domain {node.domain}")
        fields = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Shape":
            import numpy as np

            self.constants[node.output[0]] = np.array([1, *self._read(node.input[0]).shape], np.int64)
            return
        if node.op_type in IDENTITY:
            self._values[node.output[0]] = self._read(node.input[0])
            return
        if node.op_type in EACH:
            op, known = EACH[node.op_type]
            given = {ours: _short(fields[theirs]) for theirs, (ours, _) in known.items() if theirs in fields}
            usual = OPS[op].model_fields
            self._add(node, op, {k: v for k, v in given.items() if v != usual[k].default}, [self._read(node.input[0])])
            return
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", node.op_type).lower()
        handler: Callable[[Any, dict[str, Any]], None] | None = getattr(self, f"_op_{name}", None)
        if handler is None:
            raise NotSupportedError("")
        handler(node, fields)

    def _read(self, name: str) -> Value:
        if name not in self._values:
            if name in self.constants:
                raise NotSupportedError(f"{name} is used as an activation")
            raise UnknownInputError
        value = self._values[name]
        if value.order:
            raise NotSupportedError("reads channels in groups")
        return value

    def _add(
        self,
        node: Any,
        op: str,
        fields: dict[str, Any],
        reads: list[Value],
        weights: Mapping[str, Origin] | None = None,
        output: str = "",
    ) -> Value:
        shape = output_shape(op, fields, [value.shape for value in reads])
        first = next(iter((weights or {}).values()), None)
        path = _path(first.key if first else "", node)
        classes = tuple("Sequential" for _ in path[:-1])
        layer = self.layers.add(path, op, fields, [value.layer for value in reads], shape, weights, classes)
        value = self._values[output or node.output[0]] = Value(layer, shape)
        return value

    def _padding(self, fields: dict[str, Any], kernel: list[int]) -> dict[str, Any]:
        """Return stride, padding and dilation where they are not the usual ones."""
        found: dict[str, Any] = {}
        strides = [int(n) for n in fields.get("strides", [1, 1])]
        dilations = [int(n) for n in fields.get("dilations", [1, 1])]
        if strides != [1, 1]:
            found["stride"] = square(strides)
        auto = fields.get("auto_pad", b"NOTSET").decode()
        top, left, bottom, right = (int(n) for n in fields.get("pads", [0, 0, 0, 0]))
        margins = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
        even = strides == [1, 1] and not any(n % 2 for n in margins)
        if auto in ("SAME_UPPER", "SAME_LOWER") and even:
            if any(margins):
                found["padding"] = square([n // 2 for n in margins])
        elif auto == "SAME_UPPER":
            found["padding"] = "same"
        elif auto == "SAME_LOWER":
            raise NotSupportedError("auto_pad SAME_LOWER")
        elif auto != "VALID" and any((top, left, bottom, right)):
            found["padding"] = written_sides(top, bottom, left, right)
        if dilations != [1, 1]:
            found["dilation"] = square(dilations)
        return found

    def _op_conv(self, node: Any, fields: dict[str, Any]) -> None:
        value, weight = self._read(node.input[0]), self._constant(node.input[1])
        if weight.ndim != 4:
            raise NotSupportedError(f"a convolution over {weight.ndim - 2} axes")
        out, groups, kernel = weight.shape[0], int(fields.get("group", 1)), [int(n) for n in weight.shape[2:]]
        known: dict[str, Any] = {"out_channels": out, "kernel_size": square(kernel), **self._padding(fields, kernel)}
        if groups != 1:
            known["groups"] = groups
        weights = {"weight": Origin(self._weight(node.input[1]), tuple(weight.shape))}
        self._bias(node, known, weights, out, 2)
        self._add(node, "conv2d", known, [value], weights)

    def _bias(self, node: Any, known: dict[str, Any], weights: dict[str, Origin], size: int, index: int) -> None:
        if len(node.input) > index and node.input[index]:
            bias = self._constant(node.input[index])
            if bias.size != size:
                raise NotSupportedError(f"a bias of {bias.size} values")
            weights["bias"] = Origin(self._weight(node.input[index]), (size,))
        else:
            known["bias"] = False

    def _op_conv_transpose(self, node: Any, fields: dict[str, Any]) -> None:
        value, weight = self._read(node.input[0]), self._constant(node.input[1])
        if weight.ndim != 4 or "output_shape" in fields or fields.get("auto_pad", b"NOTSET") != b"NOTSET":
            raise NotSupportedError("output_shape or auto_pad")
        groups, kernel = int(fields.get("group", 1)), [int(n) for n in weight.shape[2:]]
        out = weight.shape[1] * groups
        known: dict[str, Any] = {"out_channels": out, "kernel_size": square(kernel), **self._padding(fields, kernel)}
        if isinstance(known.get("padding"), dict):
            raise NotSupportedError("other pads at the end")
        if any(extra := [int(n) for n in fields.get("output_padding", [0, 0])]):
            known["output_padding"] = square(extra)
        if groups != 1:
            known["groups"] = groups
        weights = {"weight": Origin(self._weight(node.input[1]), tuple(weight.shape))}
        self._bias(node, known, weights, out, 2)
        self._add(node, "conv_transpose2d", known, [value], weights)

    def _op_gemm(self, node: Any, fields: dict[str, Any]) -> None:
        if fields.get("alpha", 1.0) != 1 or fields.get("beta", 1.0) != 1 or fields.get("transA", 0):
            raise NotSupportedError("alpha, beta or transA")
        self._linear(node, bool(fields.get("transB", 0)))

    def _op_mat_mul(self, node: Any, fields: dict[str, Any]) -> None:
        self._linear(node, False)

    def _linear(self, node: Any, transposed: bool) -> None:
        value, weight = self._read(node.input[0]), self._constant(node.input[1])
        if weight.ndim != 2 or len(value.shape) == 3:
            raise NotSupportedError("a product of these axes")
        out, size = weight.shape if transposed else weight.shape[::-1]
        known: dict[str, Any] = {"out_features": int(out)}
        weights = {"weight": Origin(self._weight(node.input[1]), (out, size), None, None if transposed else (1, 0))}
        self._bias(node, known, weights, out, 2)
        self._add(node, "linear", known, [value], weights)

    # --- norms ---

    def _op_batch_normalization(self, node: Any, fields: dict[str, Any]) -> None:
        value = self._read(node.input[0])
        channels = (channels_of(value.shape),)
        if len(value.shape) != 3 or fields.get("training_mode", 0):
            raise NotSupportedError("in training mode, or of vectors")
        known: dict[str, Any] = {}
        if (eps := _short(fields.get("epsilon", 1e-5))) != 1e-5:
            known["eps"] = eps
        if (momentum := round(1 - _short(fields.get("momentum", 0.9)), 6)) != 0.1:
            known["momentum"] = momentum
        names = ("weight", "bias", "running_mean", "running_var")
        weights = {n: Origin(self._weight(i), channels) for n, i in zip(names, node.input[1:5], strict=True)}
        self._add(node, "batch_norm2d", known, [value], weights)

    def _scaled(self, node: Any, value: Value, constant: str) -> bool:
        """Multiply or shift a norm by constants of each channel, as Caffe's Scale does after its BatchNorm."""
        layer, factor = value.layer, self.constants[constant]
        if layer is None or layer.op != "batch_norm2d" or factor.size != channels_of(value.shape) or factor.ndim < 3:
            return False
        if layer is not self.layers[-1] or self._uses[node.input[0]] + self._uses[node.input[1]] > 2:
            return False
        import numpy as np

        for param in ("weight", "bias"):
            before = layer.weights[param].canonical(self.constants)
            after = before * factor.ravel() if node.op_type == "Mul" else before
            after = after + factor.ravel() if node.op_type == "Add" and param == "bias" else after
            key = f"{layer.weights[param].key} {constant}"
            self.constants[key] = np.asarray(after, before.dtype)
            layer.weights[param] = Origin(key, before.shape)
        self._values[node.output[0]] = value
        return True

    def _op_instance_normalization(self, node: Any, fields: dict[str, Any]) -> None:
        value = self._read(node.input[0])
        channels = channels_of(value.shape)
        known = {"num_groups": channels} | (
            {} if (eps := _short(fields.get("epsilon", 1e-5))) == 1e-5 else {"eps": eps}
        )
        weights = {
            n: Origin(self._weight(i), (channels,)) for n, i in zip(("weight", "bias"), node.input[1:3], strict=True)
        }
        self._add(node, "group_norm", known, [value], weights)

    def _op_layer_normalization(self, node: Any, fields: dict[str, Any]) -> None:
        value = self._read(node.input[0])
        if fields.get("axis", -1) not in (-1, len(value.shape)) or len(value.shape) == 3:
            raise NotSupportedError(f"axis {fields.get('axis', -1)}")
        channels = (channels_of(value.shape),)
        known: dict[str, Any] = {} if (eps := _short(fields.get("epsilon", 1e-5))) == 1e-5 else {"eps": eps}
        weights = {"weight": Origin(self._weight(node.input[1]), channels)}
        self._bias(node, known, weights, channels[0], 2)
        self._add(node, "layer_norm", known, [value], weights)

    def _op_lrn(self, node: Any, fields: dict[str, Any]) -> None:
        known = {
            "size": int(fields["size"]),
            "alpha": _short(fields.get("alpha", 1e-4)),
            "beta": _short(fields.get("beta", 0.75)),
            "k": _short(fields.get("bias", 1.0)),
        }
        self._add(node, "local_response_norm", known, [self._read(node.input[0])])

    # --- each value ---

    def _op_clip(self, node: Any, fields: dict[str, Any]) -> None:
        low, high = fields.get("min"), fields.get("max")
        if len(node.input) > 1 and node.input[1]:
            low = float(self._constant(node.input[1]))
        if len(node.input) > 2 and node.input[2]:
            high = float(self._constant(node.input[2]))
        if low != 0 or (high is not None and high != 6 and high < 3e38):
            raise NotSupportedError(f"between {low} and {high}")
        self._add(node, "relu6" if high == 6 else "relu", {}, [self._read(node.input[0])])

    def _op_hard_sigmoid(self, node: Any, fields: dict[str, Any]) -> None:
        alpha, beta = fields.get("alpha", 0.2), fields.get("beta", 0.5)
        if abs(6 * alpha - 1) > 1e-6 or abs(beta - 0.5) > 1e-6:
            raise NotSupportedError(f"alpha {alpha:g}, beta {beta:g}")
        self._add(node, "hardsigmoid", {}, [self._read(node.input[0])])

    def _op_gelu(self, node: Any, fields: dict[str, Any]) -> None:
        tanh = fields.get("approximate", b"none") == b"tanh"
        self._add(node, "gelu", {"approximate": "tanh"} if tanh else {}, [self._read(node.input[0])])

    def _op_softmax(self, node: Any, fields: dict[str, Any]) -> None:
        value = self._read(node.input[0])
        axis = fields.get("axis", -1 if self._opset >= 13 else 1)
        axis = axis % (len(value.shape) + 1)
        last = len(value.shape) if len(value.shape) < 3 else 1
        flat = self._opset < 13 and len(value.shape) == 3 and prod(value.shape[1:]) > 1
        if axis != last or flat or (self._opset < 13 and len(value.shape) == 2):
            raise NotSupportedError(f"axis {axis}")
        self._add(node, "softmax", {}, [value])

    def _op_dropout(self, node: Any, fields: dict[str, Any]) -> None:
        rate = fields.get("ratio", 0.5)
        if len(node.input) > 1 and node.input[1]:
            rate = float(self._constant(node.input[1]))
        rate = _short(rate)
        self._add(node, "dropout", {} if rate == 0.5 else {"p": rate}, [self._read(node.input[0])])

    # --- pools ---

    def _pool(self, node: Any, fields: dict[str, Any], op: str) -> None:
        kernel = [int(n) for n in fields["kernel_shape"]]
        window, size = self._padding(fields, kernel), square(kernel)
        stride = window.pop("stride", 1)
        known = {"kernel_size": size, **({} if stride == size else {"stride": stride}), **window}
        if fields.get("ceil_mode", 0):
            known["ceil_mode"] = True
        if op == "avg_pool2d" and "padding" in known and not fields.get("count_include_pad", 0):
            known["count_include_pad"] = False
        self._add(node, op, known, [self._read(node.input[0])])

    def _op_max_pool(self, node: Any, fields: dict[str, Any]) -> None:
        self._pool(node, fields, "max_pool2d")

    def _op_average_pool(self, node: Any, fields: dict[str, Any]) -> None:
        self._pool(node, fields, "avg_pool2d")

    def _op_global_average_pool(self, node: Any, fields: dict[str, Any]) -> None:
        self._add(node, "adaptive_avg_pool2d", {"output_size": 1}, [self._read(node.input[0])])

    def _op_global_max_pool(self, node: Any, fields: dict[str, Any]) -> None:
        value = self._read(node.input[0])
        self._add(node, "max_pool2d", {"kernel_size": square(list(value.shape[1:]))}, [value])

    def _op_reduce_mean(self, node: Any, fields: dict[str, Any]) -> None:
        value = self._read(node.input[0])
        axes = fields.get("axes") or [int(n) for n in self._constant(node.input[1])]
        if len(value.shape) == 2 and list(axes) == [1] and not fields.get("keepdims", 1):
            self._add(node, "mean", {}, [value])
            return
        if len(value.shape) != 3 or sorted(int(a) % 4 for a in axes) != [2, 3]:
            raise NotSupportedError(f"over the axes {list(axes)}")
        made = self._add(node, "adaptive_avg_pool2d", {"output_size": 1}, [value])
        if not fields.get("keepdims", 1):
            self._add(node, "flatten", {}, [made])

    # --- shapes ---

    def _op_flatten(self, node: Any, fields: dict[str, Any]) -> None:
        if fields.get("axis", 1) != 1:
            raise NotSupportedError(f"axis {fields['axis']}")
        self._flat(node, self._read(node.input[0]))

    def _flat(self, node: Any, value: Value) -> None:
        if len(value.shape) == 1:
            self._values[node.output[0]] = value
        else:
            self._add(node, "flatten", {}, [value])

    def _op_squeeze(self, node: Any, fields: dict[str, Any]) -> None:
        value = self._read(node.input[0])
        if len(value.shape) != 3 or value.shape[1:] != (1, 1):
            raise NotSupportedError(f"of {list(value.shape)}")
        self._flat(node, value)

    def _op_reshape(self, node: Any, fields: dict[str, Any]) -> None:
        value = self._values.get(node.input[0]) or self._read(node.input[0])
        target = [int(n) for n in (fields.get("shape") or self._constant(node.input[1]))]
        whole = (1, *value.shape)
        target = [whole[i] if n == 0 and i < len(whole) else n for i, n in enumerate(target)]
        size = prod(value.shape)
        if target and target[0] == -1 and prod(target[1:]) == size:
            target[0] = 1
        if target.count(-1) == 1:
            target[target.index(-1)] = size // max(1, -prod(target))
        if value.order:
            if value.exchanged and target[1:] == list(value.shape):
                self._add(node, "channel_shuffle", {"groups": value.order[0]}, [replace(value, order=())])
                return
            raise NotSupportedError("channels in groups that are not shuffled")
        if target[1:] == list(value.shape):
            self._values[node.output[0]] = value
        elif len(target) == 2 and target[1] == size:
            self._flat(node, value)
        elif len(value.shape) == 3 and len(target) == 5 and target[3:] == list(value.shape[1:]):
            self._values[node.output[0]] = replace(value, order=(target[1], target[2]))
        else:
            raise NotSupportedError(f"{list(value.shape)} to {target[1:]}")

    def _op_transpose(self, node: Any, fields: dict[str, Any]) -> None:
        value = self._values.get(node.input[0])
        order = [int(n) for n in fields.get("perm", ())]
        if value is None:
            raise UnknownInputError
        if value.order and order == [0, 2, 1, 3, 4] and not value.exchanged:
            self._values[node.output[0]] = replace(value, exchanged=True)
        elif len(value.shape) == 2 and order == [0, 2, 1]:
            self._add(node, "transpose", {}, [value])
        else:
            raise NotSupportedError(f"the order {order}")

    def _op_pad(self, node: Any, fields: dict[str, Any]) -> None:
        value = self._read(node.input[0])
        pads = [int(n) for n in (fields.get("pads") or fields.get("paddings") or self._constant(node.input[1]))]
        fill = fields.get("value", 0.0)
        if len(node.input) > 2 and node.input[2]:
            fill = float(self._constant(node.input[2]))
        mode = fields.get("mode", b"constant")
        spatial = len(pads) == 8 and not any((pads[0], pads[1], pads[4], pads[5])) and min(pads) >= 0
        if len(value.shape) != 3 or mode != b"constant" or fill or not spatial:
            raise NotSupportedError(f"pads {pads}, mode {mode.decode()}, value {fill}")
        if not any(pads):
            self._values[node.output[0]] = value
            return
        self._add(node, "zero_pad2d", {"padding": written_sides(pads[2], pads[6], pads[3], pads[7])}, [value])

    def _op_resize(self, node: Any, fields: dict[str, Any]) -> None:
        value = self._read(node.input[0])
        mode = fields.get("mode", b"nearest").decode()
        place = fields.get("coordinate_transformation_mode", b"half_pixel").decode()
        index = 1 if len(node.input) == 2 else 2
        scales: list[float] = []
        if len(node.input) > index and node.input[index]:
            scales = [float(n) for n in self._constant(node.input[index])]
        elif len(node.input) > 3:
            sizes = [int(n) for n in self._constant(node.input[3])]
            scales = [a / b for a, b in zip(sizes, (1, *value.shape), strict=True)]
        whole = len(scales) == 4 and scales[:2] == [1, 1] and all(s == int(s) for s in scales)
        fitting = (mode == "nearest" and place == "asymmetric" and fields.get("nearest_mode", b"") == b"floor") or (
            mode == "linear" and place in ("half_pixel", "pytorch_half_pixel")
        )
        if len(value.shape) != 3 or not whole or not fitting:
            raise NotSupportedError(f"mode {mode}, {place}, scales {scales}")
        known: dict[str, Any] = {"scale_factor": square([int(s) for s in scales[2:]])}
        self._add(node, "upsample", known | ({} if mode == "nearest" else {"mode": "bilinear"}), [value])

    # --- merges ---

    def _op_sum(self, node: Any, fields: dict[str, Any]) -> None:
        self._add(node, "add", {}, [self._read(name) for name in node.input])

    def _merge(self, node: Any, op: str) -> None:
        constants = [name for name in node.input if name in self.constants]
        others = [name for name in node.input if name not in self.constants]
        if not constants:
            values = sorted(
                (self._read(name) for name in node.input), key=lambda v: -prod(v.shape) if op == "mul" else 0
            )
            self._add(node, op, {}, values)
            return
        value, factor = self._read(others[0]), self.constants[constants[0]]
        if self._scaled(node, value, constants[0]):
            return
        layer = value.layer
        alone = layer is not None and layer is self.layers[-1] and self._uses[others[0]] == 1
        unbiased = alone and layer and layer.op == "linear" and layer.fields.get("bias") is False
        if op == "add" and layer and unbiased and factor.size == layer.fields["out_features"]:  # a MatMul with its bias
            del layer.fields["bias"]
            layer.weights["bias"] = Origin(self._weight(constants[0]), (factor.size,))
            self._values[node.output[0]] = value
            return
        raise NotSupportedError("with a constant")

    def _op_add(self, node: Any, fields: dict[str, Any]) -> None:
        self._merge(node, "add")

    def _op_mul(self, node: Any, fields: dict[str, Any]) -> None:
        self._merge(node, "mul")

    def _op_concat(self, node: Any, fields: dict[str, Any]) -> None:
        values = [self._read(name) for name in node.input]
        axis = fields.get("axis", 1) % (len(values[0].shape) + 1)
        if axis != (2 if len(values[0].shape) == 2 else 1):
            raise NotSupportedError(f"axis {axis}")
        self._add(node, "concat", {}, values)

    def _op_split(self, node: Any, fields: dict[str, Any]) -> None:
        value = self._read(node.input[0])
        channels = channels_of(value.shape)
        axis = fields.get("axis", 0) % (len(value.shape) + 1)
        sizes = [int(n) for n in fields.get("split", ())]
        if not sizes and len(node.input) > 1 and node.input[1]:
            sizes = [int(n) for n in self._constant(node.input[1])]
        sizes = sizes or [-(-channels // len(node.output))] * len(node.output)
        if axis != (2 if len(value.shape) == 2 else 1) or sum(sizes) != channels:
            raise NotSupportedError(f"axis {axis}, sizes {sizes}")
        equal = {"sections": len(sizes)} if len(set(sizes)) == 1 else {"sizes": sizes}
        for index, name in enumerate(node.output):
            if self._uses[name]:
                self._add(node, "split", {**equal, "index": index}, [value], output=name)


def _path(weight: str, node: Any) -> tuple[str, ...]:
    """Return a layer's path: of its weight's name without the last part, or of the node's own name."""
    if "." in weight:
        return tuple(part for part in weight.rpartition(".")[0].split(".") if part)
    name = node.output[0] if re.fullmatch(r"(\w*_)?n?\d*", node.name) else node.name
    parts = [part.rpartition(".")[2] for part in name.split("/") if part and not re.fullmatch(r"gpu_\d+", part)]
    if node.name.startswith("/") and len(parts) > 1:  # PyTorch's: /layer1/layer1.0/relu/Relu
        return tuple(parts[:-1])
    return (re.sub(r"(?<=.)_\d+$", "", "_".join(parts)) or node.op_type.lower(),)


def _short(value: float) -> float:
    """Return a float32 as it was written."""
    return float(f"{value:.7g}")


def capture(source: dict[str, Any], input_shape: Shape | None, folder: Path) -> Captured:
    """Return the model in an ONNX file."""
    try:
        import onnx
    except ImportError:
        raise process.missing("onnx") from None
    path = Path(source["path"])
    try:
        model = onnx.load(path, load_external_data=False)
        outside = [
            entry.value
            for tensor in model.graph.initializer
            for entry in tensor.external_data
            if entry.key == "location"
        ]
        if any(Path(name).name != name for name in outside):
            raise ImportFailedError("its weights are in a file of another folder")
        if outside:
            onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
        importer = Importer(model, input_shape)
        layers = importer.run()
    except (UnsupportedModelError, ImportFailedError):
        raise
    except Exception as error:  # of the onnx package: protobuf's, its checker's
        raise ImportFailedError(f"{path.name} is no ONNX model: {str(error).splitlines()[0][:200]}") from None
    keys = {origin.key for layer in layers for origin in layer.weights.values()}
    weights: dict[str, Array] = {key: importer.constants[key] for key in keys}
    names = ("channels", "height", "width") if len(importer.input) == 3 else ("features",)
    producer = f"{model.producer_name} {model.producer_version}".strip()
    return Captured(
        name=path.stem,
        provenance=f"opset {importer._opset}" + (f" by {producer}" if producer else ""),
        input=dict(zip(names, importer.input, strict=True)),
        layers=layers,
        parameters=None,
        weights=weights,
        notes=("Initializers are PyTorch's defaults.",),
    )
