"""Makes models of keras.applications, and runs Keras models for the proof of an import: in a process of its own.

Reads a request, one JSON object, from standard input, and writes one to the file that it names. The backend is PyTorch,
which the proof needs anyway.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import protocol

os.environ["KERAS_BACKEND"] = "torch"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


class SourceError(Exception):
    """Raised where there is no such model; `names` are those that there are."""

    def __init__(self, message: str, names: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.names = names


def make(source: dict[str, Any], input_shape: Sequence[int] | None) -> Any:
    """Return a model of keras.applications, of a file, or of a user's own class or function, which is run."""
    keras = protocol.import_keras()
    name = source["name"]
    if source["kind"] == "keras.file":
        return _of_file(source)
    if source["kind"] == "keras":
        model = _from_config(json.loads(json.dumps(source["config"]).replace('"float32"', '"float64"')))
        if not model.built and input_shape:
            model.build((None, *last(input_shape)))
        return model
    functions = [n for n, value in vars(keras.applications).items() if n[0].isupper() and callable(value)]
    if name not in functions:
        raise SourceError(f"keras.applications has no model {name!r}", functions)
    arguments = dict(source.get("arguments", {}))
    if input_shape:
        channels, height, width = input_shape
        arguments["input_shape"] = (height, width, channels)
    return getattr(keras.applications, name)(weights=source.get("weights"), **arguments)


def _of_file(source: dict[str, Any]) -> Any:
    """Return the model that a class or function of a file makes, or that is there by that name."""
    import keras

    path, name = Path(source["path"]).resolve(), source["name"]
    module = protocol.user_module(path)
    if not hasattr(module, name):
        raise SourceError(f"{path.name} has no {name!r}", [n for n in vars(module) if n[0] != "_"])
    made = getattr(module, name)
    made = made if isinstance(made, keras.Model) else made(**source.get("arguments", {}))
    if not isinstance(made, keras.Model):
        raise SourceError(f"{name} of {path.name} is no keras.Model and does not return one")
    return made


def capture(request: dict[str, Any]) -> dict[str, Any]:
    """Write the configuration and the weights of a model of keras.applications."""
    import numpy as np
    from safetensors.numpy import save_file

    keras = protocol.import_keras()
    keras.utils.set_random_seed(0)
    model = make(request["source"], request["input_shape"])
    Path(request["config"]).write_text(model.to_json())
    arrays = {key: np.ascontiguousarray(value.numpy()) for key, value in _weights(model)}
    save_file(arrays, request["weights"])
    return {"versions": {"keras": keras.__version__}}


def reference(request: dict[str, Any]) -> dict[str, Any]:
    """Write inputs, weights, outputs and gradients of the model in both modes to the .npz file `arrays`, in float64."""
    import numpy as np
    import torch
    from safetensors.numpy import load_file

    keras = protocol.import_keras()
    exact()
    torch.manual_seed(0)
    keras.utils.set_random_seed(0)
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    model = make({**request["source"], "weights": None}, request["input_shape"])
    given = load_file(request["weights"]) if request.get("weights") else {}
    random = np.random.default_rng(0)
    for key, variable in _weights(model):
        if key in given:
            variable.assign(given[key].astype("float64").reshape(variable.shape))
    rates = [float(layer.rate) for layer in _layers(model) if type(layer).__name__ == "Dropout"]
    _disturb(model, random)
    for layer in _layers(model):
        for field in ("rate", "drop_path_rate"):
            if isinstance(getattr(layer, field, None), float):
                setattr(layer, field, 0.0)
    x = random.standard_normal((request["batch"], *last(request["input_shape"])))
    arrays: dict[str, Any] = {}
    for mode in ("evaluation", "training"):
        if mode == "training":
            for layer in _layers(model):
                if type(layer).__name__ in NORMS and getattr(layer, "gamma", None) is not None:
                    layer.gamma.assign(6 * layer.gamma.numpy())
            x = 3 * x
        arrays |= {f"{mode}/weight/{key}": variable.numpy().copy() for key, variable in _weights(model)}
        images = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        y = model(images, training=mode == "training")
        for variable in model.trainable_variables:
            variable.value.grad = None
        y.square().sum().backward()
        arrays |= {f"{mode}/x": x, f"{mode}/y": y.detach().numpy(), f"{mode}/dx": images.grad.numpy()}  # type: ignore[union-attr]
        for key, variable in _weights(model):
            if variable.trainable and variable.value.grad is not None:
                arrays[f"{mode}/gradient/{key}"] = variable.value.grad.numpy().copy()
    for key, variable in _weights(model):
        if not variable.trainable:
            arrays[f"after/weight/{key}"] = variable.numpy()
    np.savez(request["arrays"], **arrays)
    return {"rates": rates, "parameters": model.count_params(), "versions": {"keras": keras.__version__}}


def _from_config(config: dict[str, Any]) -> Any:
    """Return a model of a configuration, of which the importer knows every layer."""
    if "module" in config:
        import keras

        return keras.saving.deserialize_keras_object(config)
    from keras.src.legacy.saving import saving_utils  # HDF5 files have the configuration of Keras 2

    return saving_utils.model_from_config(config)


NORMS = ("BatchNormalization", "LayerNormalization", "GroupNormalization")


def exact() -> None:
    """Keep float64: Keras' rules of promotion make float32 of it, and PyTorch's hardsigmoid has a float32 in it."""
    import keras
    from keras.src.backend.common import dtypes

    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
    if keras.config.backend() != "torch":
        return
    from torch.nn import functional

    def hardsigmoid(input: Any, inplace: bool = False) -> Any:
        return functional.relu6(input + 3) / 6

    functional.hardsigmoid = hardsigmoid


def _disturb(model: Any, random: Any) -> None:
    """Give norms, biases and scales values that hide nothing: fresh ones are 0 or 1."""
    import numpy as np

    for layer in _layers(model):
        for name in ("moving_mean", "moving_variance"):
            if (variable := getattr(layer, name, None)) is not None:
                draw = random.normal(0, 0.1, variable.shape) if name == "moving_mean" else None
                variable.assign(random.uniform(0.5, 1.5, variable.shape) if draw is None else draw)
        for variable in layer.trainable_variables:
            values = variable.numpy()
            if float(np.abs(values).max()) <= 1e-3 or bool((values == 1).all()):
                variable.assign(values + random.normal(0, 0.1, values.shape))


def _layers(model: Any) -> Iterator[Any]:
    """Yield the layers of a model, in the order of its configuration, those of models in it too."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _layers(layer)
        else:
            yield layer


def _weights(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the variables of a model, by layer and number."""
    for layer in _layers(model):
        for i, variable in enumerate(v for v in layer.weights if "seed" not in v.path):
            yield f"{layer.name}/{i}", variable


def last(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(shape) if len(shape) == 1 else (shape[1], shape[2], shape[0])


if __name__ == "__main__":
    protocol.answer_once({"capture": capture, "reference": reference})
