"""Networks as graphs: shapes, rewriting, layouts."""

from archspec.graph.build import build, load
from archspec.graph.graph import Graph, Node, make_node

__all__ = ["Graph", "Node", "build", "load", "make_node"]
