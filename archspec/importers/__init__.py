"""Importers: from a user's model to a spec, with its weights, and the proof that they are one network."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspec.files import temporary_folder
from archspec.graph import Graph, build
from archspec.importers.aten import Importer
from archspec.importers.folding import folded, snake_case
from archspec.importers.layers import (
    ImportFailedError,
    Layer,
    MissingPackageError,
    Unsupported,
    UnsupportedModelError,
)
from archspec.importers.spec_text import spec_text
from archspec.language.source import Source, SpecError, did_you_mean
from archspec.targets import INSTALL

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "ImportFailedError",
    "Imported",
    "MissingPackageError",
    "Proof",
    "Unsupported",
    "UnsupportedModelError",
    "import_model",
    "prove",
]

WORKER = Path(__file__).parent.parent / "workers" / "torch_import.py"
OUTPUT_BOUND, GRADIENT_BOUND = 1e-10, 1e-9  # relative, in float64


@dataclass(frozen=True)
class Imported:
    """An imported model: its spec's text, its graph, and where each weight of the graph comes from.

    `origins` are, by canonical name, the author's name and the canonical shape.
    """

    text: str
    graph: Graph
    origins: Mapping[str, tuple[str, tuple[int, ...]]]
    source: Mapping[str, Any]
    parameters: int  # of the model, counted by its framework
    weights: Mapping[str, NDArray[np.floating[Any]]]
    folded: bool

    def canonical_weights(self) -> dict[str, NDArray[np.floating[Any]]]:
        """Return the model's weights with canonical names and layouts."""
        return {name: self.weights[key].reshape(shape) for name, (key, shape) in self.origins.items()}


@dataclass(frozen=True)
class Proof:
    """How far the generated PyTorch code is from the original, in float64, and the multiply-accumulates of both."""

    differences: Mapping[str, float]  # the largest relative difference, by what was compared
    macs: tuple[int, int]  # by torch.utils.flop_counter: the original's, the generated code's
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
            found.append(
                f"MACs: {self.macs[0]:,} of the model, {self.macs[1]:,} of the code, {self.counted:,} of the spec"
            )
        return found


def bound(what: str) -> float:
    """Return the largest relative difference that rounding may give."""
    return OUTPUT_BOUND if what.startswith("outputs, evaluation") else GRADIENT_BOUND


def parse_source(text: str) -> dict[str, Any]:
    """Return the parts of `torchvision:NAME`, `timm:NAME` or `FILE.py:NAME`; raise ImportFailedError for another."""
    kind, _, name = text.partition(":")
    if kind in ("torchvision", "timm") and name:
        return {"kind": kind, "name": name}
    path, _, name = text.rpartition(":")
    if path.endswith(".py") and name.isidentifier():
        if not Path(path).is_file():
            raise ImportFailedError(f"there is no file {path}")
        return {"kind": "file", "path": str(Path(path).resolve()), "name": name}
    raise ImportFailedError(
        f"{text!r} is no source of a model: write torchvision:NAME, timm:NAME or path/to/file.py:NAME"
    )


def import_model(
    source: str,
    *,
    input_shape: tuple[int, ...] = (3, 224, 224),
    arguments: Mapping[str, Any] | None = None,
    pretrained: str | None = None,
    name: str | None = None,
) -> Imported:
    """Return a model as a spec with its weights.

    `source` is `torchvision:NAME`, `timm:NAME` or `FILE.py:NAME`, a class or function that is called with `arguments`;
    a user's own file is run, in a process of its own. Raises ImportFailedError for a model that cannot be made or
    captured, MissingPackageError without PyTorch or the source's package, UnsupportedModelError for a model with
    operators that the language lacks, all of them at once.
    """
    parsed = {**parse_source(source), "arguments": dict(arguments or {})}
    if pretrained:
        parsed["weights"] = pretrained
    with temporary_folder() as folder:
        weights = folder / "weights.safetensors"
        captured = _ask(
            {"job": "capture", "source": parsed, "input_shape": input_shape, "weights": str(weights)}, folder
        )
        from safetensors.numpy import load_file  # a package that comes with PyTorch's extra

        tensors = load_file(weights)
    layers = Importer(captured, input_shape).run()
    known = name or _spec_name(captured["class"] if parsed["kind"] == "file" else parsed["name"])
    head: dict[str, Any] = {"archspec": 1, "name": known, "source": _words(source, captured)}
    head["input"] = dict(zip(("channels", "height", "width"), input_shape, strict=True))
    for blocks in (True, False):
        data, named = folded(layers, blocks=blocks)
        text = spec_text({**head, **data}, _comment(source, captured))
        try:
            graph = build(Source.parse(text, f"{known}.yaml"))
        except SpecError:
            if not blocks:
                raise
            continue
        if _is_same(graph, layers, named):
            break
    else:
        raise AssertionError("the layers of a spec are not those that were imported")
    origins = {f"{path}.{param}": origin for path, layer in named.items() for param, origin in layer.weights.items()}
    return Imported(text, graph, origins, parsed, captured["parameters"], tensors, blocks)


