"""Budgets: upper bounds of what a network may cost, such as `<= 40 MiB at batch 128`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from archspec.language.ops.base import DTYPES
from archspec.language.source import did_you_mean, format_value

MAX_LENGTH = 100  # characters
UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_NUMBER = r"\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_TOKEN = re.compile(rf"<=|{_NUMBER}|[A-Za-z]\w*|\S")


@dataclass(frozen=True, slots=True)
class Bound:
    """An upper bound, with the batch and the dtype for which it is meant."""

    text: str
    limit: float
    batch: int = 1
    dtype: str = "float32"


def parse_bound(value: Any, *, size: bool, batched: bool) -> Bound:
    """Return the bound that a text such as `<= 24 GiB at batch 128 in bfloat16` is.

    Of what is no `size` in bytes the bound has no unit and no dtype, of what is not `batched` no batch.
    """
    example = "<= 40 MiB" if size else "<= 5.4e6"
    if type(value) in (int, float):
        raise PydanticCustomError("wrong-value", "must be an upper bound: write <= {value}", {"value": value})
    if not isinstance(value, str) or not value.lstrip().startswith("<=") or len(value) > MAX_LENGTH:
        raise PydanticCustomError("wrong-value", "must be an upper bound such as {example}", {"example": example})
    words = [(match[0], match.start()) for match in _TOKEN.finditer(value)]
    words.append(("", len(value)))
    at = 1

    def fault(message: str) -> PydanticCustomError:
        word, offset = words[at]
        if not word:
            offset = max(0, words[at - 1][1])
            word = words[at - 1][0]
        context = {"offset": offset, "width": len(word), "message": message}
        return PydanticCustomError("wrong-value", "{message}", context)

    def number() -> str:
        word = words[at][0]
        if not re.fullmatch(_NUMBER, word):
            raise fault(f"a number must follow, not {format_value(word)}" if word else "a number must follow")
        return word

    limit = float(number())
    if not isfinite(limit):
        raise fault("the bound must be finite")
    at += 1
    if words[at][0] not in ("", "at", "in"):
        unit = words[at][0]
        if not size:
            raise fault(f"a count has no unit {format_value(unit)}: write the number, such as {example}")
        if unit not in UNITS:
            near = did_you_mean(unit, UNITS) or f"; there are {', '.join(UNITS)}"
            raise fault(f"there is no unit {format_value(unit)}{near}")
        limit *= UNITS[unit]
        at += 1
    batch, dtype = 1, "float32"
    if words[at][0] == "at":
        if not batched:
            raise fault("it does not depend on the batch: leave out `at batch`")
        at += 1
        if words[at][0] != "batch":
            raise fault("write `at batch N`")
        at += 1
        if not number().isdecimal() or not 1 <= (batch := int(words[at][0])) <= 2**31:
            raise fault("the batch must be a whole number from 1 to 2**31")
        at += 1
    if words[at][0] == "in":
        if not size:
            raise fault("it does not depend on the dtype: leave out `in`")
        at += 1
        dtype = words[at][0]
        if dtype not in DTYPES:
            raise fault(f"there is no dtype {format_value(dtype)}; there are {', '.join(DTYPES)}")
        at += 1
    if words[at][0]:
        raise fault(f"the bound ends before {format_value(words[at][0])}")
    return Bound(" ".join(value.split()), limit, batch, dtype)


def _schema(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": rf"^\s*<=\s*{_NUMBER}{pattern}\s*$"})


_UNIT = rf"(\s*({'|'.join(UNITS)}))?"
_DTYPE = rf"(\s+in\s+({'|'.join(DTYPES)}))?"
Count = Annotated[Bound, PlainValidator(partial(parse_bound, size=False, batched=False)), _schema("")]
Size = Annotated[Bound, PlainValidator(partial(parse_bound, size=True, batched=False)), _schema(_UNIT + _DTYPE)]
BatchSize = Annotated[
    Bound,
    PlainValidator(partial(parse_bound, size=True, batched=True)),
    _schema(rf"{_UNIT}(\s+at\s+batch\s+[1-9][0-9]*)?{_DTYPE}"),
]


class Budget(BaseModel):
    """Upper bounds of what the network may cost, which `check` tests: `<= 5.4e6`, `<= 24 GiB at batch 128 in bfloat16`.

    `memory` is the peak of a training step, `inference_memory` that of a forward pass.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, defer_build=True, json_schema_extra={"minProperties": 1}
    )

    params: Count | None = None
    macs: Count | None = None
    flops: Count | None = None
    param_bytes: Size | None = None
    activation_bytes: BatchSize | None = None
    memory: BatchSize | None = None
    inference_memory: BatchSize | None = None

    @property
    def bounds(self) -> dict[str, Bound]:
        """The bounds by their subjects."""
        return {name: bound for name in type(self).model_fields if (bound := getattr(self, name))}
