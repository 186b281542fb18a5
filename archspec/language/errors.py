"""Pydantic's validation errors, reworded as diagnostics with their place in the source."""

from __future__ import annotations

import typing
from collections.abc import Collection, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from archspec.language.aliases import choice_hint, key_hint
from archspec.language.ops.base import Lint
from archspec.language.source import Diagnostic, Loc, Source, did_you_mean, first_diagnostics, format_value


def explain(
    error: ValidationError,
    source: Source,
    model: type[BaseModel],
    base: Loc = (),
    places: Mapping[str, Loc] | None = None,
) -> list[Diagnostic]:
    """Return the diagnostics of `error`; `model` is the model that was validated, on the data at `base`.

    `places` are the locations of keys that came from elsewhere.
    """
    details = error.errors(include_url=False)
    return first_diagnostics(_reword(dict(detail), source, model, base, places or {}) for detail in details)


# Pydantic's error types for a value of the wrong type.
_TYPES = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping such as {name: relu1, op: relu}",
    "dict_type": "a mapping",
}
_LIMITS = {
    "greater_than": "above",
    "greater_than_equal": "at least",
    "less_than": "below",
    "less_than_equal": "at most",
}
_EXAMPLES = {"input": "a mapping such as {channels: 3, height: 32, width: 32}"}


def _reword(
    error: dict[str, Any], source: Source, model: type[BaseModel], base: Loc, places: Mapping[str, Loc]
) -> Diagnostic:
    kind, context, value, inner = error["type"], error.get("ctx", {}), error["input"], error["loc"]
    loc: Loc = (*base, *inner)
    if inner and (place := places.get(str(inner[0]))):
        loc = (*place, *inner[1:])
    row = row_loc(loc)
    layer = layer_head(source.data, row) if row else ""
    keys = [step for step in loc if isinstance(step, str)]
    is_item = len(loc) == 2 and isinstance(loc[1], int)  # a whole layer, or claim
    what = f"{layer}{keys[-1]} " if keys and not is_item else layer or "a spec "
    if loc[-1:] == ("[key]",):
        near = did_you_mean(value, get_args(Lint)) or f"; there are {', '.join(get_args(Lint))}"
        return source.error(
            "unknown-lint", f"{layer}there is no warning {format_value(value)}{near}", loc[:-1], key=True
        )
    if kind == "missing":
        return source.error("missing-key", f"{layer}{_owner(loc, source)} needs {loc[-1]}", loc[:-1])
    if kind == "extra_forbidden":
        if loc[-1] == "value" and not isinstance(_value(source, loc[:-1]), dict):
            names = _keys(inner, model)
            example = f"write {{{loc[-2]}: {{{names[-1]}: ...}}}}" if names else f"write {loc[-2]}"
            return source.error("wrong-type", f"{layer}{loc[-2]} takes no bare value; {example}", loc[:-1])
        section = "layers" if row else str(loc[0]) if len(loc) > 1 else ""
        hint = key_hint(loc[-1], section, _keys(inner, model), _present(loc, source))
        message = f"{layer}{_owner(loc, source)} has no key {format_value(loc[-1])}{hint}"
        return source.error("unknown-key", message, loc, key=True)
    if kind == "union_tag_invalid":
        return _unknown_choice(context, layer, loc, source)
    if kind in _TYPES:
        expected = _EXAMPLES.get(str(loc[-1]), _TYPES[kind]) if len(loc) == 1 else _TYPES[kind]
        return source.error("wrong-type", f"{what}must be {expected}, not {format_value(value)}", loc)
    if kind == "literal_error":
        return source.error("wrong-value", f"{what}must be {context['expected']}, not {format_value(value)}", loc)
    if kind in _LIMITS:
        ((_, limit),) = context.items()
        return source.error("out-of-range", f"{what}must be {_LIMITS[kind]} {limit}, not {format_value(value)}", loc)
    if kind == "string_pattern_mismatch":
        what += "must be the name of a spec in the same folder, such as lenet.yaml"
        return source.error("wrong-value", f"{what}, not {format_value(value)}", loc)
    if kind == "too_short":
        return source.error("wrong-value", f"{what}must have at least {context['min_length']}", loc)
    if kind == "too_long":
        return source.error("too-large", f"{what}must have at most {context['max_length']:,}", loc)
    if kind == "reserved-name":
        return source.error(kind, f"{what}{format_value(value)} {error['msg']}", loc)
    if "offset" in context:  # a place within a text
        message = f"{what.rstrip()}: {error['msg']}"
        return source.error_inside(kind, message, loc, context["offset"], context["width"])
    got = f", not {format_value(value)}" if isinstance(value, (str, int, float)) else ""
    got += context.get("hint", "")
    if isinstance(value, str) and value.startswith("("):
        got += " (write [3, 3]: round brackets are text in YAML)"
    return source.error(kind if "-" in kind else "wrong-value", f"{what}{error['msg']}{got}", loc)


