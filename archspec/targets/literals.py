"""Python literals and calls as source text."""

from __future__ import annotations

from typing import Any


class Code(str):
    """Source text of our own, as opposed to a string of a spec."""

    __slots__ = ()


def literal(value: Any) -> str:
    """Return a value as Python source; strings are in double quotes, with everything escaped that needs to be."""
    if isinstance(value, Code):
        return str(value)
    if isinstance(value, str):
        inside = value.encode("unicode_escape").decode("ascii").replace('"', '\\"')
        return f'"{inside}"'
    if isinstance(value, tuple):
        inside = ", ".join(map(literal, value))
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{literal(key)}: {literal(item)}' for key, item in value.items())}}}"
    if isinstance(value, float):
        return repr(value).replace("e-0", "e-").replace("e+", "e")
    return repr(value)


def call(function: str, *args: Any, **kwargs: Any) -> Code:
    """Return the source of a call."""
    words = [*map(literal, args), *(f"{key}={literal(value)}" for key, value in kwargs.items())]
    return Code(f"{function}({', '.join(words)})")
