"""Keras models: from their configuration, which is read as data."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspec.importers import process
from archspec.importers.folding import snake_case
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

Json = dict[str, Any]
KINDS = ("keras", "keras.applications", "keras.file")
WORKER = "keras_import.py"
MOST_JSON = 64 * 2**20  # bytes of a configuration
MOST_LAYERS = 20_000

ACTIVATIONS: dict[str, tuple[str, Json]] = {
    **{name: (name, {}) for name in ("relu", "relu6", "silu", "mish", "sigmoid", "tanh", "softplus", "softmax", "elu")},
    "swish": ("silu", {}),
    "gelu": ("gelu", {}),
    "hard_sigmoid": ("hardsigmoid", {}),
    **dict.fromkeys(("hard_silu", "hard_swish"), ("hardswish", {})),
    "leaky_relu": ("leaky_relu", {"negative_slope": 0.2}),
}
# Keras 1's names of what Keras 2 and 3 call otherwise.
OLD_KEYS = {
    "nb_filter": "filters",
    "output_dim": "units",
    "subsample": "strides",
    "border_mode": "padding",
    "bias": "use_bias",
    "dim_ordering": "data_format",
    "p": "rate",
    "atrous_rate": "dilation_rate",
}
OLD_CLASSES = {"Convolution2D": "Conv2D", "AtrousConvolution2D": "Conv2D", "SeparableConvolution2D": "SeparableConv2D"}
BLOCK = re.compile(r"(?P<outer>.*?)_?block_?(?P<number>\d+)(?P<letter>[a-z]?)_(?P<inner>.+)")


@dataclass(frozen=True)
class Value:
    """A tensor: the layer whose output it is, the network's input if None, and what is still to be done to it."""

    layer: Layer | None
    shape: Shape  # (C, H, W), (L, D) or (F,)
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)  # zeros above, below, left and right that nothing has added yet
    pad_path: tuple[str, ...] = ()  # of the layer that adds them
    pooled: bool = False  # (C, 1, 1) that Keras has as (C,)
    order: Shape | None = None  # (C, H, W) that was flattened with channels last
    step: str = ""  # of a hardsigmoid that is written out: "x + 3", then "relu6(x + 3)"


@dataclass
class Preprocessing:
    """What the model does to its images first: x * scale + offset, in each channel."""

    scale: list[float] = field(default_factory=list)
    offset: list[float] = field(default_factory=list)

    def then(self, scale: list[float], offset: list[float]) -> None:
        """Append another step."""
        before = self.scale or [1.0] * len(scale), self.offset or [0.0] * len(scale)
        self.scale = [a * s for a, s in zip(before[0], scale, strict=True)]
        self.offset = [b * s + o for b, s, o in zip(before[1], scale, offset, strict=True)]

    def __str__(self) -> str:
        def numbers(values: list[float]) -> str:
            first = f"{values[0]:.6g}"
            return first if len(set(values)) == 1 else f"({', '.join(f'{v:.6g}' for v in values)})"

        return f"{numbers(self.scale)} * x + {numbers(self.offset)}"


