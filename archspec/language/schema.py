"""The language as JSON Schema (draft 2020-12): what an editor can say of one place without reading the others."""

from __future__ import annotations

import json
from typing import Any

from archspec.language import initializers, recipe
from archspec.language.spec import Spec

Json = dict[str, Any]
BARE = {**recipe.BARE, **initializers.BARE}


def schema() -> Json:
    """Return the schema, with the docstrings of the language's models as its descriptions."""
    made = Spec.model_json_schema()
    models = made.pop("$defs")
    top = _written(made, models)
    needed: Json = {}
    _collect(top, models, needed)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **top,
        "title": "archspec",
        "$defs": dict(sorted(needed.items())),
    }


def text() -> str:
    """Return the schema as the text of a file."""
    return json.dumps(schema(), indent=1) + "\n"


def _collect(part: Any, models: Json, needed: Json) -> None:
    """Put in `needed` every model that `part` refers to, itself as written."""
    if isinstance(part, dict):
        if (name := part.get("$ref", "").removeprefix("#/$defs/")) and name not in needed:
            needed[name] = _written(models[name], models)
            _collect(needed[name], models, needed)
        for value in part.values():
            _collect(value, models, needed)
    elif isinstance(part, list):
        for value in part:
            _collect(value, models, needed)


def _written(part: Any, models: Json) -> Any:
    """Return a part of pydantic's schema with its choices as a spec writes them."""
    if isinstance(part, list):
        return [_written(value, models) for value in part]
    if not isinstance(part, dict):
        return part
    if "discriminator" not in part:
        return {key: _written(value, models) for key, value in part.items() if not _is_pydantics(key, value)}
    tag = part["discriminator"]["propertyName"]
    choices = {word: ref.removeprefix("#/$defs/") for word, ref in part["discriminator"]["mapping"].items()}
    return _layer(choices, models) if tag == "op" else _choice(tag, choices, models)


def _is_pydantics(key: str, value: Any) -> bool:
    """Whether this says something of the models, not of the language: their names, and defaults as they hold them."""
    return (key == "title" and isinstance(value, str)) or (
        key == "default" and (value is None or isinstance(value, list | dict))
    )


def _layer(choices: dict[str, str], models: Json) -> Json:
    """A layer by its op, not by trying all of them: what is said of a slip is then about the op that is meant."""
    described = [models[name]["description"] for name in choices.values()]
    return {
        "type": "object",
        "required": ["name", "op"],
        "properties": {"op": {"enum": list(choices), "enumDescriptions": described}},
        "allOf": [
            {"if": {"properties": {"op": {"const": word}}, "required": ["op"]}, "then": {"$ref": f"#/$defs/{name}"}}
            for word, name in choices.items()
        ],
    }


def _choice(tag: str, choices: dict[str, str], models: Json) -> Json:
    """A choice as `word` where it needs nothing else, as `{word: {fields}}`, or as `{word: value}` of its one field."""
    forms: list[Json] = []
    bare = []
    for word, name in choices.items():
        model = models[name]
        fields = {key: _written(value, models) for key, value in model["properties"].items() if key != tag}
        needs = [key for key in model.get("required", []) if key != tag]
        inner: Json = {
            "description": model.get("description", ""),
            "type": "object",
            "properties": fields,
            "additionalProperties": False,
        }
        if needs:
            inner["required"] = needs
        else:
            bare.append(word)
            inner["type"] = ["object", "null"]
        short = [fields[field] for field in (BARE.get(word),) if field in fields]
        values = {"anyOf": [inner, *short]} if short else inner
        forms.append(
            {"type": "object", "properties": {word: values}, "required": [word], "additionalProperties": False}
        )
    return {"anyOf": [{"enum": bare}, *forms] if bare else forms}
