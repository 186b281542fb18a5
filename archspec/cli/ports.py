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
    from archspec.verification.ports import Port, PortEvidence

SHOWN = 8  # layers of other names, problems, alterations


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
    name = evidence.graph.name
    for port in evidence.ports:
        _print_port(port, name)
    for (a, b), value in evidence.between.items():
        _say(f"{a} and {b}: outputs differ by {value:.1e}")
    unseen = [s for s in evidence.sensitivity if s.seen_by not in ("forward", "structure")]
    if unseen:
        _say(f"the data could not have shown {len(unseen)} of {len(evidence.sensitivity)} alterations of the spec:")
        for one in unseen[:SHOWN]:
            _say(f"  {one.layer}: {one.change}" + (f" ({one.seen_by} would)" if one.seen_by else ""))
        if len(unseen) > SHOWN:
            _say(f"  and {len(unseen) - SHOWN} more")
    elif evidence.sensitivity:
        _say(f"{len(evidence.sensitivity)} alterations of layers and attributes were tried: outputs would show each")


def _print_port(port: Port, name: str) -> None:
    from archspec.verification.ports import REMOVED

    versions = ", ".join(f"{key} {value}" for key, value in port.versions.items())
    _say(f"{port.source} {'is' if port.agrees else 'is not'} the network of {name}")
    _say(f"  {versions}; {port.parameters:,} parameters; float64")
    if renamed := port.renamed:
        pairs = [f"{layer} is {path}" for layer, path in renamed.items()]
        rest = f", and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
        _say(f"  matched by structure: {', '.join(pairs[:SHOWN])}{rest}")
    for path in (path for path, a in port.assigned.items() if a["flattened"]):
        _say(f"  {path} reads maps flattened as (H, W, C): its weights were put in that order")
    for what, (value, limit) in port.differences.items():
        _say(f"  {value:.1e}  {what} (tolerance {limit:.0e}){'' if value <= limit else ': differ'}")
    if first := port.first:
        place = f" ({first.place})" if first.place else ""
        _say(f"error: the first layer that parts is {first.layer}{place}", error=True)
        if first.place:
            looks = f", {first.looks_like}" if first.looks_like else ""
            _say(f"  it reads the same; its output differs by {first.value:.1e}{looks}", error=True)
        elif first.reproduced_by != REMOVED:
            _say("  nothing that the model computes has the shape of its output", error=True)
        if first.reproduced_by == REMOVED:
            _say(f"  without {first.layer} the spec gives what the model computes", error=True)
        elif first.reproduced_by:
            _say(f"  {first.layer} with {first.reproduced_by} gives what the model computes", error=True)
    for problem in port.problems[:SHOWN]:
        _say(f"error: {problem}", error=True)
    if (more := len(port.problems) - SHOWN) > 0:
        _say(f"error: and {more} more modules and layers that do not fit", error=True)
    if not port.agrees:
        for a, b in port.ambiguous:
            _say(f"  {a} and {b} read the same and have the same shapes: they were matched in order", error=True)


def _say(line: str, *, error: bool = False) -> None:
    """Print a line, in which names of the user's modules and files are harmless."""
    print(printable(line), file=sys.stderr if error else sys.stdout)


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
