"""The data of a spec as YAML that reads as the specs here do: a row of a table a line."""

from __future__ import annotations

import re
from typing import Any

import yaml

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_ .*+/%()-]*")
_WORDS = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")


def spec_text(data: dict[str, Any], comment: str = "") -> str:
    """Return the YAML text of a spec's data, with `comment` below its first lines."""
    lines = []
    for key, value in data.items():
        if key == "blocks":
            lines.append("blocks:")
            for name, block in value.items():
                lines.append(f"  {name}:")
                lines += [f"    {part}: {flow(block[part])}" for part in block if part != "layers"]
                lines.append("    layers:")
                lines += [f"      - {flow(row)}" for row in block["layers"]]
        elif key in ("layers", "claims"):
            lines.append(f"{key}:")
            lines += [f"  - {flow(row)}" for row in value]
        else:
            lines.append(f"{key}: {flow(value)}")
        if key == "source" and comment:
            lines += [f"# {line}" for line in comment.splitlines()]
    return "\n".join(lines) + "\n"


def flow(value: Any) -> str:
    """Return a value in YAML's flow style."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {flow(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(flow, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return re.sub(r"e([+-])0*", lambda m: f"e{m[1].replace('+', '')}", repr(value))
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and value.lower() not in _WORDS and not value.endswith(" "):
            return value
        return yaml.dump(value, default_style='"', width=10**6, allow_unicode=True).strip()
    return str(value)
