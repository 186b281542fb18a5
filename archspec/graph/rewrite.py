"""Graphs with one layer replaced or removed."""

from __future__ import annotations

from archspec.graph.graph import Graph, Node, make_node
from archspec.language.ops import Input, Op, ShapeError


def replace(graph: Graph, node: Node, op: Op | None) -> Graph | None:
    """Return the graph with another op in a node's place, or without the node if `op` is None.

    Returns None where the result is not a network: shapes do not fit, or nothing is left.
    """
    if op is None and (len(node.inputs) != 1 or node.output_shape != node.inputs[0].output_shape):
        return None
    made = {graph.input: graph.input}
    nodes = []
    for old in graph.nodes:
        inputs = tuple(made[read] for read in old.inputs)
        if old is node and op is None:
            made[old] = inputs[0]
            continue
        new = op if old is node and op else old.op
        assert not isinstance(new, Input)
        try:
            made[old] = make_node(new, inputs)
        except ShapeError:
            return None
        nodes.append(made[old])
    if not nodes or nodes[-1] is not made[graph.output]:
        return None
    return Graph(graph.spec, graph.source, graph.input, tuple(nodes))
