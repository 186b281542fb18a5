"""Somebody's own model beside a spec: the same weights and data, and where the two part."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from archspec.files import temporary_folder
from archspec.graph import Graph, Node
from archspec.graph.build import rebuild
from archspec.graph.layouts import flattened_maps
from archspec.importers import keras_model, process, torch_model
from archspec.importers.layers import ImportFailedError
from archspec.importers.proof import GRADIENT_BOUND, OUTPUT_BOUND, relative_difference
from archspec.importers.sources import parse_source
from archspec.language.names import class_name
from archspec.targets import TARGETS, model_source, require_code
from archspec.verification import live
from archspec.verification.checks import CHECKS
from archspec.verification.checks.base import TargetRun
from archspec.verification.checks.forward import LAYERS
from archspec.verification.checks.gradients import training_floor
from archspec.verification.inputs import Inputs
from archspec.verification.run import Files, measure_statistics
from archspec.verification.sensitivity import alterations_of, sensitivity
from archspec.verification.tensors import looks_like, shape_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from archspec.verification.canonical_weights import Weights
    from archspec.verification.evidence import Sensitivity
    from archspec.verification.processes import Workers

    Array = NDArray[np.floating[Any]]

REFERENCE = "torch"  # the target that the spec is compared as
REMOVED = "removed"  # the alteration that leaves a layer out
SEARCH = 60.0  # seconds in which the alteration that explains a difference is sought
WORKERS = dict.fromkeys(torch_model.KINDS, "torch_port.py") | dict.fromkeys(keras_model.KINDS, "keras_port.py")


@dataclass(frozen=True)
class Difference:
    """The first layer of a spec that a model does not compute, though it computes all that the layer reads."""

    layer: str
    place: str  # the module, and the line of the user's own file; empty where nothing has the output's shape
    value: float  # relative difference of the nearest tensor
    looks_like: str = ""
    reproduced_by: str = ""  # the alteration of the layer that gives what the model computes


@dataclass(frozen=True)
class Port:
    """A model compared with a spec in float64, its weights set to the spec's."""

    source: str
    versions: Mapping[str, str]
    parameters: int
    assigned: Mapping[str, Mapping[str, Any]]  # by module: the layer that it is
    surplus: Sequence[Mapping[str, Any]]  # modules with parameters that no layer has
    missing: Mapping[str, Mapping[str, Sequence[int]]]  # layers with parameters that no module has
    differences: Mapping[str, tuple[float, float]]  # by what was compared: relative difference, and its bound
    first: Difference | None = None
    fault: str = ""  # the exception that ended the model's forward pass
    rates: tuple[Sequence[float], Sequence[float]] = ((), ())  # of dropouts: the spec's and the model's
    ambiguous: Sequence[Sequence[str]] = ()
    arrays: Mapping[str, Array] = field(default_factory=dict, repr=False)

    @property
    def agrees(self) -> bool:
        """Whether the model is the spec's network, within the bounds."""
        return not self.failures

    @property
    def renamed(self) -> dict[str, str]:
        """The layers that have another name in the model, by the spec's name."""
        return {a["layer"]: path for path, a in self.assigned.items() if path != a["layer"]}

    @property
    def problems(self) -> list[str]:
        """What differs but numbers, in words: the exception of a model, or its parameters and dropouts."""
        if self.fault:
            return [f"the model raises {self.fault}"]
        found = []
        for path, one in self.assigned.items():
            found += [f"{path} has a {name}, which {one['layer']} has not" for name in one["surplus"]]
            found += [f"{path} has no {name}, which {one['layer']} has" for name in one["lacking"]]
        for one in self.surplus:
            shapes = ", ".join(f"{name} {shape_text(shape)}" for name, shape in one["shapes"].items())
            found.append(f"{one['path']} ({one['class']}: {shapes}) is no layer of the spec")
        for name, params in self.missing.items():
            shapes = ", ".join(f"{param} {shape_text(shape)}" for param, shape in params.items())
            found.append(f"{name} ({shapes}) is no module of the model{self._nearest(params)}")
        if list(self.rates[0]) != list(self.rates[1]):
            found.append(f"dropouts: rates {list(self.rates[0])} in the spec, {list(self.rates[1])} in the model")
        return found

    @property
    def failures(self) -> list[str]:
        """What differs, in words."""
        numbers = [
            f"{what}: relative difference {value:.1e} (tolerance {limit:.0e})"
            for what, (value, limit) in self.differences.items()
            if not value <= limit
        ]
        return self.problems + numbers

    def _nearest(self, params: Mapping[str, Sequence[int]]) -> str:
        """Return the surplus module whose kernel is most like a layer's, in words; empty if none is."""
        kernel = max(params.values(), key=len)

        def alike(one: Mapping[str, Any]) -> int:
            other = max(one["shapes"].values(), key=len)
            same = sum(a == b for a, b in zip(kernel, other, strict=False))
            return same if len(other) == len(kernel) and 2 * same > len(kernel) else 0

        best = max(self.surplus, key=alike, default=None)
        return f"; {best['path']} comes nearest" if best and alike(best) else ""


