"""Templates to source text: the Jinja environment, then ruff."""

from __future__ import annotations

import subprocess
import textwrap
from collections.abc import Mapping
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import jinja2

from archspec.files import temporary_folder
from archspec.targets.literals import Code, call, literal

LINE_LENGTH = 88  # the default of ruff and Black


class UnsupportedError(Exception):
    """Raised by a template: its target cannot express a layer; `field` is the attribute at fault, or None."""

    def __init__(self, layer: Any, message: str, field: str | None) -> None:
        super().__init__(message)
        self.layer = layer
        self.field = field


def _refuse(layer: Any, message: str, field: str | None = None) -> None:
    raise UnsupportedError(layer, message, field)


def _docstring(text: str) -> str:
    """Return text that cannot end the docstring it is in."""
    return text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')


def _wrap(text: str, indent: int = 0) -> str:
    filled = textwrap.fill(text, LINE_LENGTH - indent, break_long_words=False, break_on_hyphens=False)
    return filled.replace("\n", "\n" + " " * indent)


OMIT = object()


def _unless(value: Any, default: Any) -> Any:
    return OMIT if value == default else value


def _scaled(name: str, factor: float) -> str:
    """Return the source of a variable times a factor."""
    number = int(factor) if factor == int(factor) else factor
    return "0.0" if factor == 0 else name if factor == 1 else f"{literal(number)} * {name}"


def _square(pair: Code | tuple[int, int]) -> Code | int | tuple[int, int]:
    """Return a pair, one number if both are equal, or source text as it is."""
    return pair if isinstance(pair, str) or pair[0] != pair[1] else pair[0]


def _inputs_of(row: Any, text: str) -> list[Code]:
    """Return the arguments of a block's call: all inputs, or `text`."""
    return [Code(name) for name in row.inputs] if row.row.repeat is None else [Code(text)]


def _edges(sizes: list[int]) -> list[int]:
    """Return the places between blocks of `sizes`."""
    return list(accumulate(sizes))[:-1]


def _call(function: str, *args: Any, **kwargs: Any) -> Code:
    return call(
        function,
        *(arg for arg in args if arg is not OMIT),
        **{key: value for key, value in kwargs.items() if value is not OMIT},
    )


def templates() -> Path:
    """Return the folder of the templates: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "templates"
    return inside if inside.is_dir() else package.parent / "templates"


@cache
def environment() -> jinja2.Environment:
    """Return the environment of the templates of source code."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  the output is Python, not HTML: strings pass through `literal` or `docstring`
    )
    made.filters.update(
        code=lambda text: Code(str(text).strip()),
        code_or_omit=lambda text: Code(str(text).strip()) or OMIT,
        docstring=_docstring,
        literal=literal,
        rounded=lambda value: round(value, 12),
        scaled=_scaled,
        square=_square,
        tuple=tuple,
        unless=_unless,
        wrap=_wrap,
    )
    made.globals.update(OMIT=OMIT, call=_call, edges=_edges, inputs_of=_inputs_of, refuse=_refuse)
    return made


@cache
def html_environment() -> jinja2.Environment:
    """Return the environment of the templates of HTML and SVG, in which all values are escaped."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
    )


def render(template: str, **context: Any) -> str:
    """Return the text of a template, not yet formatted; raise UnsupportedError as the template does."""
    return environment().get_template(template).render(**context)


def formatted(files: Mapping[str, str], modules: tuple[str, ...]) -> dict[str, str]:
    """Return Python files as ruff formats them, with their imports sorted and the unused ones removed.

    `modules` are the names that are imported from beside the file.
    """
    from ruff import find_ruff_bin

    ruff = find_ruff_bin()
    first_party = f"lint.isort.known-first-party={literal(list(modules))}"
    shared = ["--isolated", "--quiet", "--no-cache", "--target-version", "py311", "--line-length", str(LINE_LENGTH)]
    with temporary_folder() as folder:
        paths = {name: folder / f"{i}.py" for i, name in enumerate(files)}
        for name, path in paths.items():
            path.write_text(files[name], encoding="utf-8", newline="\n")
        for arguments in (
            ["check", "--fix-only", "--select", "I,F401", "--config", first_party, *shared],
            ["format", *shared],
        ):
            done = subprocess.run([ruff, *arguments, folder], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr  # a template that does not give Python is our own mistake
        return {name: path.read_text(encoding="utf-8") for name, path in paths.items()}
