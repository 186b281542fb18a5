"""The proof of an import: the generated PyTorch code beside the model itself, with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspec import analysis
from archspec.files import temporary_folder, write_tensors
from archspec.importers import Imported, caffe_model, keras_model, onnx_model, process, pt2_model, torch_model
from archspec.language.names import class_name
from archspec.language.ops.base import positions_of
from archspec.targets import TARGETS, model_source

if TYPE_CHECKING:
    from archspec.importers.layers import Array

OUTPUT_BOUND, GRADIENT_BOUND = 1e-10, 1e-9  # relative, in float64
RUNTIME, RUNTIME_BOUND = "outputs, evaluation, of onnxruntime in float32", 1e-4


@dataclass(frozen=True)
class Proof:
    """How far the generated PyTorch code is from the original, in float64, and the multiply-accumulates of both."""

    differences: Mapping[str, float]  # the largest relative difference, by what was compared
    macs: tuple[int, ...]  # by torch.utils.flop_counter: the generated code's, and the original's if it is PyTorch's
    counted: int  # archspec's
    rates: tuple[list[float], list[float]] = ([], [])  # of dropouts, where they differ

    @property
    def failures(self) -> list[str]:
        """What is not equal, in words."""
        found = [
            f"{what} differ by {value:.2g}, more than {bound(what):.0e}"
            for what, value in self.differences.items()
            if not value <= bound(what)
        ]
        if self.rates[0] != self.rates[1]:
            found.append(f"dropouts: {self.rates[0]} in the model, {self.rates[1]} in the code")
        elif len({*self.macs, self.counted}) > 1:
            counts = zip(self.macs, ("the code", "the model"), strict=False)
            found.append(f"MACs: {', '.join(f'{n:,} of {what}' for n, what in counts)}, {self.counted:,} of the spec")
        return found


def bound(what: str) -> float:
    """Return the largest relative difference that rounding may give."""
    if what == RUNTIME:
        return RUNTIME_BOUND
    return OUTPUT_BOUND if what.startswith("outputs, evaluation") else GRADIENT_BOUND


def is_possible(imported: Imported) -> bool:
    """Return whether there are two models to compare.

    Caffe is not run, pickles are not read, and opaque layers are not computed.
    """
    kind = imported.source["kind"]
    runs = kind != caffe_model.KIND and (imported.weights or kind != pt2_model.KIND)
    return bool(runs and not imported.is_opaque)


def prove(imported: Imported, *, batch: int = 2) -> Proof:
    """Compare the generated PyTorch code, with the model's weights, with the model itself; raise ImportFailedError.

    Outputs and gradients in evaluation and in training mode, with dropouts off, running statistics after a pass, and
    multiply-accumulates as torch.utils.flop_counter counts them.
    """
    graph = imported.graph
    with temporary_folder() as folder:
        model = folder / "model.py"
        model.write_text(model_source(graph, TARGETS["torch"]), encoding="utf-8")
        request = {
            "model": str(model),
            "class": class_name(graph.name),
            "input_shape": list(graph.input.output_shape),
            "batch": batch,
        }
        if imported.source["kind"] in keras_model.KINDS:
            return _beside_keras(imported, request, folder)
        if imported.source["kind"] == onnx_model.KIND:
            return _beside_onnxruntime(imported, request, folder)
        origins = {name: list(origin[:4]) for name, origin in imported.origins.items()}
        source = dict(imported.source)
        if source["kind"] == pt2_model.KIND:
            write_tensors(folder / "given.safetensors", imported.weights)
            source["weights"] = str(folder / "given.safetensors")
            request["batch"] = source["captured"]["batch"]
        request |= {"job": "prove", "source": source, "origins": origins}
        found = process.ask(torch_model.WORKER, request, folder)
    macs, rates = found["macs"], found.get("rates", ([], []))
    return Proof(found["differences"], tuple(reversed(macs)), analysis.totals(graph).macs, (rates[0], rates[1]))


def _beside_keras(imported: Imported, request: dict[str, Any], folder: Path) -> Proof:
    """Compare with the model that Keras makes of its configuration, with the same weights."""
    import numpy as np

    weights = folder / "given.safetensors"
    if imported.weights:
        write_tensors(weights, imported.weights)
    there = process.ask(
        keras_model.WORKER,
        {
            "job": "reference",
            "source": dict(imported.source),
            "input_shape": request["input_shape"],
            "batch": request["batch"],
            "weights": str(weights) if imported.weights else "",
            "arrays": str(folder / "reference.npz"),
        },
        folder,
    )
    reference = _Arrays(np.load(folder / "reference.npz").items())
    scale, offset = (
        np.array(v or default) for v, default in zip(imported.source["preprocessing"], ([1.0], [0.0]), strict=True)
    )
    modes = []
    for mode in ("evaluation", "training"):
        canonical = {n: o.canonical(reference.part(f"{mode}/weight/")) for n, o in imported.origins.items()}
        images = _first(reference[f"{mode}/x"] * scale + offset)
        np.save(folder / f"{mode}.npy", images)
        write_tensors(folder / f"{mode}.safetensors", canonical)
        modes.append({"name": mode, "inputs": f"{folder / mode}.npy", "weights": f"{folder / mode}.safetensors"})
    arrays = folder / "generated.npz"
    here = process.ask(torch_model.WORKER, {**request, "job": "run", "modes": modes, "arrays": str(arrays)}, folder)
    generated = _Arrays(np.load(arrays).items())
    found: dict[str, float] = {}
    for mode in ("evaluation", "training"):
        found[f"outputs, {mode}"] = relative_difference(_first(reference[f"{mode}/y"]), generated[f"{mode}/y"])
        found[f"gradients, {mode}"] = _gradients_apart(imported, mode, reference, generated, scale)
    if moved := _statistics_apart(imported, reference, generated, request["batch"]):
        found["running statistics"] = moved[0]
    graph, rates = imported.graph, (there["rates"], here["rates"])
    drawn = ([float(rate) for rate in rates[0] if rate], rates[1])
    return Proof(found, (here["macs"],), analysis.totals(graph).macs, ([], []) if drawn[0] == drawn[1] else drawn)


def _beside_onnxruntime(imported: Imported, request: dict[str, Any], folder: Path) -> Proof:
    """Compare outputs with those that onnxruntime computes in float32; ONNX has no gradients."""
    import numpy as np

    shape = (request["batch"], *request["input_shape"])
    images = np.random.default_rng(0).standard_normal(shape)
    np.save(folder / "images.npy", images)
    disturbed = folder / "disturbed.onnx"
    process.ask(
        onnx_model.WORKER,
        {"job": "disturb", "path": imported.source["path"], "out": str(disturbed), "shape": request["input_shape"]},
        folder,
    )
    weights = onnx_model.capture({"path": str(disturbed)}, imported.graph.input.output_shape, folder).weights
    canonical = {n: o.canonical(weights).astype(np.float64) for n, o in imported.origins.items()}
    write_tensors(folder / "weights.safetensors", canonical)
    ask = {"path": str(disturbed), "inputs": str(folder / "images.npy"), "arrays": str(folder / "there.npy")}
    process.ask(onnx_model.WORKER, {"job": "reference", **ask}, folder)
    mode = {"name": "evaluation", "inputs": ask["inputs"], "weights": str(folder / "weights.safetensors")}
    arrays = folder / "generated.npz"
    run = {**request, "job": "run", "modes": [mode], "arrays": str(arrays), "gradients": False}
    here = process.ask(torch_model.WORKER, run, folder)
    apart = relative_difference(np.load(arrays)["evaluation/y"], np.load(folder / "there.npy"))
    return Proof({RUNTIME: apart}, (here["macs"],), analysis.totals(imported.graph).macs)


class _Arrays(dict[str, Any]):
    """The arrays of a file, by name."""

    def part(self, prefix: str) -> dict[str, Any]:
        """Return those whose names begin so, without that beginning."""
        return {key.removeprefix(prefix): value for key, value in self.items() if key.startswith(prefix)}


def _gradients_apart(imported: Imported, mode: str, reference: _Arrays, generated: _Arrays, scale: Array) -> float:
    """Return the largest difference of the gradients of the input and of all weights."""
    import numpy as np

    there = reference.part(f"{mode}/gradient/")
    largest = max((float(np.abs(value).max()) for value in there.values()), default=0.0)
    apart = [relative_difference(_first(reference[f"{mode}/dx"] / scale), generated[f"{mode}/dx"])]
    for name, value in generated.part(f"{mode}/gradient/").items():
        origin = imported.origins[name]
        if origin.key:
            expected = origin.canonical(there) if origin.key in there else np.zeros(origin.shape)
            apart.append(relative_difference(expected, value, 1e-3 * largest))
    return max(apart)


def _statistics_apart(imported: Imported, reference: _Arrays, generated: _Arrays, batch: int) -> list[float]:
    """Return the largest difference of running statistics, if there are any; Keras' variances are biased."""
    before, after = reference.part("training/weight/"), reference.part("after/weight/")
    apart = []
    for node in imported.graph.nodes:
        for param, shape in node.params.items():
            if shape.trainable:
                continue
            origin = imported.origins[f"{node.name}.{param}"]
            expected = after[origin.key]
            if param == "running_var":
                op: Any = node.op
                n = batch * positions_of(node.input_shapes[0])
                kept = (1 - op.momentum) * before[origin.key]
                expected = kept + (expected - kept) * n / max(n - 1, 1)
            apart.append(relative_difference(expected, generated[f"training/buffer/{node.name}.{param}"]))
    return [max(apart)] if apart else []


def _first(array: Array) -> Array:
    """Return (N, H, W, C) as (N, C, H, W)."""
    return array.transpose(0, 3, 1, 2) if array.ndim == 4 else array


def relative_difference(a: Array, b: Array, least: float = 0.0) -> float:
    """Return the largest difference relative to the largest of `a`, `least` at the least; infinity for NaN."""
    import numpy as np

    if a.shape != b.shape or not bool(np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    scale = max(float(np.abs(a).max()), least) or 1.0
    return float(np.abs(a - b).max()) / scale
