"""Runs generated PyTorch code."""

import sys
from types import FrameType
from typing import Any

import protocol


def versions() -> dict[str, str]:
    """Return the versions of what computes here."""
    import numpy
    import torch

    return {"python": sys.version.split()[0], "torch": torch.__version__, "numpy": numpy.__version__}


def forward(
    model: str, name: str, weights: str, inputs: str, dtype: str, layers: list[str], output: str
) -> dict[str, Any]:
    """Write every layer's output in evaluation mode to the file `output`.

    `inputs` is a .npy file of (N, C, H, W); `output` a .npz file with an array for each of `layers`.
    """
    import numpy as np
    import torch
    from safetensors.torch import load_file

    precision = getattr(torch, dtype)
    network = getattr(protocol.module(model), name)()
    network.load_state_dict(load_file(weights), strict=True)
    network.to(precision).eval()
    outputs: dict[str, Any] = {}

    def keep(layer: str) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            outputs[layer] = output.detach().clone()

        return hook

    for layer, module in network.named_children():
        module.register_forward_hook(keep(layer))

    # A layer that is an expression has no module to hook. Its result has the variable of its name when forward returns.
    code = type(network).forward.__code__

    def at_return(frame: FrameType, event: str, result: Any) -> None:
        if event == "return" and frame.f_code is code:
            found = frame.f_locals
            outputs.update(
                {layer: found[layer].detach().clone() for layer in layers if layer in found and layer not in outputs}
            )
            outputs.setdefault(layers[-1], result)

    batch = torch.from_numpy(np.load(inputs)).to(precision)
    with torch.no_grad():
        sys.setprofile(at_return)
        try:
            network(batch)
        finally:
            sys.setprofile(None)
    np.savez(output, **{layer: outputs[layer].numpy() for layer in layers if layer in outputs})
    return {"layers": [layer for layer in layers if layer in outputs]}


def initial(model: str, name: str, seed: int, output: str) -> dict[str, Any]:
    """Write the weights that the model is made with to the .npz file `output`."""
    import numpy as np
    import torch

    torch.manual_seed(seed)
    network = getattr(protocol.module(model), name)()
    np.savez(output, **{name: weight.numpy() for name, weight in network.state_dict().items()})
    return {}


if __name__ == "__main__":
    protocol.serve("torch", versions, {"forward": forward, "initial": initial})