class Importer:
    """Walks over the layers of a configuration."""

    def __init__(self, config: Json, input_shape: Shape | None, weights: Mapping[str, Any], old: bool) -> None:
        self._config, self._given, self._weights, self._old = config, input_shape, weights, old
        self._unsupported: list[Unsupported] = []
        self._total = 0
        self.layers = LayerList()
        self.input: Value | None = None
        self.preprocessing = Preprocessing()

    def run(self) -> list[Layer]:
        """Return the layers in their order; raise UnsupportedModelError with all layers that no op is."""
        output = self._model(self._config, None, "")
        if not self._unsupported and output is not None:
            output = self._whole(output, "output")
        if self._unsupported:
            raise UnsupportedModelError(self._unsupported, self._total)
        if output is None or output.layer is None:
            raise UnsupportedModelError(
                [Unsupported("output", "", "", "the output is no layer's")], max(1, self._total)
            )
        if output.order:
            raise UnsupportedModelError(
                [Unsupported("Flatten", "", "", "its order of channels is the model's output")], self._total
            )
        return self.layers

    # --- models ---

    def _model(self, config: Json, given: Value | None, prefix: str) -> Value | None:
        """Read a model, nested in another if it is `given` an input; return its output."""
        values: dict[str, Value | None] = {}
        last: Value | None = given
        body = config["config"]
        rows = body if isinstance(body, list) else body.get("layers", [])
        if len(rows) > MOST_LAYERS:
            raise ImportFailedError(f"the model has more than {MOST_LAYERS:,} layers")
        sequential = config["class_name"] == "Sequential"
        for row in rows:
            name = str(row.get("name") or row["config"].get("name") or f"{snake_case(row['class_name'])}_{len(values)}")
            kind = OLD_CLASSES.get(row["class_name"], row["class_name"])
            if kind == "InputLayer":
                values[name] = last = given or self._input(row["config"])
                continue
            reads = [last] if sequential else [values.get(read) for read in _reads(row)]
            if sequential and last is None and not self.layers and self.input is None and not self._unsupported:
                reads = [self._input(row["config"])]
            if kind in ("Functional", "Model", "Sequential"):
                inner = f"{prefix}{name}/"
                last = self._model(row, reads[0], inner) if reads and reads[0] is not None else None
                values[name] = last
                continue
            self._total += 1
            try:
                if len(row.get("inbound_nodes") or [0]) > 1:
                    raise NotSupportedError("is used more than once, with the same weights")
                if any(read is None for read in reads) or not reads:
                    raise UnknownInputError
                found = [read for read in reads if read]
                if str(row.get("module", "")).startswith("keras.src.ops"):
                    last = self._operator(kind, Place(name, prefix, {}), _numbers(row), found)
                else:
                    last = self._layer(kind, name, prefix, _modern(row["config"]), found)
            except (NotSupportedError, ShapeError) as error:
                self._unsupported.append(Unsupported(kind, f"{prefix}{name}", "", str(error)))
                last = None
            except UnknownInputError:
                last = None
            values[name] = last
        if sequential:
            return last
        outputs = body["output_layers"]
        names = [outputs[0]] if isinstance(outputs[0], str) else [one[0] for one in outputs]
        if len(names) != 1:
            self._unsupported.append(Unsupported("Model", prefix.rstrip("/"), "", f"has {len(names)} outputs"))
        return values.get(names[0])

    def _input(self, config: Json) -> Value:
        if self.input:
            raise UnsupportedModelError([Unsupported("InputLayer", "", "", "a model of several inputs")], 1)
        found = config.get("batch_shape") or config.get("batch_input_shape") or [None]
        sizes = list(found)[1:]
        first = config.get("data_format") == "channels_first" or config.get("dim_ordering") == "th"
        if len(sizes) == 3:
            shape = tuple(sizes) if first else (sizes[2], sizes[0], sizes[1])
            usual = self._given or (3, 224, 224)
            shape = tuple(b if a is None or self._given else a for a, b in zip(shape, usual, strict=True))
        else:
            shape = self._given or tuple(sizes)
        if not shape or None in shape or len(shape) not in (1, 3):
            raise ImportFailedError(
                f"the model's input {tuple(found)} is neither images nor a vector: give input_shape"
            )
        self.input = Value(None, shape)
        return self.input

    # --- layers ---

    def _layer(self, kind: str, name: str, prefix: str, config: Json, reads: list[Value]) -> Value:
        handler: Callable[..., Value] | None = getattr(self, f"_op_{snake_case(kind)}", None)
        if handler is None or (kind not in MERGES and len(reads) > 1):
            raise NotSupportedError("")
        if any(value.step for value in reads) and kind != "ReLU":
            raise NotSupportedError(f"reads {reads[0].step}")
        place = Place(name, prefix, config)
        if config.get("data_format") == "channels_first":
            place = replace(place, channels_last=False)
        value = handler(place, *reads) if kind in MERGES else handler(place, reads[0])
        activation = config.get("activation")
        if activation not in (None, "linear") and kind not in ("Activation", "ReLU"):
            value = self._activate(place.part(_activation_name(activation)), value, activation)
        return value

    def _operator(self, kind: str, place: Place, numbers: list[float], reads: list[Value]) -> Value:
        """Read an operator on tensors, such as x + y, or a step of a hardsigmoid, relu6(x + 3) / 6."""
        if kind in ("Add", "Multiply") and len(reads) == 2 and not any(read.step for read in reads):
            return self._op_add(place, *reads) if kind == "Add" else self._op_multiply(place, *reads)
        (value, *others), found = reads, (kind, *numbers)
        if not others and found == ("Add", 3.0) and not value.step:
            return replace(value, step="x + 3")
        if not others and value.step == "relu6(x + 3)" and kind == "Multiply" and abs(6 * sum(numbers) - 1) < 1e-9:
            return self._same(value, self._add_layer(place, "hardsigmoid", {}, [replace(value, step="")]))
        raise NotSupportedError(f"an operator with {', '.join(map(str, numbers)) or 'tensors'}")

    def _add_layer(
        self, place: Place, op: str, fields: Json, reads: list[Value], weights: Mapping[str, Origin] | None = None
    ) -> Value:
        """Append a layer; its shape is that of the op."""
        shape = output_shape(op, fields, [value.shape for value in reads])
        layers = [value.layer for value in reads]
        return Value(self.layers.add(place.path, op, fields, layers, shape, weights, place.classes), shape)

    def _whole(self, value: Value, name: str) -> Value:
        """Return a value with all that was put off done: zeros added, a pooled map flattened."""
        path = value.layer.path if value.layer else (name,)
        if any(value.pad):
            place = Place("", "", {}, given=value.pad_path)
            value = self._add_layer(place, "zero_pad2d", {"padding": written_sides(*value.pad)}, [value])
        if value.pooled:
            place = Place("", "", {}, given=(*path[:-1], f"{path[-1]}_flatten"))
            value = self._add_layer(place, "flatten", {}, [replace(value, pooled=False)])
        return value

    def _maps(self, value: Value) -> Value:
        """Return a value as feature maps: what was pooled has one place."""
        if len(value.shape) != 3:
            raise NotSupportedError(f"reads {len(value.shape) + 1} axes")
        return replace(value, pooled=False)

    def _same(self, value: Value, made: Value) -> Value:
        """Return the output of a layer on each value, with what was put off for its input."""
        return replace(made, pooled=value.pooled, order=value.order)

    # --- convolutions ---

    def _window(self, place: Place, value: Value, kernel: list[int]) -> Json:
        """Return the attributes of a window that are not the usual ones."""
        config, fields = place.config, {}
        strides = _two(config.get("strides") or config.get("pool_size") or 1)
        if strides != [1, 1]:
            fields["stride"] = square(strides)
        padding = config.get("padding", "valid")
        dilation = _two(config.get("dilation_rate", 1))
        margins = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        if padding == "same" and strides == [1, 1] and not any(n % 2 for n in margins) and not any(value.pad):
            if any(margins):  # the same on both sides, whatever the size
                fields["padding"] = square([n // 2 for n in margins])
        elif padding == "same":
            fields["padding"] = "same"
        elif any(value.pad):
            fields["padding"] = written_sides(*value.pad)
        elif padding not in ("same", "valid"):
            raise NotSupportedError(f"padding {padding!r}")
        if fields.get("padding") == "same" and any(value.pad):
            raise NotSupportedError("padding 'same' after zeros")
        if dilation != [1, 1]:
            fields["dilation"] = square(dilation)
        return fields

    def _op_conv2_d(self, place: Place, value: Value) -> Value:
        value, config = self._maps(value), place.config
        kernel = _two(config.get("kernel_size") or [config.get("nb_row"), config.get("nb_col")])
        filters, groups = config["filters"], config.get("groups") or 1
        fields = {"out_channels": filters, "kernel_size": square(kernel), **self._window(place, value, kernel)}
        if groups != 1:
            fields["groups"] = groups
        shape = (filters, value.shape[0] // groups, *kernel)
        weights = {"weight": Origin(place.weight(0), shape, None, (3, 2, 0, 1))}
        if self._old and not place.channels_last:
            weights = {"weight": Origin(place.weight(0), shape)}
        self._bias(place, fields, weights, filters, 1)
        return self._add_layer(place, "conv2d", fields, [value], weights)

    def _bias(self, place: Place, fields: Json, weights: dict[str, Origin], size: int, index: int) -> None:
        if place.config.get("use_bias", True):
            weights["bias"] = Origin(place.weight(index), (size,))
        else:
            fields["bias"] = False

    def _op_depthwise_conv2_d(self, place: Place, value: Value) -> Value:
        value, config = self._maps(value), place.config
        channels, multiplier = value.shape[0], config.get("depth_multiplier", 1)
        kernel = _two(config["kernel_size"])
        out = channels * multiplier
        fields = {
            "out_channels": out,
            "kernel_size": square(kernel),
            **self._window(place, value, kernel),
            "groups": channels,
        }
        weights = {"weight": Origin(place.weight(0), (out, 1, *kernel), (*kernel, out, 1), (2, 3, 0, 1))}
        self._bias(place, fields, weights, out, 1)
        return self._add_layer(place, "conv2d", fields, [value], weights)

    def _op_separable_conv2_d(self, place: Place, value: Value) -> Value:
        config = place.config
        channels = value.shape[0]
        depthwise = replace(place.part("depthwise"), config={**config, "use_bias": False})
        value = self._op_depthwise_conv2_d(depthwise, value)
        filters = config["filters"]
        fields: Json = {"out_channels": filters, "kernel_size": 1}
        middle = channels * config.get("depth_multiplier", 1)
        weights = {"weight": Origin(place.weight(1), (filters, middle, 1, 1), None, (3, 2, 0, 1))}
        self._bias(place, fields, weights, filters, 2)
        return self._add_layer(place, "conv2d", fields, [value], weights)

    def _op_conv2_d_transpose(self, place: Place, value: Value) -> Value:
        value, config = self._whole(self._maps(value), place.name), place.config
        kernel, strides = _two(config["kernel_size"]), _two(config.get("strides", 1))
        if config.get("output_padding") is not None or _two(config.get("dilation_rate", 1)) != [1, 1]:
            raise NotSupportedError("output_padding or dilation_rate")
        padding = config.get("padding", "valid")
        total = [max(k - s, 0) for k, s in zip(kernel, strides, strict=True)]
        extra = [max(s - k, 0) for k, s in zip(kernel, strides, strict=True)]
        fields: Json = {"out_channels": config["filters"], "kernel_size": square(kernel)}
        if strides != [1, 1]:
            fields["stride"] = square(strides)
        if padding == "same":
            if any(n % 2 for n in total):
                raise NotSupportedError("padding 'same' of a kernel and stride whose difference is odd")
            if any(total):
                fields["padding"] = square([n // 2 for n in total])
        if any(extra):  # Keras' output then ends with zeros to a whole stride
            fields["output_padding"] = square(extra)
        shape = (value.shape[0], config["filters"], *kernel)
        weights = {"weight": Origin(place.weight(0), shape, None, (3, 2, 0, 1))}
        self._bias(place, fields, weights, config["filters"], 1)
        return self._add_layer(place, "conv_transpose2d", fields, [value], weights)

    def _op_dense(self, place: Place, value: Value) -> Value:
        units = place.config["units"]
        if len(value.shape) == 3 and not value.pooled:  # of each place
            value = self._whole(value, place.name)
            fields: Json = {"out_channels": units, "kernel_size": 1}
            weights = {"weight": Origin(place.weight(0), (units, value.shape[0], 1, 1), None, (1, 0))}
            self._bias(place, fields, weights, units, 1)
            return self._add_layer(place, "conv2d", fields, [value], weights)
        value = self._whole(value, place.name)
        fields = {"out_features": units}
        size = value.shape[-1]
        origin = Origin(place.weight(0), (units, size), None, (1, 0))
        if value.order:
            channels, height, width = value.order
            origin = Origin(place.weight(0), (units, size), (height, width, channels, units), (3, 2, 0, 1))
        weights = {"weight": origin}
        self._bias(place, fields, weights, units, 1)
        return self._add_layer(place, "linear", fields, [replace(value, order=None)], weights)

    # --- norms ---

    def _op_batch_normalization(self, place: Place, value: Value) -> Value:
        value, config = self._whole(self._maps(value), place.name), place.config
        axis = config.get("axis", -1)
        axis = axis[0] if isinstance(axis, list) else axis
        if axis not in ((-1, 3) if place.channels_last else (1,)) or len(value.shape) != 3:
            raise NotSupportedError(f"axis {axis}")
        channels = (value.shape[0],)
        fields: Json = {}
        if (eps := config.get("epsilon", 1e-3)) != 1e-5:
            fields["eps"] = eps
        if (momentum := round(1 - config.get("momentum", 0.99), 12)) != 0.1:
            fields["momentum"] = momentum
        scale, center = config.get("scale", True), config.get("center", True)
        weights: dict[str, Origin] = {}
        if scale or center:
            weights["weight"] = Origin(place.weight(0) if scale else "", channels)
            shift = place.weight(int(scale)) if center else ""
            weights["bias"] = Origin(shift, channels, constant=0.0)
        else:
            fields["affine"] = False
        first = int(scale) + int(center)
        weights["running_mean"] = Origin(place.weight(first), channels)
        weights["running_var"] = Origin(place.weight(first + 1), channels)
        return self._add_layer(place, "batch_norm2d", fields, [value], weights)

    def _op_layer_normalization(self, place: Place, value: Value) -> Value:
        value, config = self._whole(value, place.name), place.config
        axis = config.get("axis", -1)
        axis = axis[0] if isinstance(axis, list) else axis
        if axis not in (-1, 3) or config.get("rms_scaling") or not config.get("scale", True) or value.order:
            raise NotSupportedError(f"axis {axis}, or without a scale")
        channels = (value.shape[-1] if len(value.shape) < 3 else value.shape[0],)
        fields: Json = {} if (eps := config.get("epsilon", 1e-3)) == 1e-5 else {"eps": eps}
        weights = {"weight": Origin(place.weight(0), channels)}
        if config.get("center", True):
            weights["bias"] = Origin(place.weight(1), channels)
        else:
            fields["bias"] = False
        return self._add_layer(place, "layer_norm", fields, [value], weights)

    def _op_group_normalization(self, place: Place, value: Value) -> Value:
        value, config = self._whole(self._maps(value), place.name), place.config
        if not config.get("scale", True) or not config.get("center", True) or config.get("axis", -1) not in (-1, 3):
            raise NotSupportedError("without scale or center")
        channels = (value.shape[0],)
        groups = config["groups"] if config["groups"] != -1 else channels[0]
        fields = {"num_groups": groups} | ({} if (eps := config.get("epsilon", 1e-3)) == 1e-5 else {"eps": eps})
        weights = {"weight": Origin(place.weight(0), channels), "bias": Origin(place.weight(1), channels)}
        return self._add_layer(place, "group_norm", fields, [value], weights)

    def _op_layer_scale(self, place: Place, value: Value) -> Value:
        value = self._whole(value, place.name)
        weights = {"weight": Origin(place.weight(0), (channels_of(value.shape),))}
        return self._add_layer(place, "layer_scale", {}, [value], weights)

    # --- each value ---

    def _op_activation(self, place: Place, value: Value) -> Value:
        return self._activate(place, value, place.config["activation"])

    def _activate(self, place: Place, value: Value, activation: Any) -> Value:
        name = _activation_name(activation)
        if name == "linear":
            return value
        if name not in ACTIVATIONS or not isinstance(activation, str):
            raise NotSupportedError(f"the activation {name}")
        if name == "hard_sigmoid" and self._old:
            raise NotSupportedError("hard_sigmoid of Keras 2, 0.2 x + 0.5")
        op, fields = ACTIVATIONS[name]
        if name == "softmax" and value.pooled:
            value = self._whole(value, place.name)
        value = self._padded(value, place)
        return self._same(value, self._add_layer(place, op, dict(fields), [value]))

    def _padded(self, value: Value, place: Place) -> Value:
        return self._whole(value, place.name) if any(value.pad) else value

    def _op_re_lu(self, place: Place, value: Value) -> Value:
        config = place.config
        most, slope, threshold = (
            config.get("max_value"),
            config.get("negative_slope") or 0,
            config.get("threshold") or 0,
        )
        if most not in (None, 6) or threshold or (most and slope):
            raise NotSupportedError(f"max_value {most}, negative_slope {slope}, threshold {threshold}")
        if value.step:
            if value.step != "x + 3" or not most:
                raise NotSupportedError(f"reads {value.step}")
            return replace(value, step="relu6(x + 3)")
        fields = {"negative_slope": slope} if slope else {}
        op = "leaky_relu" if slope else "relu6" if most else "relu"
        value = self._padded(value, place)
        return self._same(value, self._add_layer(place, op, fields, [value]))

    def _op_leaky_re_lu(self, place: Place, value: Value) -> Value:
        slope = place.config.get("negative_slope", place.config.get("alpha", 0.3))
        fields = {} if slope == 0.01 else {"negative_slope": slope}
        return self._same(value, self._add_layer(place, "leaky_relu", fields, [self._padded(value, place)]))

    def _op_elu(self, place: Place, value: Value) -> Value:
        alpha = place.config.get("alpha", 1.0)
        fields = {} if alpha == 1 else {"alpha": alpha}
        return self._same(value, self._add_layer(place, "elu", fields, [self._padded(value, place)]))

    def _op_softmax(self, place: Place, value: Value) -> Value:
        if place.config.get("axis", -1) != -1:
            raise NotSupportedError(f"axis {place.config['axis']}")
        value = self._whole(value, place.name)
        return self._same(value, self._add_layer(place, "softmax", {}, [value]))

    def _op_dropout(self, place: Place, value: Value) -> Value:
        rate, shape = place.config.get("rate", 0.5), place.config.get("noise_shape")
        value = self._padded(value, place)
        if shape is not None:
            if any(n != 1 for n in list(shape)[1:]):
                raise NotSupportedError(f"noise_shape {shape}")
            return self._same(value, self._add_layer(place, "stochastic_depth", {"p": rate}, [value]))
        fields = {} if rate == 0.5 else {"p": rate}
        return self._same(value, self._add_layer(place, "dropout", fields, [value]))

    def _op_stochastic_depth(self, place: Place, value: Value) -> Value:
        rate = place.config.get("drop_path_rate", place.config.get("rate", 0.0))
        return self._same(value, self._add_layer(place, "stochastic_depth", {"p": rate}, [self._padded(value, place)]))

    # --- pools ---

    def _pool(self, place: Place, value: Value, op: str) -> Value:
        value = self._maps(value)
        kernel = _two(place.config.get("pool_size", 2))
        positive = bool(value.layer and _never_negative(value.layer))
        if any(value.pad) and not (op == "max_pool2d" and positive):
            value = self._whole(value, place.name)
        window, size = self._window(place, value, kernel), square(kernel)
        stride = window.pop("stride", 1)
        fields = {"kernel_size": size, **({} if stride == size else {"stride": stride}), **window}
        if op == "avg_pool2d" and "padding" in fields:
            fields["count_include_pad"] = False
        return self._add_layer(place, op, fields, [value])

    def _op_max_pooling2_d(self, place: Place, value: Value) -> Value:
        return self._pool(place, value, "max_pool2d")

    def _op_average_pooling2_d(self, place: Place, value: Value) -> Value:
        return self._pool(place, value, "avg_pool2d")

    def _op_global_average_pooling2_d(self, place: Place, value: Value) -> Value:
        value = self._whole(self._maps(value), place.name)
        made = self._add_layer(place, "adaptive_avg_pool2d", {"output_size": 1}, [value])
        return replace(made, pooled=not place.config.get("keepdims", False))

    def _op_global_max_pooling2_d(self, place: Place, value: Value) -> Value:
        value = self._whole(self._maps(value), place.name)
        made = self._add_layer(place, "max_pool2d", {"kernel_size": square(list(value.shape[1:]))}, [value])
        return replace(made, pooled=not place.config.get("keepdims", False))

    def _op_up_sampling2_d(self, place: Place, value: Value) -> Value:
        value, config = self._whole(self._maps(value), place.name), place.config
        mode = config.get("interpolation", "nearest")
        if mode not in ("nearest", "bilinear"):
            raise NotSupportedError(f"interpolation {mode}")
        fields = {"scale_factor": square(_two(config.get("size", 2)))} | ({} if mode == "nearest" else {"mode": mode})
        return self._add_layer(place, "upsample", fields, [value])

    # --- shapes ---

    def _op_zero_padding2_d(self, place: Place, value: Value) -> Value:
        value, given = self._maps(value), place.config.get("padding", 1)
        pairs = [[given, given]] * 2 if isinstance(given, int) else [[n, n] if isinstance(n, int) else n for n in given]
        sides = (*pairs[0], *pairs[1])
        pad = tuple(a + b for a, b in zip(value.pad, sides, strict=True))
        return replace(value, pad=pad, pad_path=place.path)

    def _op_flatten(self, place: Place, value: Value) -> Value:
        if len(value.shape) == 1 or value.pooled:
            return value
        value = self._whole(value, place.name)
        made = self._add_layer(place, "flatten", {}, [value])
        matters = place.channels_last and len(value.shape) == 3 and value.shape[0] > 1 and prod(value.shape[1:]) > 1
        return replace(made, order=value.shape if matters else None)

    def _op_reshape(self, place: Place, value: Value) -> Value:
        target, size = list(place.config["target_shape"]), prod(value.shape)
        if target.count(-1) == 1:
            target[target.index(-1)] = size // -prod(target)
        channels = value.shape[0]
        one_place = len(value.shape) == 3 and value.shape[1:] == (1, 1)
        if one_place and sorted(target) == sorted([channels, *[1] * (len(target) - 1)]) and len(target) in (1, 3):
            return replace(value, pooled=len(target) == 1)
        if len(target) == 1:
            return self._op_flatten(place, value)
        if len(target) == 2 and len(value.shape) == 3 and target == [prod(value.shape[1:]), channels]:
            return self._add_layer(place, "tokens", {}, [self._whole(value, place.name)])
        raise NotSupportedError(f"{list(value.shape)} to {target}")

    def _op_identity(self, place: Place, value: Value) -> Value:
        return value

    def _op_rescaling(self, place: Place, value: Value) -> Value:
        if value.layer is not None or len(value.shape) != 3:
            raise NotSupportedError("not at the beginning")
        channels = value.shape[0]
        self.preprocessing.then(
            _each(place.config.get("scale", 1.0), channels), _each(place.config.get("offset", 0.0), channels)
        )
        return value

    def _op_normalization(self, place: Place, value: Value) -> Value:
        if value.layer is not None or len(value.shape) != 3:
            raise NotSupportedError("not at the beginning")
        channels, config = value.shape[0], place.config
        mean, variance = config.get("mean"), config.get("variance")
        if mean is None:
            mean, variance = (self._values_of(place.weight(i), usual) for i, usual in ((0, 0.0), (1, 1.0)))
        means, deviations = _each(mean, channels), [max(v**0.5, 1e-7) for v in _each(variance, channels)]
        self.preprocessing.then([1 / d for d in deviations], [-m / d for m, d in zip(means, deviations, strict=True)])
        return value

    def _values_of(self, key: str, usual: float) -> Any:
        return [float(v) for v in self._weights[key][()].ravel()] if key in self._weights else usual

    # --- merges ---

    def _op_add(self, place: Place, *values: Value) -> Value:
        return self._merge(place, "add", values)

    def _op_multiply(self, place: Place, *values: Value) -> Value:
        return self._merge(place, "mul", sorted(values, key=lambda value: -prod(value.shape)))

    def _merge(self, place: Place, op: str, values: Any) -> Value:
        if any(value.order for value in values) and len({value.order for value in values}) > 1:
            raise NotSupportedError("reads vectors of different orders")
        values = [self._padded(value, place) for value in values]
        pooled = all(value.pooled for value in values)
        made = self._add_layer(place, op, {}, [replace(value, pooled=False) for value in values])
        return replace(made, pooled=pooled, order=values[0].order)

    def _op_concatenate(self, place: Place, *values: Value) -> Value:
        axis = place.config.get("axis", -1)
        if axis not in ((-1, 3) if place.channels_last else (1,)) or any(value.order for value in values):
            raise NotSupportedError(f"axis {axis}")
        values = tuple(self._padded(value, place) for value in values)
        pooled = all(value.pooled for value in values)
        if not pooled:
            values = tuple(self._whole(value, place.name) for value in values)
        made = self._add_layer(place, "concat", {}, [replace(value, pooled=False) for value in values])
        return replace(made, pooled=pooled)


MERGES = ("Add", "Multiply", "Concatenate")


@dataclass(frozen=True)
class Place:
    """Where a layer is: its name, the models around it, and its configuration."""

    name: str
    prefix: str
    config: Json
    channels_last: bool = True
    given: tuple[str, ...] = ()
    suffix: str = ""

    @property
    def path(self) -> tuple[str, ...]:
        """Its path: a name such as `conv2_block1_1_conv` has the block in it."""
        if self.given:
            return self.given
        outer = tuple(part for part in self.prefix.split("/") if part)
        name = f"{self.name}{self.suffix}"
        found = BLOCK.fullmatch(name)
        if not found:
            return (*outer, name)
        stage, number, letter = found["outer"], found["number"], found["letter"]
        if letter:
            return (
                *outer,
                "_".join(filter(None, (stage, f"block{number}"))),
                str(ord(letter) - ord("a")),
                found["inner"],
            )
        return (*outer, stage or "block", number, found["inner"])

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of what is around it, as folding knows modules: sequences of blocks."""
        *around, _ = self.path
        return tuple("Block" if part.isdigit() else "Sequential" for part in around)

    def weight(self, index: int) -> str:
        """Return the key of a weight."""
        return f"{self.name}/{index}"

    def part(self, name: str) -> Place:
        """Return the place of a part of the same layer of Keras."""
        return replace(self, suffix=f"_{name}", given=())


def _reads(row: Json) -> list[str]:
    """Return the names of the layers that a layer reads."""
    found: list[str] = []

    def search(value: Any) -> None:
        if isinstance(value, dict):
            if value.get("class_name") == "__keras_tensor__":
                found.append(str(value["config"]["keras_history"][0]))
                return
            for inner in value.values():
                search(inner)
        elif isinstance(value, list):
            if len(value) >= 3 and isinstance(value[0], str) and all(type(n) is int for n in value[1:3]):
                found.append(value[0])  # Keras 1 and 2: [name, node, tensor]
                return
            for inner in value:
                search(inner)

    search((row.get("inbound_nodes") or [[]])[0])
    return found


def _numbers(row: Json) -> list[float]:
    """Return the numbers among the arguments of an operator."""
    arguments = (row.get("inbound_nodes") or [{}])[0].get("args", [])
    return [float(one) for one in arguments if isinstance(one, int | float)]


def _modern(config: Json) -> Json:
    """Return a configuration with Keras 3's keys and words."""
    found = {OLD_KEYS.get(key, key): value for key, value in config.items()}
    found["data_format"] = {"th": "channels_first", "tf": "channels_last"}.get(
        str(found.get("data_format")), found.get("data_format")
    )
    activation = found.get("activation")
    if isinstance(activation, dict) and activation.get("module") == "builtins":
        found["activation"] = activation.get("config")
    return found


def _activation_name(activation: Any) -> str:
    return str(activation.get("class_name", "") if isinstance(activation, dict) else activation)


def _never_negative(layer: Layer) -> bool:
    """Return whether a layer's output is never negative: zeros around it are then as good as minus infinity."""
    op = OPS[layer.op]
    if op.nonnegative:
        return True
    return op.keeps_nonnegative and all(read is not None and _never_negative(read) for read in layer.reads)


def _two(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value) * (2 // len(value))


def _each(value: Any, channels: int) -> list[float]:
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    found = [float(v) for v in value] if isinstance(value, list) else [float(value)]
    return found * channels if len(found) == 1 else found


# --- files -----------------------------------------------------------------------------------------------------------


def capture(source: Json, input_shape: Shape | None, folder: Path) -> Captured:
    """Return a model of keras.applications, of a saved file, or of a file.py; add what rebuilds it to `source`."""
    versions = ""
    if source["kind"] != "keras":
        found = process.ask(
            WORKER,
            {
                "job": "capture",
                "source": source,
                "input_shape": input_shape,
                "config": str(folder / "config.json"),
                "weights": str(folder / "weights.safetensors"),
            },
            folder,
        )
        from safetensors.numpy import load_file

        config = json.loads((folder / "config.json").read_text())
        weights: Mapping[str, Any] = load_file(folder / "weights.safetensors")
        versions = found["versions"]["keras"]
    else:
        config, weights, versions = read(Path(source["path"]))
    old = bool(versions) and int(versions.partition(".")[0]) < 3
    importer = Importer(config, input_shape, weights, old)
    try:
        layers = importer.run()
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        if isinstance(error, ImportFailedError):
            raise
        raise ImportFailedError(f"the configuration is not one of Keras: {type(error).__name__}: {error}") from None
    assert importer.input
    shape = importer.input.shape
    keys = {origin.key: origin for layer in layers for origin in layer.weights.values() if origin.key}
    chosen = {key: _read(weights[key], origin) for key, origin in keys.items() if key in weights}
    if chosen and (missing := sorted(set(keys) - set(chosen))):
        raise ImportFailedError(f"the file has no weights for {missing[0].rpartition('/')[0]}")
    statistics = {
        o.key for layer in layers for name, o in layer.weights.items() if name in ("running_mean", "running_var")
    }
    source["config"], source["old"] = config, old
    source["preprocessing"] = [importer.preprocessing.scale, importer.preprocessing.offset]
    notes = ["Initializers are PyTorch's defaults."]
    if importer.preprocessing.scale:
        notes.append(f"The model begins with {importer.preprocessing}, which is left to the data.")
    if any(not o.key for layer in layers for o in layer.weights.values()):
        notes.append("Norms without a scale or a shift have one here, of ones or zeros.")
    names = ("channels", "height", "width") if len(shape) == 3 else ("features",)
    own = str(config["config"].get("name", "") if isinstance(config["config"], dict) else "").lower()
    return Captured(
        name=source["name"] if own.startswith(("functional", "model", "sequential")) or not own else own,
        provenance=f"from its configuration, Keras {versions or 'of an unknown version'}",
        input=dict(zip(names, shape, strict=True)),
        layers=layers,
        parameters=sum(prod(origin.shape) for key, origin in keys.items() if key not in statistics),
        weights=chosen,
        notes=tuple(notes),
    )


def _read(value: Any, origin: Origin) -> Array:
    """Return an array; raise ImportFailedError, before it is read, if it has another number of values."""
    if prod(value.shape) != prod(origin.shape):
        raise ImportFailedError(f"{origin.key} has shape {tuple(value.shape)}, not that of {origin.shape} values")
    array: Array = value[()]
    return array


def read(path: Path) -> tuple[Json, Mapping[str, Any], str]:
    """Return the configuration of a model's file, its weights by layer and number, and Keras' version.

    Nothing in the file is run: a configuration is JSON, and weights are read by h5py.
    """
    if path.suffix == ".json":
        if path.stat().st_size > MOST_JSON:
            raise ImportFailedError(f"{path.name} is larger than {MOST_JSON >> 20} MiB")
        config = _json(path.read_bytes(), path.name)
        return config, {}, str(config.get("keras_version") or ("3" if "module" in config else "2"))
    if path.suffix == ".keras":
        return _read_archive(path)
    return _read_hdf5(path)


def _json(text: bytes, name: str) -> Json:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ImportFailedError(f"{name} is no JSON: {error}") from None
    if not isinstance(found, dict) or "class_name" not in found or "config" not in found:
        raise ImportFailedError(f"{name} is no configuration of a Keras model")
    return found


def _read_archive(path: Path) -> tuple[Json, Mapping[str, Any], str]:
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
            if sizes.get("config.json", 0) > MOST_JSON:
                raise ImportFailedError(f"config.json of {path.name} is larger than {MOST_JSON >> 20} MiB")
            config = _json(archive.read("config.json"), "config.json")
            version = (
                str(json.loads(archive.read("metadata.json"))["keras_version"]) if "metadata.json" in sizes else "3"
            )
            weights = archive.read("model.weights.h5") if "model.weights.h5" in sizes else b""
    except (zipfile.BadZipFile, KeyError, NotImplementedError) as error:
        raise ImportFailedError(f"{path.name} is no .keras file: {error}") from None
    return config, _numbered(config, _hdf5(io.BytesIO(weights), path.name)) if weights else {}, version


def _hdf5(file: Any, name: str) -> Any:
    try:
        import h5py
    except ImportError:
        raise process.missing("h5py") from None
    try:
        return h5py.File(file, "r")
    except OSError as error:
        raise ImportFailedError(f"{name} is no HDF5 file: {error}") from None


def _numbered(config: Json, file: Any) -> dict[str, Any]:
    """Return the arrays of Keras 3's weights file, in which layers are counted by class, by layer and number."""
    found: dict[str, Any] = {}

    def search(model: Json, group: Any) -> None:
        counts: Counter[str] = Counter()
        for row in model["config"]["layers"]:
            kind = snake_case(row["class_name"])
            kind = re.sub(r"(?<=[a-z])_?(\d)_d\b", r"\1d", re.sub(r"conv(\d)_d", r"conv\1d", kind))
            key = f"{kind}_{counts[kind]}" if counts[kind] else kind
            counts[kind] += 1
            inner = _member(group, f"layers/{key}") or _member(group, f"layers/{row['config'].get('name')}")
            if inner is None:
                continue
            if row["class_name"] in ("Functional", "Sequential", "Model"):
                search(row, inner)
            for i, name in enumerate(sorted(_member(inner, "vars") or (), key=int)):
                found[f"{row['config']['name']}/{i}"] = _member(inner, f"vars/{name}")

    search(config, file)
    return found


def _read_hdf5(path: Path) -> tuple[Json, Mapping[str, Any], str]:
    file = _hdf5(path, path.name)
    if "model_config" not in file.attrs:
        raise ImportFailedError(f"{path.name} has weights only: name the model's .json, .keras or .py instead")
    text = file.attrs["model_config"]
    config = _json(text if isinstance(text, bytes) else str(text).encode(), "model_config")
    version = file.attrs.get("keras_version", "2")
    found: dict[str, Any] = {}
    weights = _member(file, "model_weights")
    known = {row["config"].get("name") for row in layers_of(config)}
    for layer in weights or ():
        group = _member(weights, layer)
        names = [n.decode() if isinstance(n, bytes) else str(n) for n in group.attrs.get("weight_names", ())]
        counts: Counter[str] = Counter()
        for name in names:
            inner = name.split("/")[-2] if "/" in name else ""  # of a model in the model
            owner = inner if inner in known else layer
            found[f"{owner}/{counts[owner]}"] = _member(group, name)
            counts[owner] += 1
    return config, found, version.decode() if isinstance(version, bytes) else str(version)


def _member(group: Any, path: str) -> Any:
    """Return a member of a group; None if there is none. Raises ImportFailedError for one in another file."""
    import h5py

    for part in path.split("/"):
        link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
        if link is None:
            return None
        if isinstance(link, h5py.ExternalLink):
            raise ImportFailedError(f"{path} is a link to another file")
        group = group[part]
        if isinstance(group, h5py.Dataset) and (group.external or group.is_virtual):
            raise ImportFailedError(f"{path} is stored in another file")
    return group


def layers_of(config: Json) -> Iterator[Json]:
    """Yield the layers of a model, those of models in it too."""
    body = config["config"]
    for row in body if isinstance(body, list) else body.get("layers", []):
        if isinstance(row.get("config"), dict) and "layers" in row["config"]:
            yield from layers_of(row)
        else:
            yield row
