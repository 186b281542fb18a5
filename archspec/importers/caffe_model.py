"""Caffe networks: deploy.prototxt and train_val.prototxt, of V1 and V2 layers, with Caffe's semantics."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

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
    leading_to,
    output_shape,
    square,
)
from archspec.language.ops import OPS
from archspec.language.ops.base import ShapeError, channels_of

KIND = "caffe"
Message = dict[str, list[Any]]  # the values of each field, in order
MOST_BYTES = 16 * 2**20
MOST_DEPTH = 32
MODULE = 6  # layers of one prefix that are a module, such as GoogLeNet's inception_3a

# V1's names of types, which are an enum.
V1 = {
    "CONVOLUTION": "Convolution",
    "DECONVOLUTION": "Deconvolution",
    "POOLING": "Pooling",
    "LRN": "LRN",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "TANH": "TanH",
    "DROPOUT": "Dropout",
    "INNER_PRODUCT": "InnerProduct",
    "CONCAT": "Concat",
    "ELTWISE": "Eltwise",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "ACCURACY": "Accuracy",
    "DATA": "Data",
    "IMAGE_DATA": "ImageData",
    "FLATTEN": "Flatten",
    "SPLIT": "Split",
    "SLICE": "Slice",
}
INPUTS = ("Data", "ImageData", "HDF5Data", "MemoryData", "WindowData", "DummyData", "Input")
AFTER = ("SoftmaxWithLoss", "Accuracy", "EuclideanLoss", "SigmoidCrossEntropyLoss", "HingeLoss", "Silence", "ArgMax")
TOKEN = re.compile(
    r"\s+|#[^\n]*|(?P<punctuation>[{}\[\]:,;<>])|(?P<string>\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*')"
    r"|(?P<word>[-+.\w]+)"
)


# --- the format ------------------------------------------------------------------------------------------------------


def parse(text: str) -> Message:
    """Return a message in protobuf's text format; raise ImportFailedError with the line of a fault."""
    tokens = list(_tokens(text))
    found, end = _message(tokens, 0, "", 0)
    assert end == len(tokens)
    return found


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    place, line = 0, 1
    while place < len(text):
        match = TOKEN.match(text, place)
        if not match:
            raise ImportFailedError(f"line {line}: {text[place]!r} is not expected in a prototxt")
        if match.lastgroup:
            yield match.lastgroup, match[0], line
        line += match[0].count("\n")
        place = match.end()


def _message(tokens: list[tuple[str, str, int]], i: int, close: str, depth: int) -> tuple[Message, int]:
    found: Message = {}
    if depth > MOST_DEPTH:
        raise ImportFailedError(f"line {tokens[i - 1][2]}: more than {MOST_DEPTH} messages in one another")
    while i < len(tokens):
        kind, text, line = tokens[i]
        if text == close and kind == "punctuation":
            return found, i + 1
        if text in (",", ";") and kind == "punctuation":
            i += 1
            continue
        if kind != "word" or i + 1 >= len(tokens):
            raise ImportFailedError(f"line {line}: the name of a field was expected, not {text}")
        i += 1
        colon = tokens[i][1] == ":" and tokens[i][0] == "punctuation"
        i += colon
        if i >= len(tokens):
            raise ImportFailedError(f"line {line}: {text} has no value")
        values, i = _values(tokens, i, depth, text, colon)
        found.setdefault(text, []).extend(values)
    if close:
        raise ImportFailedError(f"the file ends before a {close}")
    return found, i


def _values(tokens: list[tuple[str, str, int]], i: int, depth: int, name: str, colon: bool) -> tuple[list[Any], int]:
    kind, text, line = tokens[i]
    if kind == "punctuation" and text in ("{", "<"):
        inner, i = _message(tokens, i + 1, "}" if text == "{" else ">", depth + 1)
        return [inner], i
    if not colon:
        raise ImportFailedError(f"line {line}: a colon or a brace was expected after {name}")
    if kind == "punctuation" and text == "[":
        values: list[Any] = []
        i += 1
        while i < len(tokens) and tokens[i][1] != "]":
            if tokens[i][1] != ",":
                values.append(_scalar(tokens[i]))
            i += 1
        return values, i + 1
    return [_scalar(tokens[i])], i + 1


