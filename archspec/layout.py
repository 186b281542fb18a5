"""Python source as ruff lays it out, so that what is generated needs no formatter to pass one."""

from __future__ import annotations

from typing import Any

WIDTH = 88  # ruff's and Black's own


class Code(str):
    """A piece of source text of ours, not a string of a spec."""

    __slots__ = ()


def literal(value: Any) -> str:
    """Return a value as Python source; a string in double quotes, with everything in it escaped that needs to be."""
    if isinstance(value, Code):
        return str(value)
    if isinstance(value, str):
        inside = value.encode("unicode_escape").decode("ascii").replace('"', '\\"')
        return f'"{inside}"'
    if isinstance(value, tuple):
        inside = ", ".join(map(literal, value))
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{literal(key)}: {literal(item)}' for key, item in value.items())}}}"
    if isinstance(value, float):
        return repr(value).replace("e-0", "e-").replace("e+", "e")
    return repr(value)


def call(function: str, *args: Any, **kwargs: Any) -> Code:
    """Return the source of a call."""
    words = [*map(literal, args), *(f"{key}={literal(value)}" for key, value in kwargs.items())]
    return Code(f"{function}({', '.join(words)})")


def fit(statement: str, indent: int = 0, comment: str = "") -> str:
    """Return a statement, written on one line, over as many as ruff format would give it, `comment` at its end."""
    tail = f"  # {comment}" if comment else ""
    return "\n".join(_fit(statement, indent, tail))


def _fit(text: str, indent: int, tail: str) -> list[str]:
    pad = " " * indent
    if len(pad) + len(text) + len(tail) <= WIDTH:
        return [pad + text + tail]
    head, _, terms = text.partition(" = ")
    if " + " in terms and "(" not in terms:  # a sum
        first, *others = terms.split(" + ") if len(pad) + 4 + len(terms) > WIDTH else [terms]
        return [f"{pad}{head} = (", f"{pad}    {first}", *(f"{pad}    + {term}" for term in others), f"{pad}){tail}"]
    if brackets := _brackets(text):
        # A part a line, each with a comma: the last one's keeps ruff from putting them together again.
        start, end = brackets
        body = [line for part in _split(text[start + 1 : end]) for line in _fit(part, indent + 4, ",")]
        return [pad + text[: start + 1], *body, *_rest(text[end:], indent, tail)]
    return [pad + text + tail]


def _rest(text: str, indent: int, tail: str) -> list[str]:
    """Return the lines of what follows on a closing bracket: mostly one, unless what is called next is long too."""
    pad = " " * indent
    brackets = _brackets(text[1:])
    if len(pad) + len(text) + len(tail) <= WIDTH or brackets is None:
        return [pad + text + tail]
    start, end = brackets[0] + 1, brackets[1] + 1
    body = [line for part in _split(text[start + 1 : end]) for line in _fit(part, indent + 4, ",")]
    return [pad + text[: start + 1], *body, *_rest(text[end:], indent, tail)]


def _brackets(text: str) -> tuple[int, int] | None:
    """Return where the value's first bracket pair that holds something opens and closes; None if there is none."""
    value = text.find(" = ")
    depth, start = 0, -1
    for i, c in _outside_strings(text):
        if i < value:
            continue
        if c in "([{":
            if depth == 0:
                start = i
            depth += 1
        elif c in ")]}":
            depth -= 1
            if depth == 0 and i > start + 1:
                return start, i
    return None


def _split(text: str) -> list[str]:
    """Return the parts of `text` between its outermost commas."""
    parts, depth, start = [], 0, 0
    for i, c in _outside_strings(text):
        if c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif c == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    last = text[start:].strip()
    return [*parts, last] if last else parts


def _outside_strings(text: str) -> list[tuple[int, str]]:
    """Return the characters of `text` that are in no string literal, with their places."""
    found, i = [], 0
    while i < len(text):
        if text[i] == '"':
            i += 1
            while text[i] != '"':
                i += 2 if text[i] == "\\" else 1
        else:
            found.append((i, text[i]))
        i += 1
    return found