@dataclass(frozen=True)
class PortEvidence:
    """Models compared with a spec, and the alterations of the spec that the data could not have shown."""

    graph: Graph
    ports: tuple[Port, ...]
    between: Mapping[tuple[str, str], float]  # of two models, the relative difference of their outputs
    sensitivity: tuple[Sensitivity, ...]
    outputs: Mapping[str, Array] = field(repr=False)  # in evaluation mode: the spec's as its target, and the models'
    seconds: float

    @property
    def agrees(self) -> bool:
        """Whether all models agree with the spec."""
        return all(port.agrees for port in self.ports)


def worker_of(source: str) -> str:
    """Return the worker that runs a model; raise ImportFailedError for one that no framework here runs."""
    kind = parse_source(source)["kind"]
    if kind not in WORKERS:
        raise ImportFailedError(f"{source} cannot be trained: name a PyTorch or Keras model")
    return WORKERS[kind]


def compare_ports(
    graph: Graph,
    sources: Sequence[Any],
    workers: Workers,
    *,
    generated: Path | None = None,
    batch: int = 2,
    seed: int = 0,
    sensitive: bool | Literal["if different"] = True,
    inputs: NDArray[np.float32] | None = None,
    weights: Weights | None = None,
) -> PortEvidence:
    """Compare models with the generated PyTorch code of a spec, in float64.

    `sources` are texts such as `net.py:Net`, or models of this process, which do not change. `sensitive`: also seek the
    alterations of the spec that the data could not have shown, always or where a model differs.

    A model is found to be the spec's network by structure, whatever its names are: a module is the layer that has
    parameters of its shapes and reads the same tensor, and gets its weights. Compared are the outputs and gradients in
    evaluation and in training mode, dropouts being the identity, the running statistics after a pass, and the rates of
    the dropouts. `workers` has the target torch. Raises ImportFailedError for a model that cannot be made, WorkerError
    if the generated code fails.
    """
    import numpy as np

    started = time.monotonic()
    require_code(graph)
    with temporary_folder() as workdir:
        data = Inputs(graph, workdir, batch=batch, seed=seed, steps=2, inputs=inputs, weights=weights)
        program = Files(graph, REFERENCE, data, generated)
        run = TargetRun(graph, REFERENCE, workers, data, program.folder, ("float64",))
        if data.needs_statistics:
            measure_statistics({REFERENCE: run})
        workers.progress(REFERENCE, "forward")
        forward = CHECKS["forward"].ask(run)
        if fault := forward.errors["float64"]:
            raise ImportFailedError(f"the generated code of the spec raises {fault}")
        outputs = forward.outputs["float64"]
        modes = []
        for mode, name in (("evaluation", "inputs"), ("training", "unit_scale")):
            path = workdir / f"{mode}.npy"
            np.save(path, np.load(data.path(name, REFERENCE)).astype(np.float64))
            modes.append({"name": mode, "inputs": str(path), "weights": str(data.weights_path)})
        request = {
            "job": "run",
            "model": str(program.folder / "model.py"),
            "class": class_name(graph.name),
            "input_shape": list(graph.input.output_shape),
            "modes": modes,
            "arrays": str(workdir / "reference.npz"),
        }
        workers.progress(REFERENCE, "gradients")
        reference = process.ask(torch_model.WORKER, request, workdir)
        with np.load(workdir / "reference.npz") as arrays:
            expected = dict(arrays)
        ports = tuple(
            _port(run, source, outputs, expected, reference["rates"], workdir) for source in dict.fromkeys(sources)
        )
        if sensitive == "if different":
            sensitive = not all(port.agrees for port in ports)
        workers.progress(REFERENCE, "sensitivity" if sensitive else "done")
        found = sensitivity(run, outputs) if sensitive else []
        workers.progress(REFERENCE, "done")
    both = [(a, b) for a, b in pairwise(ports) if a.arrays and b.arrays]
    between = {(a.source, b.source): relative_difference(a.arrays["y"], b.arrays["y"]) for a, b in both}
    scores = {REFERENCE: outputs[graph.output.name]} | {p.source: p.arrays["y"] for p in ports if p.arrays}
    return PortEvidence(graph, ports, between, tuple(found), scores, time.monotonic() - started)


