"""The document as its author wrote it, and what to tell them of its faults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from archspec.inits import NO_INIT, Init
from archspec.names import NAMES_SCHEMA, SpecName, Text, one_or_more
from archspec.ops import AnyOp, Input
from archspec.ops.base import Lint
from archspec.source import Diagnostic, Loc, Source, SpecError, shown
from archspec.training import Training

MAX_LAYERS = 250_000


def _number(value: Any) -> int | float:
    if type(value) not in (int, float) or value < 0:
        raise PydanticCustomError("wrong-value", "must be a number, 0 or more")
    number: int | float = value
    return number


def _dims(value: Any) -> list[int]:
    if not isinstance(value, list) or not 1 <= len(value) <= 4 or not all(type(n) is int and n >= 1 for n in value):
        raise PydanticCustomError("wrong-value", "must be a shape such as [96, 55, 55]")
    return value


Number = Annotated[int | float, PlainValidator(_number), WithJsonSchema({"type": "number", "minimum": 0})]
Factor = Annotated[float, Field(ge=0, le=1e6)]
Dims = Annotated[
    list[int],
    PlainValidator(_dims),
    WithJsonSchema({"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1, "maxItems": 4}),
]
Layers = Annotated[list[str], PlainValidator(lambda value: one_or_more(value, "a layer")), WithJsonSchema(NAMES_SCHEMA)]


# What a claim can be about. Of a layer, or of several together, or else of the whole network.
SUBJECTS = (
    "params",
    "params_share",
    "macs",
    "flops",
    "neurons",
    "activation_bytes",
    "weight_layers",
    "input_shape",
    "output_shape",
    "weight_shape",
)


class Claim(BaseModel):
    """What a source says of the network, to be held against what is computed.

    `says` and `where` cite it. A whole number is meant exactly; one with a point or an exponent is round, and stands
    for what comes within one unit of its last digit that is not a zero, the second at the least: `60e6` for 59 to 61
    million, `650e3` for 640 to 660 thousand; twice as far where it `says` about. A claim known to be wrong is
    `disputed`, with the reason, and has to stay wrong. With `times` the number is a ratio to another spec in the same
    folder.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        defer_build=True,
        json_schema_extra={"oneOf": [{"required": [subject]} for subject in SUBJECTS]},
    )

    layer: Layers | None = None
    params: Number | None = None
    params_share: Number | None = None
    macs: Number | None = None
    flops: Number | None = None
    neurons: Number | None = None
    activation_bytes: Number | None = None
    weight_layers: Number | None = None
    input_shape: Dims | None = None
    output_shape: Dims | None = None
    weight_shape: Dims | None = None
    times: Annotated[str, Field(pattern=r"^[a-z0-9_]+\.yaml$")] | None = None
    says: Text = ""
    where: Text = ""
    disputed: Text | None = None

    @property
    def subjects(self) -> list[str]:
        """What it is about: one of SUBJECTS, unless its author has forgotten or said too much."""
        return [subject for subject in SUBJECTS if getattr(self, subject) is not None]

    @property
    def layers(self) -> list[str]:
        """The layers it is about; none if it is about the network."""
        return self.layer or []


class Multiplier(BaseModel):
    """By what a kind of parameters' learning rate and weight decay are multiplied (Caffe's lr_mult and decay_mult)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    lr: Factor = 1.0
    decay: Factor = 1.0


class Multipliers(BaseModel):
    """The multipliers of weights and of biases."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    weight: Multiplier = Multiplier.model_construct(lr=1.0, decay=1.0)
    bias: Multiplier = Multiplier.model_construct(lr=1.0, decay=1.0)


