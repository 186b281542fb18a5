"""Sensitivity: how much the outputs change when one layer or attribute is altered, and which check would notice."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, get_args

from archspec.graph import Graph, Node
from archspec.graph.build import rebuild
from archspec.graph.layouts import Layout, flattened_maps
from archspec.language.ops import Op
from archspec.language.source import Loc, SpecError
from archspec.targets import files, model_source, target_of
from archspec.targets.literals import literal
from archspec.verification.checks import BOUNDS
from archspec.verification.checks.base import TargetRun
from archspec.verification.evidence import Sensitivity
from archspec.verification.tensors import distance

if TYPE_CHECKING:
    from archspec.verification.checks.base import Arrays

EPSILONS = (1e-3, 1e-5, 1.001e-5, 1e-6, 1e-7, 1e-8, 1e-12)  # Keras', PyTorch's, keras.applications', ...
MAX_LAYERS = 100  # in a network of more, only removals are tried


def sensitivity(run: TargetRun, outputs: Arrays) -> list[Sensitivity]:
    """Return the effect of removing each layer and altering each attribute, in float64 on one target.

    `outputs` are the unaltered network's, in the target's layout. Raises WorkerError.
    """
    import numpy as np

    graph, target, data = run.graph, target_of(run.target), run.inputs
    found = []
    layout = Layout(target.channels_last, flattened_maps(graph))
    for name, text in files(graph, target, headers=False).items():
        path = data.workdir / "altered" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    folder = data.workdir / "altered" / target.folder
    output = data.workdir / "altered.npz"
    altered_run = TargetRun(graph, run.target, run.workers, data, folder, run.dtypes)
    for nodes, change, other in _alterations(graph):
        node, removed = nodes[0], change == "removed"
        name = node.name if len(nodes) == 1 else f"{node.name} and {len(nodes) - 1} more"
        if other is None or _shapes(other) != _shapes(graph, without=nodes if removed else ()):
            found.append(Sensitivity(name, change, float("nan"), "structure"))
            continue
        try:
            text = model_source(other, target)
        except SpecError:  # the target cannot express it
            continue
        (folder / "model.py").write_text(text, encoding="utf-8")
        altered_run.ask(
            "forward",
            weights=str(data.weights_path),
            inputs=data.path("inputs", run.target),
            dtype="float64",
            layers=[other.output.name] if removed else [node.name, graph.output.name],
            output=str(output),
        )
        with np.load(output) as arrays:
            moved = distance(outputs[graph.output.name], arrays[other.output.name])
            if removed:
                read = node.inputs[0].name
                images = data.path("inputs", run.target)
                before = outputs[read] if read in outputs else np.load(images).astype(np.float64)
                here = layout.to_canonical(outputs[node.name], node)
                there = distance(here, layout.to_canonical(before, node.inputs[0]))
            else:
                there = distance(outputs[node.name], arrays[node.name])
        seen = "forward" if max(moved, there) > BOUNDS["forward"] else ""
        if not seen and node.op.random:  # type: ignore[union-attr]
            seen = "dropout"
        if not seen and change.partition(" ")[0] in node.op.acts_in_training:  # type: ignore[union-attr]
            seen = "training-mode"
        found.append(Sensitivity(name, change, moved, seen))
    return found


def _alterations(graph: Graph) -> Iterator[tuple[list[Node], str, Graph | None]]:
    """Yield the layers of a row, the change in words, and the altered network; None if no value gives one.

    A row of a block is altered in all its instances at once.
    """
    rows: dict[Loc, list[Node]] = {}
    for node in graph.nodes:
        rows.setdefault(node.loc, []).append(node)
    for loc, nodes in rows.items():
        node = nodes[0]
        op: Any = node.op
        if all(len(n.inputs) == 1 and n.output_shape == n.inputs[0].output_shape and not n.params for n in nodes):
            yield nodes, "removed", rebuild(graph, loc, None)
        if len(rows) > MAX_LAYERS:
            continue
        for field, value in _attributes(node):
            if all(_is_idle(n, field) for n in nodes):
                continue
            first: tuple[Any, Graph | None] | None = None
            for candidate in _candidates(op, field, value):
                if candidate == value:
                    continue
                other = rebuild(graph, loc, {field: candidate})
                first = first or (candidate, None)
                if other and _shapes(other) == _shapes(graph):
                    first = (candidate, other)
                    break
            if first:
                yield nodes, f"{field} {_text(value)} -> {_text(first[0])}", first[1]


def alterations_of(node: Node) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield attributes that a mistake, or another framework's convention, would give a layer: in words, and as fields.

    Of a number also its halves and multiples, what it is to 1, and the epsilons of frameworks.
    """
    op: Any = node.op
    for field, value in _attributes(node):
        candidates = list(_candidates(op, field, value))
        if isinstance(value, float):
            sizes = range(2, 10)
            candidates += [1 - value, *EPSILONS, *(value * n for n in sizes), *(value / n for n in sizes)]
        for candidate in dict.fromkeys(candidates):
            if candidate != value:
                yield f"{field} {_text(value)} -> {_text(candidate)}", {field: candidate}


def _attributes(node: Node) -> Iterator[tuple[str, Any]]:
    """Yield a layer's own attributes that have a value, but how it is initialized; `same` as the padding that it is."""
    op: Any = node.op
    for field in type(op).model_fields:
        value = getattr(op, field)
        if field not in Op.model_fields and field != "init" and value is not None:
            yield field, op.explicit_padding(node.input_shapes[0]) if value == "same" else value


def _is_idle(node: Node, field: str) -> bool:
    """Return whether an attribute has no effect here, e.g. `ceil_mode` where the windows fit exactly."""
    op: Any = node.op
    if field == "dilation":
        return bool(op.kernel_size == (1, 1))
    if field == "ceil_mode":
        other = op.model_copy(update={"ceil_mode": not op.ceil_mode})
        return bool(other.output_shape(*node.input_shapes) == node.output_shape)
    if field == "count_include_pad":
        return bool(op.explicit_padding(node.input_shapes[0]) == ((0, 0), (0, 0)))
    return False


def _candidates(op: Op, field: str, value: Any) -> Iterator[Any]:
    """Yield other values of an attribute, as a mistake would give."""
    if field in ("groups", "sections"):
        yield from (1, 2, 3, 4)
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, float):
        yield value / 2
        yield value + 0.25
    elif isinstance(value, int):
        least = 0 if field == "index" else 1
        yield from (n for n in (value + 1, value + 2, value - 1, value - 2, 2, 1) if n >= least)
    elif field == "padding" and isinstance(value, tuple) and isinstance(value[0], tuple):
        (top, bottom), (left, right) = value
        yield (top + 1, max(bottom - 1, 0)), (left, right)  # on the wrong side
        yield (max(top - 1, 0), bottom), (max(left - 1, 0), right)
        yield (top + 1, bottom), (left + 1, right)
    elif isinstance(value, tuple):
        yield tuple(n + 1 for n in value)
        yield tuple(max(n - 1, 1) for n in value)
    elif isinstance(value, str):
        yield from get_args(type(op).model_fields[field].annotation)


def _shapes(graph: Graph, without: Collection[Node] = ()) -> list[Any]:
    """Return the shapes of all parameters and outputs."""
    return [(node.output_shape, node.params) for node in graph.nodes if node not in without]


def _text(value: Any) -> str:
    if isinstance(value, tuple) and len(set(value)) == 1:
        return _text(value[0])
    return value if isinstance(value, str) else literal(value)
