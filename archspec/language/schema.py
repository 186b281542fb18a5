"""The language as JSON Schema (draft 2020-12): what an editor can say of one place without reading the others."""

from __future__ import annotations

import json
from typing import Any

from archspec.language import initializers, recipe
from archspec.language.ops import OPS
from archspec.language.spec import Spec

Json = dict[str, Any]
BARE = {**recipe.BARE, **initializers.BARE}


def schema() -> Json:
    """Return the schema, with the docstrings of the language's models as its descriptions."""
    made = Spec.model_json_schema()
    models = made.pop("$defs")
    names = {op: model.__name__ + "Op" * (model.__name__ in models) for op, model in OPS.items()}  # or a transform's
    for op, model in OPS.items():
        own = model.model_json_schema()
        models.update(own.pop("$defs", {}))
        models[names[op]] = own
    top = _written(made, models)
    top["properties"]["layers"] = _rows(models, names)
    # Without blocks, an op is one of the language's.
    ops = {"items": {"properties": {"op": {"enum": list(OPS)}}}}
    top["if"] = {"not": {"required": ["blocks"]}}
    top["then"] = {"properties": {"layers": ops}}
    top["properties"]["blocks"] = _BLOCKS
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
    return _choice(tag, choices, models)


def _is_pydantics(key: str, value: Any) -> bool:
    """Whether this says something of the models, not of the language: their names, and defaults as they hold them."""
    return (key == "title" and isinstance(value, str)) or (
        key == "default" and (value is None or isinstance(value, list | dict))
    )


# Keys of every row, besides those of its op.
_REPEAT: Json = {
    "repeat": {"description": "how many of it, one after another", "type": ["integer", "string"], "minimum": 1},
    "first": {"description": "what is different in the first, such as {stride: 2}", "type": "object"},
}
_EXPRESSION = "a value, or an expression of the block's attributes, such as 4 * width"
_NAME = {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,31}$"}

_BLOCKS: Json = {
    "description": "ops that the spec defines; each may use those above it",
    "type": "object",
    "propertyNames": _NAME,
    "additionalProperties": {
        "type": "object",
        "additionalProperties": False,
        "required": ["layers"],
        "properties": {
            "attributes": {
                "description": "what a layer that uses it gives: `required`, or the default",
                "type": "object",
                "propertyNames": _NAME,
                "additionalProperties": {"type": ["integer", "number", "boolean", "string", "array"]},
            },
            "inputs": {"type": "array", "items": {"type": "string"}, "minItems": 1, "default": ["input"]},
            "layers": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["op"],
                    "properties": {
                        "op": {"type": "string", "description": "an op, a block above, or an attribute that names one"},
                        "name": {"type": "string"},
                        **_REPEAT,
                        "when": {
                            "description": "a condition; without it, what reads this layer reads its first input",
                            "type": ["string", "boolean"],
                        },
                    },
                    "additionalProperties": {"description": _EXPRESSION},
                },
            },
        },
    },
}


def _rows(models: Json, names: dict[str, str]) -> Json:
    """The network's layers, each by its op: what is said of a slip is then about the op that is meant.

    `names` are those of the ops' models.
    """
    described = [models[name]["description"] for name in names.values()]
    for name in names.values():
        own = models[name]
        own["properties"] = {**own["properties"], **_REPEAT}
    row: Json = {
        "type": "object",
        "required": ["name", "op"],
        "properties": {"op": {"anyOf": [{"enum": list(OPS), "enumDescriptions": described}, _NAME]}},
        "allOf": [
            {
                "if": {"properties": {"op": {"const": word}}, "required": ["op"]},
                "then": {"$ref": f"#/$defs/{name}"},
            }
            for word, name in names.items()
        ],
    }
    return {"type": "array", "minItems": 1, "items": row}


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