class Spec(BaseModel):
    """A network: what it reads, its layers in order, and where it comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    archspec: Annotated[Literal[1], BeforeValidator(lambda value: "true" if value is True else value)]
    name: SpecName
    source: Text = ""
    input: Input
    init: Init = NO_INIT
    multipliers: Multipliers | None = None
    training: Training | None = None
    layers: Annotated[list[AnyOp], Field(min_length=1, max_length=MAX_LAYERS)]
    claims: list[Claim] = []


def parse(source: Source) -> Spec:
    """Return the spec in `source`; raise SpecError with all its faults of wording at once."""
    faults: list[Diagnostic] = []
    try:
        spec = Spec.model_validate(source.data)
    except ValidationError as error:
        faults = explain(error, source)
    # Names are compared as written, so that a spec with other faults hears of these too.
    faults += _names(source)
    if faults:
        raise SpecError(faults)
    if faults := list(_claims(spec, source)):
        raise SpecError(faults)
    return spec


def _claims(spec: Spec, source: Source) -> Iterator[Diagnostic]:
    """Yield the faults of claims that say nothing, too much, or something of a layer that there is not."""
    names = {layer.name for layer in spec.layers} if spec.claims else set()
    for i, claim in enumerate(spec.claims):
        if not claim.subjects:
            yield source.error("claim", f"a claim says one of {', '.join(SUBJECTS)}", ("claims", i))
        elif len(claim.subjects) > 1:
            yield source.error("claim", f"a claim says one thing, not {', '.join(claim.subjects)}", ("claims", i))
        for name in claim.layers:
            if name not in names:
                near = _near(name, names)
                yield source.error("unknown-layer", f"no layer {shown(name)}{near}", ("claims", i, "layer"))
        if not claim.layers and claim.weight_shape:
            yield source.error("claim", "a weight_shape is that of a layer", ("claims", i))


def _names(source: Source) -> list[Diagnostic]:
    """Return the faults among the names of the layers: two of one name, and `from:` what is not above."""
    layers = source.data.get("layers") if isinstance(source.data, dict) else None
    faults: list[Diagnostic] = []
    seen = {"input"}
    for i, layer in enumerate(layers if isinstance(layers, list) else ()):
        if not isinstance(layer, dict):
            continue
        reads = layer.get("from")
        for j, read in enumerate(reads if isinstance(reads, list) else [reads]):
            if isinstance(read, str) and read not in seen:
                loc: Loc = ("layers", i, "from", j) if isinstance(reads, list) else ("layers", i, "from")
                near = _near(read, seen) if len(faults) < 50 else ""  # looking is slow
                faults.append(source.error("unknown-layer", f"no layer {shown(read)} above this one{near}", loc))
        name = layer.get("name")
        if isinstance(name, str):
            if name in seen and name != "input":  # that one is a reserved name already
                faults.append(source.error("duplicate-name", f"a second layer {shown(name)}", ("layers", i, "name")))
            seen.add(name)
    return faults


def explain(error: ValidationError, source: Source) -> list[Diagnostic]:
    """Return pydantic's errors as an author's: where in the text, and in the language's words."""
    return [_reword(dict(fault), source) for fault in error.errors(include_url=False)]