def prove(imported: Imported, *, batch: int = 2) -> Proof:
    """Compare the generated PyTorch code, with the model's weights, with the model itself; raise ImportFailedError.

    Outputs and gradients in evaluation and in training mode, with dropouts off, running statistics after a pass, and
    multiply-accumulates as torch.utils.flop_counter counts them.
    """
    from archspec import analysis
    from archspec.language.names import class_name
    from archspec.targets import TARGETS, model_source

    graph = imported.graph
    with temporary_folder() as folder:
        model = folder / "model.py"
        model.write_text(model_source(graph, TARGETS["torch"]), encoding="utf-8")
        request = {
            "job": "prove",
            "source": dict(imported.source),
            "model": str(model),
            "class": class_name(graph.name),
            "origins": {name: [key, list(shape)] for name, (key, shape) in imported.origins.items()},
            "input_shape": list(graph.input.output_shape),
            "batch": batch,
        }
        found = _ask(request, folder)
    macs, rates = found["macs"], found.get("rates", ([], []))
    return Proof(found["differences"], (macs[0], macs[1]), analysis.totals(graph).macs, (rates[0], rates[1]))


def _ask(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the answer of the worker; raise ImportFailedError if it gives none."""
    output = folder / "answer.json"
    done = subprocess.run(
        [sys.executable, WORKER],
        input=json.dumps({**request, "output": str(output)}),
        text=True,
        capture_output=True,
        check=False,
    )
    if not output.is_file():
        last = (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
        raise ImportFailedError(f"the process with the model ended with status {done.returncode}: {last}")
    answer: dict[str, Any] = json.loads(output.read_text())
    output.unlink()
    if package := answer.get("missing"):
        ours = package.partition(".")[0] in ("torch", "torchvision", "safetensors", "numpy")
        how = INSTALL.format(extra="torch") if ours else f"pip install {package}" if package == "timm" else ""
        raise MissingPackageError(f"{package} is not installed" + (f": {how}" if how else ""))
    if "error" in answer:
        raise ImportFailedError(answer["error"] + did_you_mean(answer.get("name"), answer.get("names", ())))
    return answer


def _is_same(graph: Graph, layers: list[Layer], named: Mapping[str, Layer]) -> bool:
    """Return whether a spec's layers are the imported ones: ops, attributes, shapes and what is read, in order."""
    if graph.unused or [named.get(node.name) for node in graph.nodes] != layers:
        return False
    for node, layer in zip(graph.nodes, layers, strict=True):
        reads = [named.get(read.name) for read in node.inputs]
        shapes = {name: shape for name, (_, shape) in layer.weights.items()}
        own = type(node.op).model_validate({"op": layer.op, "name": "one", **layer.fields})
        same = all(
            getattr(own, field) == getattr(node.op, field)
            for field in type(own).model_fields
            if field not in ("name", "from_", "allow")
        )
        if (
            node.op.op != layer.op
            or not same
            or reads != layer.reads
            or node.output_shape != layer.shape
            or shapes != {name: param.shape for name, param in node.params.items()}
        ):
            return False
    return True


def _spec_name(text: str) -> str:
    name = snake_case(text)[:32]
    return name if name[:1].isalpha() else f"net_{name}"


def _words(source: str, captured: dict[str, Any]) -> str:
    return f"{source.rpartition('/')[2]}, captured by torch.export of PyTorch {captured['versions']['torch']}."


def _comment(source: str, captured: dict[str, Any]) -> str:
    parameters = f"{captured['parameters']:,} parameters"
    return f"Imported by `archspec import {source}`: {parameters}. Initializers are PyTorch's defaults."
