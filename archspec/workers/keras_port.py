"""Runs a Keras model that somebody else wrote with the weights of a spec: in a process of its own, or in the model's.

Reads a request, one JSON object, from standard input, and writes one to the file that it names. The backend is PyTorch,
or TensorFlow for a file that imports it.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras_import
import protocol
from matching import Matcher, Observer, Weight, canonical, spec_weights

DROPOUTS = ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "AlphaDropout", "GaussianDropout")


def port(request: dict[str, Any]) -> dict[str, Any]:
    """Return which layer each of the model's is; write outputs, gradients and buffers in both modes to `arrays`.

    The weights are those of the spec's layers; in training mode dropouts are the identity. All in float64.
    """
    source = request["source"]
    if source["kind"] == "keras.file":
        text = Path(source["path"]).read_text(encoding="utf-8")
        if re.search(r"^\s*(import|from)\s+tensorflow\b", text, re.MULTILINE):
            os.environ["KERAS_BACKEND"] = "tensorflow"
    keras = protocol.import_keras()
    keras_import.exact()
    keras.utils.set_random_seed(0)
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    return _compare(request, keras_import.make(source, request["input_shape"]))


def live(request: dict[str, Any], model: Any) -> dict[str, Any]:
    """Return the same of a copy in float64 of a model of this process, which does not change, nor does Keras' state."""
    import keras
    from keras.src.backend.common import dtypes

    if (backend := keras.config.backend()) not in ("tensorflow", "torch"):
        raise keras_import.SourceError(f"Keras models are compared on the backends tensorflow and torch, not {backend}")
    functional = sys.modules["torch"].nn.functional if backend == "torch" else None
    before = keras.config.floatx(), keras.config.dtype_policy(), dict(dtypes.BIT64_TO_BIT32_DTYPE)
    hardsigmoid = functional and functional.hardsigmoid
    keras_import.exact()
    try:
        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("float64")
        return _compare(request, _copied(model))
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])
        dtypes.BIT64_TO_BIT32_DTYPE.update(before[2])
        if functional:
            functional.hardsigmoid = hardsigmoid


def counts(request: dict[str, Any], model: Any) -> dict[str, Any]:
    """Return the shapes of a model's parameters; Keras does not count multiply-accumulates."""
    if not model.built:
        model.build((None, *keras_import.last(request["input_shape"])))
    variables = [v for layer in model._flatten_layers() for v in layer._trainable_variables]
    return {"shapes": {v.path: list(v.shape) for v in {id(v): v for v in variables}.values()}, "macs": None}


def _copied(model: Any) -> Any:
    """Return a model of the same configuration, in float64."""
    import keras

    classes = {type(layer).__name__: type(layer) for layer in model._flatten_layers()}
    try:
        config = json.dumps(keras.saving.serialize_keras_object(model))
        config = re.sub('"(float32|mixed_float16|mixed_bfloat16)"', '"float64"', config)
        return keras.saving.deserialize_keras_object(json.loads(config), custom_objects=classes, safe_mode=False)
    except Exception as error:
        how = "name its source instead, such as keras:net.py:make"
        raise keras_import.SourceError(f"{model.name} cannot be made in float64: {error}; {how}") from error


def _compare(request: dict[str, Any], model: Any) -> dict[str, Any]:
    """Return the answer of `port` for a model in float64."""
    import keras
    import numpy as np
    from safetensors.numpy import load_file

    backend = keras.config.backend()
    weights = load_file(request["weights"])
    inputs = {mode: np.load(path).astype(np.float64) for mode, path in request["inputs"].items()}
    first = _is_channels_first(model, inputs["evaluation"].shape[1:])
    with np.load(request["outputs"]) as file:
        matcher = Matcher(request["layers"], dict(file), inputs["evaluation"])
    given = {mode: values if first else _last(values) for mode, values in inputs.items()}
    model(_tensor(given["evaluation"]), training=False)  # builds what is not built
    observer = _Observer(model, matcher, weights, last=not first)
    rates = observer.without_dropout()
    fault, arrays = "", dict[str, Any]()
    try:
        with observer.watching():
            y = _output(model(_tensor(given["evaluation"]), training=False))
    except Exception as error:
        fault = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    answer: dict[str, Any] = observer.answer(arrays) | {
        "parameters": sum(int(np.prod(v.shape)) for v in model.trainable_variables),
        "versions": {"keras": keras.__version__, "backend": backend},
        "fault": fault,
        "rates": rates,
    }
    if fault:
        np.savez(request["arrays"], **arrays)
        return answer
    arrays["y"] = _numpy(y)
    for mode, values in given.items():
        y, dx, gradients = _gradients(model, values, mode == "training")
        arrays |= {f"{mode}/y": y, f"{mode}/dx": dx if first or dx.ndim != 4 else dx.transpose(0, 3, 1, 2)}
        for assigned, param, weight, variable in observer.pairs():
            name = f"{assigned.layer}.{param}"
            if not variable.trainable:
                arrays[f"{mode}/buffer/{name}"] = canonical(assigned, weight, _numpy(variable))
            elif id(variable) in gradients:
                arrays[f"{mode}/gradient/{name}"] = canonical(assigned, weight, gradients[id(variable)])
    np.savez(request["arrays"], **arrays)
    return answer


