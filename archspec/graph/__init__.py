"""Networks as graphs: shapes, rewriting, layouts."""

from archspec.graph.build import build, load, load_claims
from archspec.graph.graph import Graph, Instance, Member, Node, make_node

__all__ = ["Graph", "Instance", "Member", "Node", "build", "load", "load_claims", "make_node"]
