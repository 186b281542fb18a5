"""archspec verify --against: models that somebody else wrote."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspec.cli.console import progress, usage_error, write_output
from archspec.cli.images import print_top5, read_data
from archspec.cli.sources import import_errors
from archspec.cli.weights import read_weights
from archspec.language.source import printable

if TYPE_CHECKING:
    from archspec.graph import Graph
    from archspec.verification.ports import PortEvidence


def verify_ports(
    graphs: list[Graph],
    sources: Sequence[str],
    files: Mapping[str, Path | None],
    timeout: float,
    format: str,
    options: dict[str, Any],
) -> int:
    """Compare models with a spec, and print how; return the exit status. `files` are weights, data and output."""
    from archspec.verification import WorkerError, Workers
    from archspec.verification.ports import REFERENCE, compare_ports, worker_of

    if len(graphs) != 1:
        usage_error("--against takes exactly one spec")
    output = files["output"]
    if format == "html" or (output and output.suffix != ".json"):
        usage_error("--against writes a table or JSON")
    (graph,) = graphs
    if data := files["data"]:
        options["inputs"], images = read_data(graph, data, None)
    with (
        import_errors(", ".join(sources)),
        progress() as show,
        Workers((REFERENCE,), progress=show, timeout=timeout) as w,
    ):
        for source in sources:
            worker_of(source)
        if weights := files["weights"]:
            options["weights"] = read_weights(graph, weights, w)
        try:
            evidence = compare_ports(graph, sources, w, **options)
        except (WorkerError, MemoryError) as error:
            usage_error(str(error))
    if format == "json" or output:
        write_output(json.dumps(as_data(evidence), indent=2) + "\n", output)
    if format != "json":
        print_ports(evidence)
        if data:
            print_top5(images, evidence.outputs)
    return 0 if evidence.agrees else 1


def print_ports(evidence: PortEvidence) -> None:
    """Print the verdict on each model, what was compared, the first layer that parts, and what was not noticed."""
    from archspec.report.ports import blind_lines, port_lines

    for port in evidence.ports:
        for line, is_error in port_lines(port, evidence.graph.name):
            print(printable(line), file=sys.stderr if is_error else sys.stdout)
    for (a, b), value in evidence.between.items():
        print(printable(f"{a} and {b}: outputs differ by {value:.1e}"))
    for line in blind_lines(evidence):
        print(printable(line))


def as_data(evidence: PortEvidence) -> dict[str, Any]:
    """Return the evidence as JSON's types."""
    return {
        "network": evidence.graph.name,
        "agrees": evidence.agrees,
        "ports": [
            {
                "source": port.source,
                "agrees": port.agrees,
                "versions": dict(port.versions),
                "parameters": port.parameters,
                "layers": {a["layer"]: path for path, a in port.assigned.items()},
                "differences": {what: {"value": v, "bound": b} for what, (v, b) in port.differences.items()},
                "first": vars(port.first) if port.first else None,
                "failures": port.failures,
            }
            for port in evidence.ports
        ],
        "unseen": [f"{s.layer}: {s.change}" for s in evidence.sensitivity if not s.seen_by],
    }