def _port(
    run: TargetRun, source: Any, outputs: Mapping[str, Array], expected: Mapping[str, Array], rates: Any, workdir: Path
) -> Port:
    """Run one model and compare it."""
    import numpy as np

    graph, data = run.graph, run.inputs
    request: dict[str, Any] = {
        "job": "port",
        "input_shape": list(graph.input.output_shape),
        "layers": list(_layers(graph)),
        "outputs": str(run.output("forward", "float64")),
        "weights": str(data.weights_path),
        "inputs": {mode: str(workdir / f"{mode}.npy") for mode in ("evaluation", "training")},
        "arrays": str(workdir / "port.npz"),
    }
    if isinstance(source, str):
        parsed: dict[str, Any] = {**parse_source(source), "arguments": {}}
        if parsed["kind"] == "keras":
            parsed["config"] = keras_model.read(Path(parsed["path"]))[0]
        run.workers.progress(source, "running")
        answer = process.ask(worker_of(source), {**request, "source": parsed}, workdir)
    else:
        answer = live.ask("live", request, source)
        name = getattr(source, "name", "")  # of a Keras model
        source = name if isinstance(name, str) and name else type(source).__name__
    with np.load(workdir / "port.npz") as file:
        arrays = dict(file)
    run.workers.progress(source, "done")
    whole = not answer["fault"] and not answer["lacking"]
    differences = _differences(graph, outputs, expected, arrays) if whole else {}
    same = whole and all(value <= limit for value, limit in differences.values())
    return Port(
        source=source,
        versions=answer["versions"],
        parameters=answer["parameters"],
        assigned=answer["assigned"],
        surplus=answer["surplus"],
        missing=answer["lacking"],
        differences=differences,
        first=None if same or not answer["apart"] else _first(run, outputs, answer, arrays),
        fault=answer["fault"],
        rates=(rates, answer["rates"]),
        ambiguous=answer["ambiguous"],
        arrays={"y": arrays["y"]} if "y" in arrays else {},
    )


def _layers(graph: Graph) -> Iterator[dict[str, Any]]:
    """Yield the layers as the matcher of the workers reads them."""
    flattened = flattened_maps(graph)
    for node in graph.nodes:
        reads = ["" if read is graph.input else read.name for read in node.inputs]
        maps = flattened.get(node.inputs[0])
        params = {name: list(param.shape) for name, param in node.params.items()}
        yield {"name": node.name, "reads": reads, "params": params, "flattened": list(maps) if maps else None}


