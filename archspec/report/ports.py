"""Somebody's own model beside a spec, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from archspec.verification.ports import REMOVED

if TYPE_CHECKING:
    from archspec.verification.ports import Port, PortEvidence

SHOWN = 8  # layers of other names, problems, alterations


def port_lines(port: Port, name: str) -> Iterator[tuple[str, bool]]:
    """Yield the lines of the verdict on a model and of the first layer that parts, and whether each is an error."""
    versions = ", ".join(f"{key} {value}" for key, value in port.versions.items())
    yield f"{port.source} {'is' if port.agrees else 'is not'} the network of {name}", False
    yield f"  {versions}; {port.parameters:,} parameters; float64", False
    if renamed := port.renamed:
        pairs = [f"{layer} is {path}" for layer, path in renamed.items()]
        rest = f", and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
        yield f"  matched by structure: {', '.join(pairs[:SHOWN])}{rest}", False
    for path in (path for path, a in port.assigned.items() if a["flattened"]):
        yield f"  {path} reads maps flattened as (H, W, C): its weights were put in that order", False
    for what, (value, limit) in port.differences.items():
        yield f"  {value:.1e}  {what} (tolerance {limit:.0e}){'' if value <= limit else ': differ'}", False
    yield from ((line, True) for line in _error_lines(port))


def _error_lines(port: Port) -> Iterator[str]:
    if first := port.first:
        place = f" ({first.place})" if first.place else ""
        yield f"error: the first layer that parts is {first.layer}{place}"
        if first.place:
            looks = f", {first.looks_like}" if first.looks_like else ""
            yield f"  it reads the same; its output differs by {first.value:.1e}{looks}"
        elif first.reproduced_by != REMOVED:
            yield "  nothing that the model computes has the shape of its output"
        if first.reproduced_by == REMOVED:
            yield f"  without {first.layer} the spec gives what the model computes"
        elif first.reproduced_by:
            yield f"  {first.layer} with {first.reproduced_by} gives what the model computes"
    yield from (f"error: {problem}" for problem in port.problems[:SHOWN])
    if (more := len(port.problems) - SHOWN) > 0:
        yield f"error: and {more} more modules and layers that do not fit"
    if not port.agrees:
        for a, b in port.ambiguous:
            yield f"  {a} and {b} read the same and have the same shapes: they were matched in order"


def blind_lines(evidence: PortEvidence) -> Iterator[str]:
    """Yield what the data could not have shown."""
    unseen = [s for s in evidence.sensitivity if s.seen_by not in ("forward", "structure")]
    if unseen:
        yield f"the data could not have shown {len(unseen)} of {len(evidence.sensitivity)} alterations of the spec:"
        for one in unseen[:SHOWN]:
            yield f"  {one.layer}: {one.change}" + (f" ({one.seen_by} would)" if one.seen_by else "")
        if len(unseen) > SHOWN:
            yield f"  and {len(unseen) - SHOWN} more"
    elif evidence.sensitivity:
        yield f"{len(evidence.sensitivity)} alterations of layers and attributes were tried: outputs would show each"
