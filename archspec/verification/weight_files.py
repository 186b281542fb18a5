"""Weights of a network in the files of PyTorch, Keras and NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspec.files import temporary_folder, write_file, write_tensors
from archspec.graph import Graph
from archspec.language.names import class_name
from archspec.language.ops.base import format_shape
from archspec.language.source import did_you_mean
from archspec.targets import TARGETS, model_source
from archspec.verification.canonical_weights import shapes
from archspec.verification.processes import Workers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[np.floating[Any]]]

TORCH, KERAS = (".pt", ".pth"), (".weights.h5", ".h5", ".keras")
SUFFIXES = (".safetensors", *TORCH, ".npz", *KERAS)
WRITTEN = (".safetensors", *TORCH, ".npz", ".weights.h5", ".keras")


class WeightsError(Exception):
    """Raised for a file that cannot be read, or whose weights are not those of the network."""


def suffix_of(path: Path) -> str:
    """Return which of SUFFIXES the name of a file ends in; an empty string for another."""
    return next((suffix for suffix in (".weights.h5", *SUFFIXES) if path.name.endswith(suffix)), "")


def read(graph: Graph, path: Path, workers: Workers) -> Arrays:
    """Return the weights in a file by canonical name, in PyTorch's layouts.

    Keras' files are those of the generated Keras model. A pickle of PyTorch is read with `weights_only`. Raises
    WeightsError, and WorkerError without the file's framework.
    """
    suffix = suffix_of(path)
    with temporary_folder() as folder:
        output = folder / "weights.npz"
        if suffix in KERAS:
            workers.ask("keras", "read_weights", path=str(path.resolve()), output=str(output), **_keras(graph, folder))
            found = _arrays(output)
        elif suffix in TORCH:
            workers.ask("torch", "read_weights", path=str(path.resolve()), output=str(output))
            found = _arrays(output)
        elif suffix == ".npz":
            found = _arrays(path)
        else:
            from safetensors import SafetensorError
            from safetensors.numpy import load_file

            try:
                found = load_file(path)
            except SafetensorError as error:
                raise WeightsError(f"{path} is no safetensors file: {error}") from None
    return fitting(graph, found, path.name)


def write(graph: Graph, weights: Mapping[str, Any], path: Path, workers: Workers) -> None:
    """Write canonical weights in the format that the name of the file ends in.

    The file is whole or not there. Raises WorkerError without the file's framework.
    """
    import numpy as np

    suffix = suffix_of(path)
    arrays = {name: weights[name] for name in shapes(graph)}
    with temporary_folder() as folder:
        source, made = folder / "weights.safetensors", folder / f"made{suffix}"
        write_tensors(source, arrays)
        if suffix in KERAS:
            workers.ask("keras", "write_weights", weights=str(source), path=str(made), **_keras(graph, folder))
        elif suffix in TORCH:
            norms = [f"{node.name}.num_batches_tracked" for node in graph.nodes if "running_mean" in node.params]
            workers.ask("torch", "write_weights", weights=str(source), counts=norms, path=str(made))
        elif suffix == ".npz":
            np.savez(made, **arrays)
        else:
            made = source
        write_file(path, made.read_bytes())


def fitting(graph: Graph, found: Mapping[str, Any], name: str) -> Arrays:
    """Return the network's weights among arrays; raise WeightsError if any is missing, surplus, or of another shape."""
    expected = shapes(graph)
    ours = {key.removeprefix("module."): value for key, value in found.items() if "num_batches_tracked" not in key}
    missing, surplus = [key for key in expected if key not in ours], [key for key in ours if key not in expected]
    lines = [f"{key} is missing{did_you_mean(key, surplus)}" for key in missing]
    lines += [f"{key} is not of this network{did_you_mean(key, missing)}" for key in surplus]
    for key, shape in expected.items():
        if key in ours and list(ours[key].shape) != shape:
            lines.append(f"{key} is {format_shape(ours[key].shape) or 'a number'}, not {format_shape(tuple(shape))}")
    if lines:
        more = f"\n  and {len(lines) - 20} more" if len(lines) > 20 else ""
        raise WeightsError(f"the weights in {name} are not those of {graph.name}:\n  " + "\n  ".join(lines[:20]) + more)
    return {key: ours[key] for key in expected}


def _arrays(path: Path) -> Arrays:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError) as error:
        raise WeightsError(f"{path.name} is no file of NumPy arrays: {error}") from None


def _keras(graph: Graph, folder: Path) -> dict[str, Any]:
    """Write the generated Keras model; return what its worker has to know."""
    (folder / "model.py").write_text(model_source(graph, TARGETS["keras"]), encoding="utf-8")
    return {"folder": str(folder), "name": class_name(graph.name), "parameters": shapes(graph)}
