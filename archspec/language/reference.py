"""The reference of the language: a page an op, initializer, optimizer, schedule and transform, from its class."""

from __future__ import annotations

import inspect
import typing
from typing import TYPE_CHECKING, Any, get_args

from archspec.language.initializers import Rule
from archspec.language.ops import OPS
from archspec.language.ops.base import Op
from archspec.language.recipe import AnyOptimizer, AnySchedule, Augmentation, Evaluation, Preprocessing

if TYPE_CHECKING:
    from pydantic import BaseModel


def _choices(*unions: Any) -> dict[str, type[BaseModel]]:
    """Return the models of some unions by the name that a spec gives them."""
    models = {model for union in unions for model in get_args(get_args(union)[0])}
    tags = ("rule", "optimizer", "schedule", "transform")
    named = {model.model_fields[tag].default: model for model in models for tag in tags if tag in model.model_fields}
    return dict(sorted(named.items()))


# The names of the language, by what they are.
SECTIONS: dict[str, dict[str, type[BaseModel]]] = {
    "Ops": dict(sorted(OPS.items())),
    "Initializers": _choices(Rule),
    "Optimizers": _choices(AnyOptimizer),
    "Schedules": _choices(AnySchedule),
    "Transforms": _choices(Preprocessing, Augmentation, Evaluation),
}
TOPICS = {name for models in SECTIONS.values() for name in models}


def summary(model: type[BaseModel]) -> str:
    """Return a line about an op, an initializer, an optimizer, a schedule or a transform."""
    if not issubclass(model, Op):
        return (inspect.getdoc(model) or "").partition("\n")[0]
    text = (inspect.getdoc(inspect.getmodule(model)) or "").partition(": ")[2].strip()
    return text[:1].upper() + text[1:]


def topic_page(name: str) -> str:
    """Return the page of a name as Markdown: meaning, shapes, traps, and its attributes with types and defaults."""
    return "\n".join(_page(name, models[name]) for models in SECTIONS.values() if name in models)


def _page(name: str, model: type[BaseModel]) -> str:
    tags = ("op", "rule", "optimizer", "schedule", "transform")
    rows = [
        f"| `{field}` | {_type_text(info.annotation)} | {'required' if info.is_required() else _default_text(info)} |"
        for field, info in model.model_fields.items()
        if field not in Op.model_fields and field not in tags
    ]
    table = "\n".join(["| attribute | type | default |", "|---|---|---|", *rows]) if rows else "It has no attributes."
    parts = [f"# {name}", inspect.getdoc(model), table]
    if issubclass(model, Op):
        least, most = model.inputs
        inputs = "one layer" if most == 1 else f"{least} or more layers, named in `from: [...]`"
        parts = [parts[0], summary(model), parts[1], f"Inputs: {inputs}.", table]
    return "\n\n".join(map(str, parts)) + "\n"


def _type_text(annotation: Any) -> str:
    base = typing.get_origin(annotation)
    if base is typing.Annotated:
        return _type_text(get_args(annotation)[0])
    if base is typing.Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    text = str(annotation)
    if "tuple[tuple" in text:
        return "a number, `[height, width]`, `{top, bottom, left, right}` or `same`"
    if "tuple[int, int]" in text:
        return "a number or `[height, width]`"
    if base in (tuple, list):
        return "a list of numbers"
    if text.endswith("Init | None"):
        return "`{weight: ..., bias: ...}`"
    names = {int: "whole number", float: "number", bool: "`true` or `false`"}
    return names.get(annotation, "see docs/language.md")


def _default_text(info: Any) -> str:
    value = info.default
    if value is None:
        return "the spec's" if "Init" in str(info.annotation) else "the kernel size"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return str(value[0][0] if isinstance(value[0], tuple) else value[0] if len(set(value)) == 1 else list(value))
    return f"{value:g}" if isinstance(value, int | float) else str(value)
