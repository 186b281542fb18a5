"""From a spec to a graph: shapes are inferred while it is built."""

from __future__ import annotations

from pathlib import Path

from archspec.graph.graph import Graph, Node, make_node
from archspec.language.ops import Op, ShapeError
from archspec.language.ops.base import format_shape
from archspec.language.source import Source, SpecError
from archspec.language.spec import parse


def load(path: Path | str) -> Graph:
    """Return the network that the spec at `path` describes.

    Raises SpecError for the spec's errors (all schema errors at once, the first shape error) and OSError for an
    unreadable file.
    """
    return build(Source.read(path))


def build(source: Source) -> Graph:
    """Return the network that `source` describes; raise SpecError as `load` does."""
    spec = parse(source)
    first = Node(spec.input, (), spec.input.output_shape(), {})
    made = {"input": first}
    last = first
    nodes = []
    for i, op in enumerate(spec.layers):
        names = op.from_ or (last.name,)
        inputs = tuple(made[name] for name in names)
        last = made[op.name] = _node(op, inputs, source, i)
        nodes.append(last)
    used = {last}
    for node in reversed(nodes):
        if node in used:
            used.update(node.inputs)
    unused = tuple(node for node in nodes if node not in used)
    nodes = [node for node in nodes if node in used] if unused else nodes
    if spec.training and not any(node.trainable for node in nodes):
        message = "no layer of this network has trainable parameters"
        raise SpecError([source.error("nothing-to-train", message, ("training",), key=True)])
    return Graph(spec, source, first, tuple(nodes), unused)


def _node(op: Op, inputs: tuple[Node, ...], source: Source, i: int) -> Node:
    least, most = op.inputs
    if not least <= len(inputs) <= most:
        count = f"{least} layers or more" if most > least else "one layer"
        hint = ": name them in from: [...]" if len(inputs) < least else ""
        message = f"{op.name}: {op.op} reads {count}, not {len(inputs)}{hint}"
        raise SpecError([source.error("inputs", message, ("layers", i, "from" if op.from_ else "op"))])
    try:
        return make_node(op, inputs)
    except ShapeError as error:
        field = error.field if error.field and error.field in source.data["layers"][i] else "op"
        message = f"{op.name}: {error}"
        if error.field == "from":
            message += f": {', '.join(f'{node.name} is {format_shape(node.output_shape)}' for node in inputs[:8])}"
        raise SpecError([source.error(error.code, message, ("layers", i, field))]) from None
