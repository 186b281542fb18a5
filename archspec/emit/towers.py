"""A network on two devices, as in figure 2 of Krizhevsky et al. 2012: half of every layer's channels on each."""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar, Literal, NamedTuple, NoReturn

from archspec.graph import Graph, Node, place
from archspec.ops import Op, Shape
from archspec.ops.base import Counts, Kept, Weights
from archspec.ops.local_response_norm import LocalResponseNorm
from archspec.source import SpecError

ALIKE = frozenset("add adaptive_avg_pool2d avg_pool2d dropout flatten max_pool2d relu sigmoid tanh".split())


class Gather(Op):
    """What both towers have of a layer, in each. No word of the language: a placement puts it where towers meet.

    `summed` says whether each tower goes on with the whole for itself, so that its gradient is the sum of both towers'.
    """

    op: Literal["gather"]
    summed: bool
    inputs: ClassVar[tuple[int, int]] = (1, 1)

    def output_shape(self, *shapes: Shape) -> Shape:
        return (2 * shapes[0][0], *shapes[0][1:])

    def weights(self, *shapes: Shape) -> Weights:
        return {}

    def counts(self, *shapes: Shape) -> Counts:
        return {}

    def gradient_counts(self, *shapes: Shape) -> Counts:
        return {}

    def kept(self, *shapes: Shape) -> Kept:
        return Kept()


class TowerResponseNorm(LocalResponseNorm):
    """local_response_norm of a tower's channels, of which those at its edge have neighbours in the other."""

    op: Literal["tower_response_norm"]  # type: ignore[assignment]


class Crossing(NamedTuple):
    """What crosses between the devices at a layer, in values an image, both ways together."""

    layer: str  # that reads it
    what: str
    forward: int
    backward: int


def towers(graph: Graph) -> Graph:
    """Return one tower of a network: half of each layer's channels, and what it has to be given of the other tower's.

    The layer of the scores is whole in both. Raises SpecError where a network has no two halves.
    """
    made: dict[Node, Node] = {graph.input: graph.input}
    halves: dict[Node, bool] = {graph.input: False}
    gathered: dict[tuple[Node, bool], Node] = {}
    names = {node.name for node in graph.nodes}
    scores = next((node for node in reversed(graph.nodes) if node.weights), None)
    nodes: list[Node] = []

    def add(op: Op, *inputs: Node) -> Node:
        nodes.append(place(op, inputs))
        return nodes[-1]

    def whole(read: Node, summed: bool) -> Node:
        """Return a layer's whole output."""
        if not halves[read]:
            return made[read]
        if (read, summed) not in gathered:
            name = f"both_{read.name}"[:32]
            while name in names:
                name += "_"
            names.add(name)
            op = Gather.model_construct(op="gather", name=name, from_=None, allow={}, summed=summed)
            gathered[read, summed] = add(op, made[read])
        return gathered[read, summed]

    for node in graph.nodes:
        op: Any = node.op
        read = node.inputs[0]
        half = halves[read]
        if node.weights and node is not scores and not half and node.learns_before:
            _refuse(graph, node, "reads all of a layer that learns, on both devices")
        if op.op == "conv2d" and half and op.groups % 2 == 0:
            update = {"out_channels": op.out_channels // 2, "groups": op.groups // 2}
            made[node] = add(op.model_copy(update=update), made[read])
        elif op.op in ("conv2d", "linear") and getattr(op, "groups", 1) == 1 and node is not scores:
            field = "out_channels" if op.op == "conv2d" else "out_features"
            if getattr(op, field) % 2:
                _refuse(graph, node, f"has {getattr(op, field)} outputs: no two halves", field)
            update = {field: getattr(op, field) // 2}
            made[node] = add(op.model_copy(update=update), whole(read, summed=True))
        elif node is scores or op.op == "softmax":
            made[node] = add(op, whole(read, summed=False))
            halves[node] = False
            continue
        elif op.op == "local_response_norm":
            if not half or op.norm_region == "within_channel":
                made[node] = add(op, made[read])
            elif op.groups % 2 == 0:
                made[node] = add(op.model_copy(update={"groups": op.groups // 2}), made[read])
            elif op.size // 2 > made[read].output_shape[0] or op.groups > 1:
                _refuse(graph, node, "has neighbours farther off than the other tower's edge", "groups")
            else:
                fields = {**dict(op), "op": "tower_response_norm"}
                made[node] = add(TowerResponseNorm.model_construct(**fields), made[read])
            halves[node] = half
            continue
        elif op.op in ALIKE and len({halves[one] for one in node.inputs}) == 1:
            made[node] = add(op, *(made[one] for one in node.inputs))
            halves[node] = half
            continue
        else:
            _refuse(graph, node, f"is a {op.op} that two towers cannot share")
        halves[node] = True
    whole(graph.output, summed=False)
    return Graph(graph.spec, graph.source, graph.input, tuple(nodes))


def crossings(tower: Graph) -> list[Crossing]:
    """Return what crosses between the devices, layer by layer."""
    found = []
    for node in tower.nodes:
        op: Any = node.op
        back = node.learns_before
        if op.op == "gather":
            reader = next((n.name for n in tower.nodes if node in n.inputs), "the scores")
            values = prod(node.output_shape)
            found.append(Crossing(reader, node.inputs[0].name, values, values if op.summed and back else 0))
        elif op.op == "tower_response_norm":
            values = 2 * (op.size // 2) * prod(node.output_shape[1:])
            found.append(Crossing(node.name, f"the {op.size // 2} channels at each edge", values, values * back))
    return found


def _refuse(graph: Graph, node: Node, message: str, field: str = "op") -> NoReturn:
    loc = (*graph.loc(node), field if field in graph.source.data["layers"][graph.loc(node)[1]] else "op")
    raise SpecError([graph.source.error("no-spelling", f"{node.name} {message}", loc)])


def whole_names(tower: Graph) -> list[str]:
    """Return the names of the parameters that both towers have whole."""
    scores = next(node for node in reversed(tower.nodes) if node.weights)
    return [f"{scores.name}.{kind}" for kind in scores.weights]


__all__ = ["Crossing", "crossings", "towers", "whole_names"]