def _differences(
    graph: Graph, outputs: Mapping[str, Array], expected: Mapping[str, Array], arrays: Mapping[str, Array]
) -> dict[str, tuple[float, float]]:
    """Return how far a model's outputs, gradients and buffers are from the spec's, with the bounds."""
    deeper = max(1.0, len(graph.nodes) / LAYERS)
    found = {
        "outputs, evaluation": (relative_difference(outputs[graph.output.name], arrays["y"]), OUTPUT_BOUND * deeper)
    }
    limit = GRADIENT_BOUND * deeper
    for mode in ("evaluation", "training"):
        if mode == "training":
            found["outputs, training"] = (relative_difference(expected["training/y"], arrays["training/y"]), limit)
        prefix = f"{mode}/gradient/"
        names = [key for key in expected if key.startswith(prefix)]
        largest = max((float(abs(expected[key]).max()) for key in names), default=0.0)
        floor = largest * (training_floor(graph) if mode == "training" else 1e-6)
        gradients = [relative_difference(expected[f"{mode}/dx"], arrays[f"{mode}/dx"])]
        for key in names:  # a parameter that has no effect may have no gradient
            gradients.append(relative_difference(expected[key], arrays.get(key, 0 * expected[key]), floor))
        found[f"gradients, {mode}"] = (max(gradients), limit)
    buffers = [key for key in expected if key.startswith("training/buffer/") and "num_batches" not in key]
    if moved := [relative_difference(expected[key], arrays[key]) for key in buffers if key in arrays]:
        found["running statistics"] = (max(moved), limit)
    return found


def _first(run: TargetRun, outputs: Mapping[str, Array], answer: Any, arrays: Mapping[str, Array]) -> Difference:
    """Describe the first layer that parts, and seek the alteration of it that gives the model's values."""
    node = next(node for node in run.graph.nodes if node.name == answer["apart"])
    near, place = arrays.get("apart"), answer["place"]
    found = _reproduced(run, node, near, arrays.get("y"))
    if near is None or found == REMOVED:
        return Difference(node.name, "", float("nan"), reproduced_by=found)
    read = node.inputs[0]
    before = None if read is run.graph.input else outputs[read.name]
    expected = outputs[node.name]
    return Difference(node.name, place, relative_difference(expected, near), looks_like(expected, near, before), found)


def _reproduced(run: TargetRun, node: Node, near: Array | None, y: Array | None) -> str:
    """Return the alteration of a layer that gives the model's outputs, in words; empty if none does.

    `near` is the model's tensor that is nearest to the layer's output, `y` its output.
    """
    import numpy as np

    graph, data = run.graph, run.inputs
    folder = data.workdir / "explained"
    folder.mkdir(exist_ok=True)
    altered = TargetRun(graph, REFERENCE, run.workers, data, folder, run.dtypes)
    output = data.workdir / "explained.npz"
    started = time.monotonic()
    for change, fields in ((REMOVED, None), *alterations_of(node)):
        if time.monotonic() - started > SEARCH:
            break
        other = rebuild(graph, node.loc, fields)
        if other is None:
            continue
        removed = [node] if fields is None else []
        if any(n.params for n in removed) or _shapes(other) != _shapes(graph, without=removed):
            continue
        (folder / "model.py").write_text(model_source(other, TARGETS[REFERENCE]), encoding="utf-8")
        names = [n.name for n in other.nodes if n.name == node.name]
        answer = altered.ask(
            "forward",
            weights=str(data.weights_path),
            inputs=data.path("inputs", REFERENCE),
            dtype="float64",
            layers=list(dict.fromkeys((*names, other.output.name))),
            output=str(output),
        )
        if answer["fault"]:
            continue
        with np.load(output) as found:
            if near is not None and names and relative_difference(near, found[node.name]) <= OUTPUT_BOUND * 10:
                return change
            if y is not None and relative_difference(y, found[other.output.name]) <= OUTPUT_BOUND * 10:
                return change
    return ""


def _shapes(graph: Graph, without: Sequence[Node] = ()) -> dict[str, Any]:
    """Return the parameters of every layer, and the shape of the network's output."""
    params = {node.name: node.params for node in graph.nodes if node not in without}
    return {**params, "": graph.output.output_shape}