# pydantic's types of error that say "this is not a ..."
_KINDS = {
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


def _reword(fault: dict[str, Any], source: Source) -> Diagnostic:
    kind, context, value, loc = fault["type"], fault.get("ctx", {}), fault["input"], fault["loc"]
    if loc[:1] == ("layers",) and len(loc) > 2:
        loc = (*loc[:2], *loc[3:])  # pydantic puts the op, by which it chose the model, between layer and field
    whose = _whose(loc, source)
    keys = [step for step in loc if isinstance(step, str)]
    is_item = len(loc) == 2 and isinstance(loc[1], int)  # a whole layer, or claim
    what = f"{whose}{keys[-1]} " if keys and not is_item else whose or "a spec "
    if loc[-1:] == ("[key]",):
        near = _near(value, get_args(Lint)) or f"; there are {', '.join(get_args(Lint))}"
        return source.error("unknown-lint", f"{whose}there is no lint {shown(value)}{near}", loc[:-1], key=True)
    if kind == "missing":
        return source.error("missing-key", f"{whose}{_owner(loc, source)} needs {loc[-1]}", loc[:-1])
    if kind == "extra_forbidden":
        keys = _keys(fault["loc"])
        near = _near(loc[-1], keys) or f"; it has {', '.join(keys) or 'none'}"
        message = f"{whose}{_owner(loc, source)} has no key {shown(loc[-1])}{near}"
        return source.error("unknown-key", message, loc, key=True)
    if kind == "union_tag_invalid":
        word = context["discriminator"].strip("'")
        words = [tag.strip("'") for tag in context["expected_tags"].split(", ")]
        near = _near(context["tag"], words) or f"; there are {', '.join(words)}"
        place = (*loc, "op") if word == "op" else (*loc, context["tag"])
        what = f"{word} {shown(context['tag'])}" + (" for a bias" if loc[-1] == "bias" else "")
        message = f"{whose}there is no {what}{near}"
        return source.error(f"unknown-{word}", message, place, key=word != "op")
    if kind == "union_tag_not_found":
        return source.error("missing-key", f"{whose}a layer needs op", loc)
    if kind in _KINDS:
        return source.error("wrong-type", f"{what}must be {_KINDS[kind]}, not {shown(value)}", loc)
    if kind == "literal_error":
        return source.error("wrong-value", f"{what}must be {context['expected']}, not {shown(value)}", loc)
    if kind in _LIMITS:
        ((_, limit),) = context.items()
        return source.error("out-of-range", f"{what}must be {_LIMITS[kind]} {limit}, not {shown(value)}", loc)
    if kind == "string_pattern_mismatch":
        what += "must be the name of a spec in the same folder, such as lenet.yaml"
        return source.error("wrong-value", f"{what}, not {shown(value)}", loc)
    if kind == "too_short":
        return source.error("wrong-value", f"{what}must hold at least {context['min_length']}", loc)
    if kind == "too_long":
        return source.error("too-large", f"{what}must hold at most {context['max_length']:,}", loc)
    if kind == "reserved-name":
        return source.error(kind, f"{what}{shown(value)} {fault['msg']}", loc)
    got = f", not {shown(value)}" if isinstance(value, (str, int, float)) else ""
    return source.error(kind if "-" in kind else "wrong-value", f"{what}{fault['msg']}{got}", loc)


def _whose(loc: Loc, source: Source) -> str:
    """Return the layer that a loc is in, for the head of a message: its name, or its number if it has none."""
    if len(loc) < 2 or loc[0] != "layers" or not isinstance(loc[1], int):
        return ""
    layer = source.data["layers"][loc[1]]
    name = layer.get("name") if isinstance(layer, dict) else None
    return f"{name}: " if isinstance(name, str) and name.isidentifier() else f"layer {loc[1] + 1}: "


def _owner(loc: Loc, source: Source) -> str:
    """Return what a key of `loc` would belong to: an op, a rule, a section, or the spec."""
    if loc[:1] == ("layers",) and len(loc) == 3 and isinstance(loc[1], int):
        return str(source.data["layers"][loc[1]].get("op", "a layer"))
    if loc[:1] == ("claims",) and len(loc) == 3:
        return "a claim"
    return f"{loc[-2]}" if len(loc) > 1 else "a spec"


def _keys(loc: Loc) -> list[str]:
    """Return the keys that stand where the last one of `loc` does, for a suggestion."""
    model: Any = Spec
    for step in loc[:-1]:
        model = _step(model, step)
        if model is None:
            return []
    return [field.alias or name for name, field in model.model_fields.items() if name not in _TAGS]


_TAGS = ("rule", "optimizer", "schedule", "transform")  # fields that are written as the word before the others


def _step(model: Any, step: str | int) -> Any:
    """Return the model, or the models to choose from, that one `step` of a loc leads to; None if there is none."""
    import typing

    def models(annotation: Any) -> list[Any]:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return [annotation]
        return [found for part in typing.get_args(annotation) for found in models(part)]

    if isinstance(step, int):
        return model
    choices = model if isinstance(model, list) else None
    if choices is None:
        found = models(model.model_fields[step].annotation) if step in model.model_fields else []
        return found[0] if len(found) == 1 else found
    for choice in choices:
        for tag in ("op", *_TAGS):
            if tag in choice.model_fields and step in typing.get_args(choice.model_fields[tag].annotation):
                return choice
    return None


def _near(word: Any, words: Any) -> str:
    """Return the hint at the nearest of `words`, if one is near."""
    import difflib

    found = difflib.get_close_matches(str(word)[:64], list(words)[-1000:], n=1)
    return f"; did you mean {shown(found[0])}?" if found else ""
