"""Graphs with one row of the text altered or removed, in all its instances."""

from __future__ import annotations

from typing import Any

from archspec.graph.build import rebuild
from archspec.graph.graph import Graph
from archspec.language.source import Loc


def alter(graph: Graph, loc: Loc, fields: dict[str, Any]) -> Graph | None:
    """Return the graph with other values of some attributes of the row at `loc`; None if it is no network then."""
    return rebuild(graph, loc, fields)


def remove(graph: Graph, loc: Loc) -> Graph | None:
    """Return the graph without the row at `loc`: what reads it reads its input. None if it is no network then."""
    return rebuild(graph, loc, None)
