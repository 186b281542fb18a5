"""Runs generated NumPy code."""

import sys
from typing import Any

import protocol


def versions() -> dict[str, str]:
    """Return the versions of Python and NumPy."""
    import numpy

    return {"python": sys.version.split()[0], "numpy": numpy.__version__}


def forward(
    folder: str, name: str, weights: str, inputs: str, dtype: str, layers: list[str], output: str
) -> dict[str, Any]:
    """Write every layer's output to the file `output`.

    `folder` has the generated files; `inputs` is a .npy file of (N, C, H, W); `output` a .npz file with an array for
    each of `layers`.
    """
    import numpy as np
    from safetensors.numpy import load_file

    network = getattr(protocol.Program(folder)("model"), name)
    outputs = network(np.load(inputs).astype(dtype), load_file(weights))
    np.savez(output, **{layer: outputs[layer] for layer in layers if layer in outputs})
    return {"layers": [layer for layer in layers if layer in outputs]}


if __name__ == "__main__":
    protocol.serve("numpy", versions, {"forward": forward})
