"""PyTorch models: captured by torch.export in a process of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archspec.importers import process
from archspec.importers.aten import read_layers
from archspec.importers.layers import Captured, Shape

WORKER = "torch_import.py"
KINDS = ("torchvision", "timm", "file")


def capture(source: Mapping[str, Any], input_shape: Shape, folder: Path, *, opaque: bool = False) -> Captured:
    """Return a model of torchvision, timm, or a file of the user's."""
    weights = folder / "weights.safetensors"
    found = process.ask(
        WORKER,
        {"job": "capture", "source": dict(source), "input_shape": list(input_shape), "weights": str(weights)},
        folder,
    )
    from safetensors.numpy import load_file  # a package that comes with PyTorch's extra

    return Captured(
        name=found["class"] if source["kind"] == "file" else source["name"],
        provenance=f"captured by torch.export of PyTorch {found['versions']['torch']}",
        input=dict(
            zip(("channels", "height", "width") if len(input_shape) == 3 else ("features",), input_shape, strict=True)
        ),
        layers=read_layers(found, input_shape, opaque=opaque),
        parameters=found["parameters"],
        weights=load_file(weights),
        notes=("Initializers are PyTorch's defaults.",),
    )