def _scalar(token: tuple[str, str, int]) -> Any:
    kind, text, line = token
    if kind == "string":
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    if kind == "punctuation":
        raise ImportFailedError(f"line {line}: a value was expected, not {text}")
    if text in ("true", "false"):
        return text == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _one(message: Message, field: str, usual: Any = None) -> Any:
    return message[field][-1] if message.get(field) else usual


# --- the network -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Value:
    """A blob: the layer whose output it is, the network's input if None, and its shape without the batch."""

    layer: Layer | None
    shape: Shape


class Importer:
    """Walks over the layers of a network, in one phase."""

    def __init__(self, net: Message, phase: str, input_shape: Shape | None) -> None:
        self._phase, self._given = phase, input_shape
        self._rows = [row for row in (*net.get("layer", []), *net.get("layers", [])) if self._included(row)]
        self._blobs: dict[str, Value] = {}
        self._statistics: set[Layer] = set()  # norms that a Scale can still follow
        self.layers = LayerList()
        self.left_out: list[str] = []  # on which the last layer does not depend, such as auxiliary classifiers
        self.input: Shape | None = None
        self._inputs(net)

    def _included(self, row: Message) -> bool:
        rules = [_one(rule, "phase") for rule in row.get("include", [])]
        out = [_one(rule, "phase") for rule in row.get("exclude", [])]
        return (not rules or None in rules or self._phase in rules) and self._phase not in out

    def _inputs(self, net: Message) -> None:
        names = net.get("input", [])
        sizes = [shape.get("dim", []) for shape in net.get("input_shape", [])]
        flat = net.get("input_dim", [])
        sizes = sizes or [flat[i : i + 4] for i in range(0, len(flat), 4)]
        if names:
            self._input(str(names[0]), sizes[0] if sizes else [])

    def _input(self, name: str, dims: list[int]) -> None:
        shape = self._given or tuple(int(n) for n in dims[1:])
        if not shape:
            raise ImportFailedError("the size of the images is not in the file: give --input-shape")
        if len(shape) not in (1, 3):
            raise ImportFailedError(f"the input has {len(shape) + 1} axes: it is neither images nor a vector")
        if self.input is None:
            self.input = shape
            self._blobs[name] = Value(None, shape)

    def run(self) -> list[Layer]:
        """Return the layers in their order; raise UnsupportedModelError with all layers that no op is."""
        unsupported: list[Unsupported] = []
        total = 0
        for row in self._rows:
            kind = str(_one(row, "type", ""))
            kind, name = V1.get(kind, kind), str(_one(row, "name", kind))
            if kind in AFTER:
                continue
            if kind in INPUTS:
                self._data(row)
                continue
            total += 1
            try:
                self._layer(kind, name, row)
            except (NotSupportedError, ShapeError) as error:
                unsupported.append(Unsupported(kind, name, "", str(error)))
                for top in row.get("top", []):
                    self._blobs.pop(str(top), None)
            except UnknownInputError:
                continue
        if unsupported:
            raise UnsupportedModelError(unsupported, total)
        if not self.layers or self.input is None:
            raise ImportFailedError("the network has no layers in this phase")
        layers = leading_to(self.layers[-1], self.layers)
        self.left_out = ["/".join(layer.path) for layer in self.layers if layer not in layers]
        sizes = Counter(layer.path[0] for layer in layers)
        for layer in layers:
            # inception_3a and inception_3b are of one class
            kind = re.sub(r"_?\d.*", "", layer.path[0]) if sizes[layer.path[0]] >= MODULE else "Sequential"
            layer.classes = (kind, *("Sequential",) * (len(layer.path) - 2))[: len(layer.path) - 1]
            op = OPS[layer.op].model_validate({"op": layer.op, "name": "one", **layer.fields})
            params = op.params(*(read.shape if read else self.input for read in layer.reads))
            layer.weights = {name: Origin("", param.shape) for name, param in params.items()}
        return layers

    def _data(self, row: Message) -> None:
        dims: list[int] = []
        for parameter in row.get("input_param", []):
            dims = [int(n) for n in _one(parameter, "shape", {}).get("dim", [])]
        crop = 0
        for key in ("transform_param", "data_param", "image_data_param"):
            for parameter in row.get(key, []):
                crop = int(_one(parameter, "crop_size", crop))
        if not dims and crop:
            dims = [1, 3, crop, crop]
        if self.input is None and row.get("top"):
            self._input(str(row["top"][0]), dims)

    def _layer(self, kind: str, name: str, row: Message) -> None:
        word = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()
        handler: Callable[[str, Message, Message, list[Value]], Value] | None = getattr(self, f"_op_{word}", None)
        if handler is None:
            raise NotSupportedError("")
        bottoms = [str(name) for name in row.get("bottom", [])]
        if not bottoms or any(name not in self._blobs for name in bottoms):
            raise UnknownInputError
        parameters = _one(row, f"{word}_param", {})
        if not isinstance(parameters, dict):
            raise NotSupportedError(f"{word}_param is no message")
        value = handler(name, parameters, row, [self._blobs[name] for name in bottoms])
        for top in row.get("top", []):
            self._blobs[str(top)] = value

    def _add(self, name: str, op: str, fields: dict[str, Any], reads: list[Value]) -> Value:
        shape = output_shape(op, fields, [value.shape for value in reads])
        path = tuple(part for part in name.split("/") if part) or (op,)
        return Value(self.layers.add(path, op, fields, [value.layer for value in reads], shape), shape)

    # --- layers ---

    def _window(self, parameters: Message, *, pool: bool = False) -> tuple[list[int], dict[str, Any]]:
        kernel = _pair(parameters, "kernel_size", "kernel_h", "kernel_w", 0)
        stride = _pair(parameters, "stride", "stride_h", "stride_w", 1)
        pad = _pair(parameters, "pad", "pad_h", "pad_w", 0)
        dilation = _pair(parameters, "dilation", "", "", 1)
        if 0 in kernel:
            raise NotSupportedError("has no kernel_size")
        fields: dict[str, Any] = {}
        if stride != (kernel if pool else [1, 1]):
            fields["stride"] = square(stride)
        if pad != [0, 0]:
            fields["padding"] = square(pad)
        if dilation != [1, 1]:
            fields["dilation"] = square(dilation)
        return kernel, fields

    def _op_convolution(self, name: str, parameters: Message, row: Message, reads: list[Value]) -> Value:
        return self._convolved(name, "conv2d", parameters, reads[:1])

    def _op_deconvolution(self, name: str, parameters: Message, row: Message, reads: list[Value]) -> Value:
        return self._convolved(name, "conv_transpose2d", parameters or _one(row, "convolution_param", {}), reads[:1])

    def _convolved(self, name: str, op: str, parameters: Message, reads: list[Value]) -> Value:
        kernel, window = self._window(parameters)
        fields = {"out_channels": int(_one(parameters, "num_output")), "kernel_size": square(kernel), **window}
        if (groups := int(_one(parameters, "group", 1))) != 1:
            fields["groups"] = groups
        if not _one(parameters, "bias_term", True):
            fields["bias"] = False
        return self._add(name, op, fields, reads)

    def _op_pooling(self, name: str, parameters: Message, row: Message, reads: list[Value]) -> Value:
        (value, *_), kind = reads, str(_one(parameters, "pool", "MAX"))
        if kind not in ("MAX", "AVE", "0", "1"):
            raise NotSupportedError(f"pool {kind}")
        op = "max_pool2d" if kind in ("MAX", "0") else "avg_pool2d"
        if len(value.shape) != 3:
            raise NotSupportedError("of a vector")
        if _one(parameters, "global_pooling", False):
            if op == "avg_pool2d":
                return self._add(name, "adaptive_avg_pool2d", {"output_size": 1}, [value])
            return self._add(name, op, {"kernel_size": square(list(value.shape[1:]))}, [value])
        kernel, window = self._window(parameters, pool=True)
        fields = {"kernel_size": square(kernel), **window}
        stride, pad = (
            _pair(parameters, "stride", "stride_h", "stride_w", 1),
            _pair(parameters, "pad", "pad_h", "pad_w", 0),
        )
        positions = [
            -(-(n + 2 * p - k) // s) + 1 for n, k, s, p in zip(value.shape[1:], kernel, stride, pad, strict=True)
        ]
        if any(pad):  # a window must begin within the image
            axes = zip(positions, value.shape[1:], stride, pad, strict=True)
            positions = [m - ((m - 1) * s >= n + p) for m, n, s, p in axes]
        floors = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(value.shape[1:], kernel, stride, pad, strict=True)]
        if positions != floors:
            fields["ceil_mode"] = True
        made = self._add(name, op, fields, [value])
        if list(made.shape[1:]) != positions:
            raise NotSupportedError("its last window is outside the image")
        return made

    def _op_lrn(self, name: str, parameters: Message, row: Message, reads: list[Value]) -> Value:
        fields = {
            "size": int(_one(parameters, "local_size", 5)),
            "alpha": float(_one(parameters, "alpha", 1.0)),
            "beta": float(_one(parameters, "beta", 0.75)),
            "k": float(_one(parameters, "k", 1.0)),
        }
        if str(_one(parameters, "norm_region", "ACROSS_CHANNELS")) in ("WITHIN_CHANNEL", "1"):
            fields["norm_region"] = "within_channel"  # type: ignore[assignment]
        return self._add(name, "local_response_norm", fields, reads[:1])

    def _op_inner_product(self, name: str, parameters: Message, row: Message, reads: list[Value]) -> Value:
        value = reads[0]
        if int(_one(parameters, "axis", 1)) != 1:
            raise NotSupportedError(f"axis {_one(parameters, 'axis')}")
        if len(value.shape) > 1:
            value = self._add(f"{name}_flatten", "flatten", {}, [value])
        fields: dict[str, Any] = {"out_features": int(_one(parameters, "num_output"))}
        if not _one(parameters, "bias_term", True):
            fields["bias"] = False
        return self._add(name, "linear", fields, [value])

    def _op_batch_norm(self, name: str, parameters: Message, row: Message, reads: list[Value]) -> Value:
        fields: dict[str, Any] = {}
        if (eps := float(_one(parameters, "eps", 1e-5))) != 1e-5:
            fields["eps"] = eps
        momentum = round(1 - float(_one(parameters, "moving_average_fraction", 0.999)), 12)
        fields |= {"momentum": momentum, "affine": False}
        made = self._add(name, "batch_norm2d", fields, reads[:1])
        assert made.layer
        self._statistics.add(made.layer)
        return made

    def _op_scale(self, name: str, parameters: Message, row: Message, reads: list[Value]) -> Value:
        (value, *others), layer = reads, reads[0].layer
        if others or layer not in self._statistics or layer is not self.layers[-1] or layer is None:
            raise NotSupportedError("that does not follow a BatchNorm")
        if not _one(parameters, "bias_term", False):
            raise NotSupportedError("without a bias")
        self._statistics.remove(layer)
        del layer.fields["affine"]
        return value

    def _op_re_lu(self, name: str, parameters: Message, row: Message, reads: list[Value]) -> Value:
        parameters = _one(row, "relu_param", {})
        slope = float(_one(parameters, "negative_slope", 0.0))
        fields = {"negative_slope": slope} if slope else {}
        return self._add(name, "leaky_relu" if slope else "relu", fields, reads[:1])

    def _op_sigmoid(self, name: str, parameters: Message, row: Message, reads: list[Value]) -> Value:
        return self._add(name, "sigmoid", {}, reads[:1])

    def _op_tan_h(self, name: str, parameters: Message, row: Message, reads: list[Value]) -> Value:
        return self._add(name, "tanh", {}, reads[:1])

    def _op_elu(self, name: str, parameters: Message, row: Message, reads: list[Value]) -> Value:
        alpha = float(_one(parameters, "alpha", 1.0))
        return self._add(name, "elu", {} if alpha == 1 else {"alpha": alpha}, reads[:1])

    def _op_softmax(self, name: str, parameters: Message, row: Message, reads: list[Value]) -> Value:
        return self._add(name, "softmax", {}, reads[:1])

    def _op_dropout(self, name: str, parameters: Message, row: Message, reads: list[Value]) -> Value:
        rate = float(_one(parameters, "dropout_ratio", 0.5))
        return self._add(name, "dropout", {} if rate == 0.5 else {"p": rate}, reads[:1])

    def _op_flatten(self, name: str, parameters: Message, row: Message, reads: list[Value]) -> Value:
        return reads[0] if len(reads[0].shape) == 1 else self._add(name, "flatten", {}, reads[:1])

    def _op_split(self, name: str, parameters: Message, row: Message, reads: list[Value]) -> Value:
        return reads[0]

    def _op_concat(self, name: str, parameters: Message, row: Message, reads: list[Value]) -> Value:
        if int(_one(parameters, "axis", _one(parameters, "concat_dim", 1))) != 1:
            raise NotSupportedError("of another axis than the channels")
        return self._add(name, "concat", {}, reads)

    def _op_eltwise(self, name: str, parameters: Message, row: Message, reads: list[Value]) -> Value:
        kind = str(_one(parameters, "operation", "SUM"))
        if any(n != 1 for n in parameters.get("coeff", [])) or kind not in ("SUM", "PROD"):
            raise NotSupportedError(f"{kind}, coefficients {parameters.get('coeff', [])}")
        return self._add(name, "add" if kind == "SUM" else "mul", {}, reads)

    def _op_slice(self, name: str, parameters: Message, row: Message, reads: list[Value]) -> Value:
        value, tops = reads[0], [str(top) for top in row.get("top", [])]
        channels, points = channels_of(value.shape), [int(n) for n in parameters.get("slice_point", [])]
        if int(_one(parameters, "axis", _one(parameters, "slice_dim", 1))) != 1 or len(value.shape) == 2:
            raise NotSupportedError("of another axis than the channels")
        bounds = [0, *(points or [channels * i // len(tops) for i in range(1, len(tops))]), channels]
        sizes = [b - a for a, b in pairwise(bounds)]
        equal: dict[str, Any] = {"sections": len(sizes)} if len(set(sizes)) == 1 else {"sizes": sizes}
        made = [self._add(top, "split", {**equal, "index": i}, [value]) for i, top in enumerate(tops)]
        self._blobs.update(zip(tops, made, strict=True))
        row["top"] = []
        return made[-1]


def _pair(message: Message, both: str, height: str, width: str, usual: int) -> list[int]:
    given = [int(n) for n in message.get(both, [])]
    if given:
        return given * 2 if len(given) == 1 else given[:2]
    return [int(_one(message, height, usual)), int(_one(message, width, usual))]


def capture(source: dict[str, Any], input_shape: Shape | None) -> Captured:
    """Return the network of a prototxt file, in its test phase, which has no weights."""
    path = Path(source["path"])
    if path.stat().st_size > MOST_BYTES:
        raise ImportFailedError(f"{path.name} is larger than {MOST_BYTES >> 20} MiB")
    try:
        net = parse(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ImportFailedError(f"{path.name} is no text") from None
    except ImportFailedError as error:
        raise ImportFailedError(f"{path.name}: {error}") from None
    try:
        importer = Importer(net, str(source.get("arguments", {}).get("phase", "TEST")).upper(), input_shape)
        layers = importer.run()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, ImportFailedError):
            raise
        raise ImportFailedError(f"{path.name} is no network of Caffe: {type(error).__name__}: {error}") from None
    assert importer.input
    names = ("channels", "height", "width") if len(importer.input) == 3 else ("features",)
    if prod(importer.input) == 0:
        raise ImportFailedError("an input without values")
    return Captured(
        name=str(_one(net, "name", path.stem)),
        provenance="of Caffe",
        input=dict(zip(names, importer.input, strict=True)),
        layers=layers,
        notes=(
            "A prototxt has no weights, so there is no proof. Initializers are PyTorch's defaults.",
            *(
                (f"Left out, as the last layer does not depend on them: {', '.join(importer.left_out)}.",)
                * bool(importer.left_out)
            ),
        ),
    )
