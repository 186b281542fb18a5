"""The dictionary: how the templates are looked up, and the words that they are written in."""

from __future__ import annotations

import textwrap
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from archspec.inits import BiasRule, Rule
from archspec.layout import Code, call, fit, literal
from archspec.source import SpecError

if TYPE_CHECKING:
    from archspec.emit.net import Layer, Net


class RefusalError(Exception):
    """A template's word that its target cannot say this; `field` is the attribute at fault."""

    def __init__(self, message: str, field: str | None) -> None:
        super().__init__(message)
        self.field = field


def _refuse(message: str, field: str | None = None) -> None:
    raise RefusalError(message, field)


def _docstring(text: str) -> str:
    """Return text that can stand in a docstring and nowhere end it."""
    return text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')


def _wrap(text: str, indent: int = 0, width: int = 88) -> str:
    return textwrap.fill(text, width - indent, break_long_words=False, break_on_hyphens=False).replace(
        "\n", "\n" + " " * indent
    )


OMIT = object()


def _unless(value: Any, default: Any) -> Any:
    return OMIT if value == default else value


def _scaled(name: str, factor: float) -> str:
    """Return the source of a variable times a factor."""
    number = int(factor) if factor == int(factor) else factor
    return "0.0" if factor == 0 else name if factor == 1 else f"{literal(number)} * {name}"


def _square(pair: tuple[int, int]) -> int | tuple[int, int]:
    return pair[0] if pair[0] == pair[1] else pair


def _call(function: str, *args: Any, **kwargs: Any) -> Code:
    return call(
        function,
        *(arg for arg in args if arg is not OMIT),
        **{key: value for key, value in kwargs.items() if value is not OMIT},
    )


def templates() -> Path:
    """Return the folder of the templates: beside the code in a wheel, beside the package in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "templates"
    return inside if inside.is_dir() else package.parent / "templates"


@cache
def environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  Python comes out, not HTML: strings pass through `literal` or `docstring`
    )
    made.filters.update(
        code=Code,
        docstring=_docstring,
        lines=lambda text: text.strip("\n"),
        literal=literal,
        scaled=_scaled,
        square=_square,
        tuple=tuple,
        unless=_unless,
        wrap=_wrap,
    )
    made.globals.update(
        OMIT=OMIT,
        call=_call,
        fit=fit,
        initializer=_initializer,
        refuse=_refuse,
    )
    return made


@cache
def pages() -> jinja2.Environment:
    """Return where templates of HTML pages are looked up: what they are given is escaped."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
    )


@cache
def entry(path: str) -> Any:
    return environment().get_template(path).module


def spell(net: Net, form: str, subject: Layer | str) -> str:
    """Return what the dictionary's entry of a layer's op says in `form` for the net's target, or nothing.

    A str for `subject` is an op's name, and the form is given all layers of that op.
    """
    op, what = (subject, net.by_op(subject)) if isinstance(subject, str) else (subject.op.op, subject)
    macro = getattr(entry(f"ops/{op}.jinja"), f"{net.target}_{form}", None)
    if macro is None:
        return ""
    try:
        return str(macro(what)).strip()
    except RefusalError as refusal:
        assert not isinstance(subject, str), "a definition refuses nothing"
        loc = (*net.graph.loc(subject.node), refusal.field or "op")
        source = net.graph.source
        raise SpecError([source.error("no-spelling", f"{subject.name}: {net.target} {refusal}", loc)]) from None


def _initializer(layer: Layer, kind: str, rule: Rule | BiasRule | None = None) -> Any:
    """Return how the target says the rule of a layer's `weight` or `bias`; OMIT where it need not be said."""
    rule = rule or layer.rule(kind)
    macro = getattr(entry("inits.jinja"), f"{layer.net.target}_{rule.rule}")
    return Code(str(macro(rule, layer, kind)).strip()) or OMIT
