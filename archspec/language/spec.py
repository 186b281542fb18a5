"""The spec as a document: its sections, and their validation."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from archspec.language.blocks import Block, Parser, Row
from archspec.language.budget import Budget
from archspec.language.errors import explain
from archspec.language.initializers import NO_INIT, Init
from archspec.language.names import NAMES_SCHEMA, SpecName, Text, one_or_more
from archspec.language.ops import Input
from archspec.language.ops.base import Role
from archspec.language.recipe import Training, check_images
from archspec.language.source import Diagnostic, Source, SpecError, did_you_mean, first_diagnostics, format_value

MAX_LAYERS = 250_000  # rows, each as often as it is repeated
MAX_CLAIMS = 10_000


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
SpecFile = Annotated[str, Field(pattern=r"^[a-z0-9_]+\.yaml$")]  # in the same folder
Layers = Annotated[list[str], PlainValidator(lambda value: one_or_more(value, "a layer")), WithJsonSchema(NAMES_SCHEMA)]


# The subjects of a claim: of a layer, of several layers together, or of the whole network.
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
    """A statement of a source about the network, which `check` compares with what it computes.

    `says` and `where` cite the source. A whole number is exact. A number with a decimal point or an exponent is
    rounded: +-1 in its last significant digit, at least the second, so that `60e6` accepts 59 to 61 million; twice
    that where it `says` about. A claim that is known to be wrong is `disputed`, with the reason, and must stay wrong.
    With `times` the number is a ratio to another spec in the same folder.
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
    times: SpecFile | None = None
    says: Text = ""
    where: Text = ""
    disputed: Text | None = None

    @property
    def subjects(self) -> list[str]:
        """The subjects that are given; exactly one in a valid claim."""
        return [subject for subject in SUBJECTS if getattr(self, subject) is not None]

    @property
    def layers(self) -> list[str]:
        """The layers that it is about; none for the whole network."""
        return self.layer or []


class Multiplier(BaseModel):
    """Factors of the learning rate and weight decay of some parameters (Caffe's lr_mult and decay_mult)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    lr: Factor = 1.0
    decay: Factor = 1.0


class Multipliers(BaseModel):
    """The multipliers of kernels, of biases, and of the parameters of norms and embeddings."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    weight: Multiplier = Multiplier.model_construct(lr=1.0, decay=1.0)
    bias: Multiplier = Multiplier.model_construct(lr=1.0, decay=1.0)
    norm: Multiplier = Multiplier.model_construct(lr=1.0, decay=1.0)

    def of(self, role: Role) -> Multiplier:
        """Return the multiplier of a parameter."""
        return self.weight if role == "kernel" else self.bias if role == "bias" else self.norm


Version = Annotated[Literal[1], BeforeValidator(lambda value: "true" if value is True else value)]


class Spec(BaseModel):
    """A network: its input, its layers in order, its training recipe, the claims of its source, and its budget."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    archspec: Version
    name: SpecName
    source: Text = ""
    input: Input
    init: Init = NO_INIT
    multipliers: Multipliers | None = None
    training: Training | None = None
    # Read by archspec.language.blocks; archspec.language.schema describes them.
    blocks: Annotated[dict[str, Block], PlainValidator(lambda value: value), WithJsonSchema({"x": "blocks"})] = {}
    layers: Annotated[tuple[Row, ...], PlainValidator(lambda value: value), WithJsonSchema({"x": "layers"})]
    claims: Annotated[list[Claim], Field(max_length=MAX_CLAIMS)] = []
    budget: Budget | None = None

    @property
    def is_flat(self) -> bool:
        """Whether each row is one layer: there are no blocks, and nothing is repeated."""
        return not self.blocks and not any(row.repeat for row in self.layers)


CLAIMS_SUFFIX = ".claims.yaml"  # of the names of files of claims


class ClaimsFile(BaseModel):
    """Claims of other sources about the network of `spec`, in a file of their own in the same folder."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    archspec: Version
    spec: SpecFile
    source: Text = ""
    claims: Annotated[list[Claim], Field(min_length=1, max_length=MAX_CLAIMS)]


BUDGET_SUFFIX = ".budget.yaml"  # of the names of files of budgets in folders of specs


class BudgetFile(BaseModel):
    """A budget in a file of its own, for any network."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    archspec: Version
    budget: Budget


def parse_budget(source: Source) -> Budget:
    """Return the budget in the file `source`; raise SpecError with all its schema errors at once."""
    try:
        budget = BudgetFile.model_validate(source.data).budget
    except ValidationError as error:
        raise SpecError(explain(error, source, BudgetFile)) from None
    if errors := list(budget_errors(budget, source)):
        raise SpecError(errors)
    return budget


def budget_errors(budget: Budget | None, source: Source) -> Iterator[Diagnostic]:
    """Yield the error of a budget without bounds."""
    if budget and not budget.bounds:
        message = f"a budget needs one of {', '.join(Budget.model_fields)}"
        yield source.error("missing-key", message, ("budget",), key=True)


def parse_claims(source: Source) -> ClaimsFile:
    """Return the file of claims in `source`; raise SpecError with all its schema errors at once."""
    try:
        return ClaimsFile.model_validate(source.data)
    except ValidationError as error:
        raise SpecError(explain(error, source, ClaimsFile)) from None


def parse(source: Source) -> Spec:
    """Return the spec in `source`; raise SpecError with all its schema errors at once."""
    if isinstance(source.data, dict) and "spec" in source.data and "layers" not in source.data:
        message = (
            f"these are claims about {format_value(source.data['spec'])}, not a network: `archspec check` tests them"
        )
        raise SpecError([source.error("claims-file", message, ("spec",), key=True)])
    parser = Parser(source, MAX_LAYERS)
    rows, blocks = parser.spec()
    data = source.data
    if isinstance(data, dict):
        data = {
            **data,
            **({"layers": rows} if "layers" in data else {}),
            **({"blocks": blocks} if "blocks" in data else {}),
        }
    errors: list[Diagnostic] = []
    try:
        spec = Spec.model_validate(data)
    except ValidationError as error:
        errors = explain(error, source, Spec)
    errors += parser.errors
    if errors:
        raise SpecError(errors)
    found = (
        claim_errors(spec, source),
        check_images(spec.training, spec.input, source),
        budget_errors(spec.budget, source),
    )
    if errors := first_diagnostics(chain.from_iterable(found)):
        raise SpecError(errors)
    return spec


def claim_errors(spec: Spec, source: Source) -> Iterator[Diagnostic]:
    """Yield the errors of claims without a subject, with several, or about an unknown layer.

    Layers in blocks are not known before shapes are: see archspec.graph.build.
    """
    names = {row.name for row in spec.layers} if spec.claims else set()
    for i, claim in enumerate(spec.claims):
        if not claim.subjects:
            yield source.error("claim", f"a claim needs one of {', '.join(SUBJECTS)}", ("claims", i))
        elif len(claim.subjects) > 1:
            yield source.error("claim", f"a claim has one subject, not {', '.join(claim.subjects)}", ("claims", i))
        for name in claim.layers:
            if name.partition(".")[0] not in names:
                near = did_you_mean(name, names)
                yield source.error("unknown-layer", f"no layer {format_value(name)}{near}", ("claims", i, "layer"))
        if not claim.layers and claim.weight_shape:
            yield source.error("claim", "weight_shape needs a layer", ("claims", i))
