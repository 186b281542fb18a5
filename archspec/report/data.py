"""A network's facts as plain data, for JSON."""

from __future__ import annotations

from dataclasses import asdict
from math import prod
from typing import Any

from archspec import analysis
from archspec.claims import Verdict
from archspec.graph import Graph


def claim_facts(verdict: Verdict) -> dict[str, Any]:
    """Return a claim and its verdict: `true`, `false`, or `disputed`; `holds` is whether that is as it should be."""
    claim = verdict.claim
    return {
        "layers": claim.layers,
        "subject": claim.subjects[0],
        "times": claim.times,
        "claimed": verdict.claimed,
        "computed": verdict.computed,
        "tolerance": verdict.tolerance,
        "says": claim.says,
        "where": claim.where,
        "disputed": claim.disputed,
        "verdict": "disputed" if claim.disputed else "true" if verdict.is_true else "false",
        "holds": verdict.holds,
    }


def facts(graph: Graph) -> dict[str, Any]:
    """Return the network's layers and totals; shapes are [C, H, W] or [F]."""
    return {
        "name": graph.name,
        "path": graph.source.path,
        "input_shape": list(graph.input.output_shape),
        "layers": [
            {
                "name": node.name,
                "op": node.op.op,
                "inputs": [read.name for read in node.inputs],
                "input_shapes": [list(shape) for shape in node.input_shapes],
                "output_shape": list(node.output_shape),
                "weights": prod(node.weights.get("weight", (0,))),
                "biases": prod(node.weights.get("bias", (0,))),
                "params": analysis.params(node),
                "macs": node.macs,
            }
            for node in graph.nodes
        ],
        "totals": asdict(analysis.totals(graph)),
    }
