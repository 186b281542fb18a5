"""Runs generated Keras code, on the backend that KERAS_BACKEND names."""

import sys
from typing import Any

import protocol


def versions() -> dict[str, str]:
    """Return the versions of what computes here."""
    import keras
    import numpy

    backend = keras.backend.backend()
    engine = __import__({"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}[backend])
    found = {"python": sys.version.split()[0], "keras": keras.__version__, backend: engine.__version__}
    return {**found, "numpy": numpy.__version__}


def forward(
    model: str, name: str, weights: str, inputs: str, dtype: str, layers: list[str], output: str
) -> dict[str, Any]:
    """Write every layer's output in evaluation mode to the file `output`.

    `inputs` is a .npy file of (N, H, W, C); `output` a .npz file with an array for each of `layers`.
    """
    import keras
    import numpy as np

    if keras.backend.backend() != "tensorflow":
        # Keras' own rules of promotion make float32 of float64 on these backends, after JAX's default.
        from keras.src.backend.common import dtypes

        dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
    keras.utils.clear_session()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)  # floatx alone does nothing once a layer has been made
    generated = protocol.module(model)
    network = getattr(generated, name)()
    if network.weights:
        generated.load_weights(network, weights)
    present = [layer for layer in layers if any(layer == made.name for made in network.layers)]
    tap = keras.Model(network.inputs, {layer: network.get_layer(layer).output for layer in present})
    results = tap(np.load(inputs).astype(dtype), training=False)
    np.savez(output, **{layer: keras.ops.convert_to_numpy(results[layer]) for layer in present})
    return {"layers": present}


def initial(model: str, name: str, seed: int, output: str) -> dict[str, Any]:
    """Write the weights that the model is made with to the .npz file `output`, in Keras' layouts."""
    import keras
    import numpy as np

    keras.utils.clear_session()
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(seed)
    network = getattr(protocol.module(model), name)()
    names = {"kernel": "weight", "bias": "bias"}
    weights = {f"{layer.name}.{names[w.name]}": w for layer in network.layers for w in layer.weights}
    np.savez(output, **{name: keras.ops.convert_to_numpy(weight) for name, weight in weights.items()})
    return {}


if __name__ == "__main__":
    protocol.serve("keras", versions, {"forward": forward, "initial": initial})
