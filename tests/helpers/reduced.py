"""The networks of specs/ made small: fewer channels, fewer repetitions, smaller images, the same blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from archspec.graph import Graph, build
from archspec.language.source import Source

MULTIPLE = 16  # channels stay multiples of it, so that groups still divide them


def reduced(path: Path, size: int, multiple: int = MULTIPLE) -> Graph:
    """Return a network with an input of `size`, a quarter of its channels, and two of what is repeated more often.

    Channels are a multiple of `multiple`; they stay where the network is for small images. Recipe and claims are left
    out.
    """
    spec = {key: value for key, value in Source.read(path).data.items() if key not in ("claims", "training")}
    small = spec["input"]["height"] <= 32
    spec["input"] = {**spec["input"], "height": size, "width": size}
    spec["layers"] = [_row(row, small, multiple) for row in spec["layers"]]
    for name, block in spec.get("blocks", {}).items():
        attributes = {"attributes": _row(block["attributes"], small, multiple)} if "attributes" in block else {}
        spec["blocks"][name] = {
            **block,
            **attributes,
            "layers": [_row(row, small, multiple) for row in block["layers"]],
        }
    return build(Source(str(path), "", spec))


def _row(row: dict[str, Any], small: bool, multiple: int) -> dict[str, Any]:
    found = row if small else {key: _fewer(value, multiple) for key, value in row.items()}
    return {**found, "repeat": min(row["repeat"], 2)} if type(row.get("repeat")) is int else found


def _fewer(value: Any, multiple: int) -> Any:
    """Return a quarter of a number of channels, or `multiple`; a number below 32 is none, or few enough."""
    return max(value // 4 // multiple, 1) * multiple if type(value) is int and value >= 32 else value