def _unknown_choice(context: dict[str, Any], layer: str, loc: Loc, source: Source) -> Diagnostic:
    """Return the diagnostic of an unknown optimizer, schedule, transform or rule."""
    tag, name = context["discriminator"].strip("'"), context["tag"]
    choices = [choice.strip("'") for choice in context["expected_tags"].split(", ")]
    hint, place = choice_hint(tag, name, choices), (*loc, name)
    where = " for a bias" if loc[-1] == "bias" else ""
    kind = "initializer" if tag == "rule" else tag
    message = f"{layer}there is no {kind} {format_value(name)}{where}{hint}"
    return source.error(f"unknown-{tag}", message, place, key=True)


def row_loc(loc: Loc) -> Loc | None:
    """Return the location of the row that `loc` is in: a layer of the spec or of a block; None if it is in none."""
    length = 2 if loc[:1] == ("layers",) else 4 if loc[:1] == ("blocks",) and loc[2:3] == ("layers",) else 0
    return loc[:length] if length and len(loc) >= length and isinstance(loc[length - 1], int) else None


def layer_head(data: Any, row: Loc) -> str:
    """Return the head of a message about a row: its name or its number, and its block."""
    layer = data
    for step in row:
        layer = layer[step]
    name = layer.get("name") if isinstance(layer, dict) else None
    number = row[-1]
    assert isinstance(number, int)
    head = name if isinstance(name, str) and name.isidentifier() else f"layer {number + 1}"
    return f"{head}: " if len(row) == 2 else f"{head} in {format_value(row[1])[1:-1]}: "


def _owner(loc: Loc, source: Source) -> str:
    """Return what the last key of `loc` belongs to: an op, a rule, a section, or the spec."""
    if row_loc(loc[:-1]) == loc[:-1]:
        return str((_value(source, loc[:-1]) or {}).get("op", "a layer"))
    if loc[:1] == ("claims",) and len(loc) == 3:
        return "a claim"
    return f"{loc[-2]}" if len(loc) > 1 else "a spec"


def _value(source: Source, loc: Loc) -> Any:
    """Return the value at `loc` in the source; None if there is none."""
    value: Any = source.data
    for step in loc:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _present(loc: Loc, source: Source) -> Collection[str]:
    """Return the keys beside the last one of `loc`."""
    parent = _value(source, loc[:-1])
    return parent if isinstance(parent, dict) else ()


def _keys(loc: Loc, spec_model: type[BaseModel]) -> list[str]:
    """Return the keys that may be in the place of the last one of `loc`."""
    model: Any = spec_model
    for step in loc[:-1]:
        model = _step(model, step)
        if model is None:
            return []
    if isinstance(model, list):
        return []
    return [field.alias or name for name, field in model.model_fields.items() if not _is_tag(name, field)]


_TAGS = ("rule", "optimizer", "schedule", "transform")  # fields that are written as the key of the others


def _is_tag(name: str, field: Any) -> bool:
    return name in _TAGS and get_origin(field.annotation) is Literal


def _step(model: Any, step: str | int) -> Any:
    """Return the model, or the models to choose from, that one `step` of a loc leads to; None if there is none."""

    def models(annotation: Any) -> list[Any]:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return [annotation]
        return [model for part in typing.get_args(annotation) for model in models(part)]

    if isinstance(step, int):
        return model
    choices = model if isinstance(model, list) else None
    if choices is None:
        found = models(model.model_fields[step].annotation) if step in model.model_fields else []
        return found[0] if len(found) == 1 else found
    for choice in choices:
        for tag in _TAGS:
            if tag in choice.model_fields and step in typing.get_args(choice.model_fields[tag].annotation):
                return choice
    return None