class _Observer(Observer):  # type: ignore[misc]
    """Gives each layer the weights of the spec's layer that it is, and shows all outputs to the matcher."""

    def __init__(self, model: Any, matcher: Matcher, weights: dict[str, Any], last: bool) -> None:
        super().__init__(matcher)
        self._model, self._weights, self._last_axes = model, weights, last
        self._stack: list[str] = []
        self._seen: set[int] = set()

    def without_dropout(self) -> list[float]:
        """Make the dropouts the identity; return their rates."""
        rates = []
        for layer in self._model._flatten_layers():
            if type(layer).__name__ in DROPOUTS and layer.rate:
                rates.append(float(layer.rate))
            for field in ("rate", "drop_path_rate"):
                if isinstance(getattr(layer, field, None), float):
                    setattr(layer, field, 0.0)
        return rates

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch a forward pass."""
        import keras

        original = keras.layers.Layer.__call__

        def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            if layer is self._model:
                return original(layer, *args, **kwargs)
            self._stack.append(layer.name)
            path = "/".join(self._stack)
            if args and _is_array(args[0]):
                self._give(path, layer, _numpy(args[0]))
            output = original(layer, *args, **kwargs)
            first = output[0] if isinstance(output, tuple | list) and output else output
            if _is_array(first):
                self.matcher.see(path, _numpy(first), self._last_axes)
            self._stack.pop()
            return output

        keras.layers.Layer.__call__ = call
        try:
            yield
        finally:
            keras.layers.Layer.__call__ = original

    def _give(self, path: str, layer: Any, reads: Any) -> None:
        """Find out which of the spec's layers a layer is, and load its weights."""
        inside = {id(v) for sub in layer._flatten_layers(include_self=False) for v in sub.variables}
        own = [v for v in layer.variables if id(v) not in inside and "seed" not in v.path]
        if not own or id(layer) in self._seen:
            return
        self._seen.add(id(layer))
        if reads.ndim == 4 and self._last_axes:
            reads = reads.transpose(0, 3, 1, 2)
        variables = {variable.name: variable for variable in own}
        kind = type(layer).__name__
        groups = _weights(kind, variables)
        before = ""
        for i, weights in enumerate(groups):
            place = path if len(groups) == 1 else f"{path} ({'depthwise' if i == 0 else 'pointwise'})"
            self.classes[place] = kind
            if before:
                assigned = self.matcher.follow(weights, before)
            else:
                assigned = self.matcher.assign(weights, reads, self._last_axes)
            if assigned is None:
                self.add_surplus(place, weights)
                return
            before = assigned.layer
            self.assigned[place] = assigned
            self.tensors[place] = variables
            for weight, array in spec_weights(assigned, self._weights):
                variable = variables[weight.name]
                variable.assign(weight.from_canonical(array, variable.shape))


def _weights(kind: str, variables: dict[str, Any]) -> list[list[Weight]]:
    """Return the weights of a Keras layer in PyTorch's layouts; two groups for a separable convolution."""

    def one(name: str, variable: Any) -> Weight:
        shape = tuple(variable.shape)
        if len(shape) == 4 and (name == "depthwise_kernel" or kind == "DepthwiseConv2D"):
            h, w, channels, each = shape
            return Weight(name, (channels * each, 1, h, w), None, (2, 3, 0, 1))
        if len(shape) == 4 and name in ("kernel", "pointwise_kernel"):
            h, w, a, b = shape
            return Weight(name, (b, a, h, w), None, (3, 2, 0, 1))
        if len(shape) == 2 and name == "kernel":
            return Weight(name, shape[::-1], None, (1, 0))
        return Weight(name, shape)

    found = {name: one(name, variable) for name, variable in variables.items()}
    if "pointwise_kernel" in found:
        return [[found.pop("depthwise_kernel")], list(found.values())]
    return [list(found.values())]


def _gradients(model: Any, values: Any, training: bool) -> tuple[Any, Any, dict[int, Any]]:
    """Return the output, and the gradients of the sum of its squares: of the input, and of variables by id."""
    import keras

    x = _tensor(values)
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            y = _output(model(x, training=training))
            loss = tf.reduce_sum(tf.square(y))
        variables = model.trainable_variables
        dx, *found = tape.gradient(loss, [x, *(variable.value for variable in variables)])
        pairs = zip(variables, found, strict=True)
        return _numpy(y), _numpy(dx), {id(v): _numpy(tf.convert_to_tensor(g)) for v, g in pairs if g is not None}
    x.requires_grad_()
    for variable in model.trainable_variables:
        variable.value.grad = None
    y = _output(model(x, training=training))
    y.square().sum().backward()
    gradients = {id(v): v.value.grad.numpy().copy() for v in model.trainable_variables if v.value.grad is not None}
    return _numpy(y), x.grad.numpy(), gradients


def _tensor(values: Any) -> Any:
    import keras

    return keras.ops.convert_to_tensor(values, dtype="float64")


def _numpy(value: Any) -> Any:
    import keras

    return keras.ops.convert_to_numpy(getattr(value, "value", value))


def _is_array(value: Any) -> bool:
    import keras

    return bool(keras.ops.is_tensor(value) and not isinstance(value, keras.KerasTensor))


def _output(y: Any) -> Any:
    if isinstance(y, dict):
        y = next(iter(y.values()))
    return y[0] if isinstance(y, tuple | list) else y


def _is_channels_first(model: Any, shape: tuple[int, ...]) -> bool:
    """Return whether a model reads (N, C, H, W)."""
    own = getattr(model, "input_shape", None)
    if len(shape) != 3 or not isinstance(own, tuple) or len(own) != 4:
        return False
    return bool(own[1] == shape[0] and own[3] != shape[0])


def _last(values: Any) -> Any:
    return values.transpose(0, 2, 3, 1) if values.ndim == 4 else values


if __name__ == "__main__":
    protocol.answer_once({"port": port})
