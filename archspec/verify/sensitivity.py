"""What a verification could have seen: by how much the outputs move when one thing of the network is altered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, get_args

from archspec.emit import TARGETS, emit, flattened_maps
from archspec.graph import Graph, Node, altered
from archspec.layout import literal
from archspec.names import class_name
from archspec.ops import Op
from archspec.source import SpecError
from archspec.verify.arrays import Layout, distance
from archspec.verify.data import Data
from archspec.verify.evidence import BOUNDS, Sensitivity
from archspec.verify.workers import Workers, kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]

LAYERS = 100  # of more than these, only the removals are tried


def sensitivity(
    graph: Graph, target: str, workers: Workers, data: Data, outputs: dict[str, Array]
) -> list[Sensitivity]:
    """Return what removing each layer and altering each attribute does, as a target has it in float64.

    `outputs` are the unaltered network's, in the target's layout. Raises WorkerError.
    """
    import numpy as np

    found = []
    layout = Layout(target, flattened_maps(graph))
    file = data.room / "altered" / TARGETS[kind(target)]
    file.parent.mkdir()
    output = data.room / "altered.npz"
    for node, change, other in _alterations(graph):
        if other is None or _shapes(other) != _shapes(graph, without=node if change == "removed" else None):
            found.append(Sensitivity(node.name, change, float("nan"), "structure"))
            continue
        try:
            file.write_text(emit(other, kind(target)), encoding="utf-8")
        except SpecError:  # what the target has no words for
            continue
        wanted = [other.output.name] if change == "removed" else [node.name, graph.output.name]
        workers.ask(
            target,
            "forward",
            model=str(file),
            name=class_name(graph.name),
            weights=str(data.weights_path),
            inputs=data.path("inputs", target),
            dtype="float64",
            layers=wanted,
            output=str(output),
        )
        with np.load(output) as arrays:
            last = other.output.name
            moved = distance(outputs[graph.output.name], arrays[last])
            if change == "removed":
                read = node.inputs[0].name
                before = outputs[read] if read in outputs else np.load(data.path("inputs", target)).astype(np.float64)
                there = distance(layout.output(outputs[node.name], node), layout.output(before, node.inputs[0]))
            else:
                there = distance(outputs[node.name], arrays[node.name])
        seen = "forward" if max(moved, there) > BOUNDS["forward"] else ""
        if not seen and node.op.op == "dropout":
            seen = "dropout"
        found.append(Sensitivity(node.name, change, moved, seen))
    return found


def _alterations(graph: Graph) -> Iterator[tuple[Node, str, Graph | None]]:
    """Yield what is altered: the node, the change in words, and the network that it gives, None if that is none."""
    for node in graph.nodes:
        op: Any = node.op
        if len(node.inputs) == 1 and node.output_shape == node.inputs[0].output_shape and not node.weights:
            yield node, "removed", altered(graph, node, None)
        if len(graph.nodes) > LAYERS:
            continue
        for field in type(op).model_fields:
            value = getattr(op, field)
            value = op.sides(node.input_shapes[0]) if value == "same" else value
            if field in Op.model_fields or field == "init" or value is None or _idle(node, field):
                continue
            first: tuple[Any, Graph | None] | None = None
            for candidate in _candidates(op, field, value):
                if candidate == value:
                    continue
                other = altered(graph, node, op.model_copy(update={field: candidate}))
                first = first or (candidate, None)
                if other and _shapes(other) == _shapes(graph):
                    first = (candidate, other)
                    break
            if first:
                yield node, f"{field} {_said(value)} -> {_said(first[0])}", first[1]


def _idle(node: Node, field: str) -> bool:
    """Return whether an attribute has nothing to act on, as no window reaches over an edge."""
    op: Any = node.op
    if field == "dilation":
        return bool(op.kernel_size == (1, 1))
    if field == "ceil_mode":
        other = op.model_copy(update={"ceil_mode": not op.ceil_mode})
        return bool(other.output_shape(*node.input_shapes) == node.output_shape)
    if field == "count_include_pad":
        return bool(op.sides(node.input_shapes[0]) == ((0, 0), (0, 0)))
    return False


def _candidates(op: Op, field: str, value: Any) -> Iterator[Any]:
    """Yield other values of an attribute, such as a slip would give."""
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
    elif field == "padding" and isinstance(value, tuple):
        (top, bottom), (left, right) = value
        yield (top + 1, max(bottom - 1, 0)), (left, right)  # on the wrong side
        yield (max(top - 1, 0), bottom), (max(left - 1, 0), right)
        yield (top + 1, bottom), (left + 1, right)
    elif isinstance(value, tuple):
        yield tuple(n + 1 for n in value)
        yield tuple(max(n - 1, 1) for n in value)
    elif isinstance(value, str):
        yield from get_args(type(op).model_fields[field].annotation)


def _shapes(graph: Graph, without: Node | None = None) -> list[Any]:
    """Return the shapes of all parameters and outputs."""
    return [(node.output_shape, node.weights) for node in graph.nodes if node is not without]


def _said(value: Any) -> str:
    if isinstance(value, tuple) and len(set(value)) == 1:
        return _said(value[0])
    return value if isinstance(value, str) else literal(value)
