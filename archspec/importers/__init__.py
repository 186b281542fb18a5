"""Importers: from a user's model to a spec, with its weights, and the proof that they are one network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from archspec.files import temporary_folder
from archspec.graph import Graph, build
from archspec.importers import caffe_model, keras_model, onnx_model, pt2_model, torch_model
from archspec.importers.folding import folded, snake_case
from archspec.importers.layers import (
    Captured,
    ImportFailedError,
    Layer,
    MissingPackageError,
    Origin,
    Unsupported,
    UnsupportedModelError,
)
from archspec.importers.sources import is_source, parse_source
from archspec.importers.spec_text import spec_text
from archspec.language.source import Source, SpecError

if TYPE_CHECKING:
    from archspec.importers.layers import Array

__all__ = [
    "ImportFailedError",
    "Imported",
    "MissingPackageError",
    "Origin",
    "Unsupported",
    "UnsupportedModelError",
    "import_model",
    "is_source",
]


@dataclass(frozen=True)
class Imported:
    """An imported model: its spec's text, its graph, and where each weight of the graph comes from.

    `parameters` are those that the model's framework counts, None if none did; `weights` has its arrays by its own
    names, which `origins` map to canonical ones.
    """

    text: str
    graph: Graph
    origins: Mapping[str, Origin]
    source: Mapping[str, Any]
    parameters: int | None
    weights: Mapping[str, Array]
    folded: bool

    def canonical_weights(self) -> dict[str, Array]:
        """Return the model's weights with canonical names and layouts; empty without weights, or with opaque layers."""
        if not self.weights or self.is_opaque:
            return {}
        return {name: origin.canonical(self.weights) for name, origin in self.origins.items()}

    @property
    def is_opaque(self) -> bool:
        """Whether it has opaque layers, which no target computes."""
        return any(node.op.is_opaque for node in self.graph.nodes)  # type: ignore[union-attr]


def import_model(
    source: str,
    *,
    input_shape: tuple[int, ...] | None = None,
    arguments: Mapping[str, Any] | None = None,
    pretrained: str | None = None,
    name: str | None = None,
    opaque: bool = False,
) -> Imported:
    """Return a model as a spec with its weights.

    `source` is `torchvision:NAME`, `timm:NAME`, `keras.applications:NAME`, `FILE.py:NAME`, a class or function that is
    called with `arguments`, or a model's file; a user's own `.py` file is run, in a process of its own. `input_shape`
    is (C, H, W), by default (3, 224, 224) or the model's own. Raises ImportFailedError for a model that cannot be made,
    read or captured, MissingPackageError without its package, UnsupportedModelError for a model with operators that
    the language lacks, all of them at once. `opaque`: modules of a PyTorch model that have such operators become opaque
    layers, which are counted and not computed.
    """
    parsed = {**parse_source(source), "arguments": dict(arguments or {})}
    if pretrained:
        parsed["weights"] = pretrained
    if opaque and parsed["kind"] not in (*torch_model.KINDS, pt2_model.KIND):
        raise ImportFailedError("only PyTorch models can have opaque layers")
    with temporary_folder() as folder:
        if parsed["kind"] in keras_model.KINDS:
            captured = keras_model.capture(parsed, input_shape, folder)
        elif parsed["kind"] == caffe_model.KIND:
            captured = caffe_model.capture(parsed, input_shape)
        elif parsed["kind"] == onnx_model.KIND:
            captured = onnx_model.capture(parsed, input_shape, folder)
        elif parsed["kind"] == pt2_model.KIND:
            captured = pt2_model.capture(parsed, input_shape, opaque=opaque)
        else:
            captured = torch_model.capture(parsed, input_shape or (3, 224, 224), folder, opaque=opaque)
    return _imported(captured, source, parsed, name)


def _imported(captured: Captured, source: str, parsed: Mapping[str, Any], name: str | None) -> Imported:
    """Return captured layers as a spec: with blocks, where these expand to the same layers again."""
    layers = captured.layers
    known = name or _spec_name(captured.name)
    provenance = f"{source.rpartition('/')[2]}, {captured.provenance}."
    head: dict[str, Any] = {"archspec": 1, "name": known, "source": provenance, "input": captured.input}
    counted = "" if captured.parameters is None else f": {captured.parameters:,} parameters"
    comment = "\n".join((f"Imported by `archspec import {source}`{counted}.", *captured.notes))
    for blocks in (True, False):
        data, named = folded(layers, blocks=blocks)
        text = spec_text({**head, **data}, comment)
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
    return Imported(text, graph, origins, parsed, captured.parameters, captured.weights, blocks)


def _is_same(graph: Graph, layers: list[Layer], named: Mapping[str, Layer]) -> bool:
    """Return whether a spec's layers are the imported ones: ops, attributes, shapes and what is read, in order."""
    if graph.unused or [named.get(node.name) for node in graph.nodes] != layers:
        return False
    for node, layer in zip(graph.nodes, layers, strict=True):
        reads = [named.get(read.name) for read in node.inputs]
        shapes = {name: origin.shape for name, origin in layer.weights.items()}
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
