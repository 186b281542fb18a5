"""Initializers: the distributions of a layer's weights before training."""

from math import prod, sqrt
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from archspec.language.names import tagged

# The square fits into a float32.
Finite = Annotated[float, Field(ge=-1e15, le=1e15)]
Positive = Annotated[float, Field(ge=1e-15, le=1e15)]


class Distribution(NamedTuple):
    """The distribution of one tensor: `normal` or `truncated` (mean, std), `uniform` (low, high), `constant` (value).

    A truncated normal is cut at `cut` standard deviations from its mean.
    """

    kind: Literal["normal", "truncated", "uniform", "constant"]
    first: float
    second: float = 0.0
    cut: float = 0.0

    def __str__(self) -> str:
        if self.kind == "constant":
            return f"constant {self.first:.3g}"
        return f"{self.kind}({self.first:.3g}, {self.second:.3g})"

    @property
    def low(self) -> float:
        """The lower end of a truncated normal."""
        return self.first - self.cut * self.second

    @property
    def high(self) -> float:
        """The upper end of a truncated normal."""
        return self.first + self.cut * self.second


def fans(weight: tuple[int, ...]) -> tuple[int, int]:
    """Return (fan in, fan out) of a weight laid out (out, in / groups, ...).

    As torch.nn.init and Keras count them: the fan out is not divided by the groups.
    """
    field = prod(weight[2:])
    return weight[1] * field, weight[0] * field


class _Rule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    rule: str

    def distribution(self, weight: tuple[int, ...]) -> Distribution:
        """Return the distribution in a layer whose kernel has the shape `weight`."""
        raise NotImplementedError


class Zeros(_Rule):
    """0."""

    rule: Literal["zeros"] = "zeros"

    def distribution(self, weight: tuple[int, ...]) -> Distribution:
        return Distribution("constant", 0.0)


class Ones(_Rule):
    """1."""

    rule: Literal["ones"] = "ones"

    def distribution(self, weight: tuple[int, ...]) -> Distribution:
        return Distribution("constant", 1.0)


class Constant(_Rule):
    """`value`."""

    rule: Literal["constant"] = "constant"
    value: Finite

    def distribution(self, weight: tuple[int, ...]) -> Distribution:
        return Distribution("constant", self.value)


class Normal(_Rule):
    """N(mean, std^2). Trap: papers write N(0, 0.01) for a deviation of 0.01 and for a variance of 0.01."""

    rule: Literal["normal"] = "normal"
    mean: Finite = 0.0
    std: Positive = 1.0

    def distribution(self, weight: tuple[int, ...]) -> Distribution:
        return Distribution("normal", self.mean, self.std)


class TruncatedNormal(_Rule):
    """N(mean, std^2) drawn again beyond two deviations, as keras.initializers.TruncatedNormal.

    Trap: torch.nn.init.trunc_normal_ cuts at -2 and 2, whatever the deviation, unless told.
    """

    rule: Literal["truncated_normal"] = "truncated_normal"
    mean: Finite = 0.0
    std: Positive = 1.0

    def distribution(self, weight: tuple[int, ...]) -> Distribution:
        return Distribution("truncated", self.mean, self.std, 2.0)


class Uniform(_Rule):
    """U(a, b)."""

    rule: Literal["uniform"] = "uniform"
    a: Finite = 0.0
    b: Finite = 1.0

    @model_validator(mode="after")
    def _in_order(self) -> "Uniform":
        if self.a >= self.b:
            raise PydanticCustomError("wrong-value", "must have its a below its b")
        return self

    def distribution(self, weight: tuple[int, ...]) -> Distribution:
        return Distribution("uniform", self.a, self.b)


class XavierUniform(_Rule):
    """U(-r, r) with r = gain sqrt(6 / (fan in + fan out)); Keras: GlorotUniform (Glorot and Bengio 2010)."""

    rule: Literal["xavier_uniform"] = "xavier_uniform"
    gain: Positive = 1.0

    def distribution(self, weight: tuple[int, ...]) -> Distribution:
        bound = self.gain * sqrt(6 / sum(fans(weight)))
        return Distribution("uniform", -bound, bound)


class XavierNormal(_Rule):
    """N(0, s^2) with s = gain sqrt(2 / (fan in + fan out)). Trap: Keras' GlorotNormal is a truncated normal."""

    rule: Literal["xavier_normal"] = "xavier_normal"
    gain: Positive = 1.0

    def distribution(self, weight: tuple[int, ...]) -> Distribution:
        return Distribution("normal", 0.0, self.gain * sqrt(2 / sum(fans(weight))))


# The squares of torch.nn.init.calculate_gain; leaky_relu's depends on its slope.
VARIANCES = {"linear": 1.0, "sigmoid": 1.0, "tanh": 25 / 9, "relu": 2.0}


class _Kaiming(_Rule):
    mode: Literal["fan_in", "fan_out"] = "fan_in"
    nonlinearity: Literal["linear", "sigmoid", "tanh", "relu", "leaky_relu"] = "leaky_relu"
    a: Finite = 0.0

    @property
    def variance(self) -> float:
        """The square of the gain of `nonlinearity`, `a` being the slope of leaky_relu below 0."""
        return 2 / (1 + self.a**2) if self.nonlinearity == "leaky_relu" else VARIANCES[self.nonlinearity]

    def std(self, weight: tuple[int, ...]) -> float:
        """Return gain / sqrt(fan)."""
        return sqrt(self.variance / fans(weight)[0 if self.mode == "fan_in" else 1])


class KaimingUniform(_Kaiming):
    """U(-r, r) with r = gain sqrt(3 / fan); Keras: HeUniform (He et al. 2015). Caffe's xavier: `nonlinearity: linear`.

    Trap: without arguments its gain is sqrt(2), and PyTorch's layers, which call it with a = sqrt(5), have 1 / sqrt(3).
    """

    rule: Literal["kaiming_uniform"] = "kaiming_uniform"

    def distribution(self, weight: tuple[int, ...]) -> Distribution:
        bound = sqrt(3.0) * self.std(weight)
        return Distribution("uniform", -bound, bound)


class KaimingNormal(_Kaiming):
    """N(0, s^2) with s = gain / sqrt(fan); Caffe: msra. Trap: Keras' HeNormal is a truncated normal."""

    rule: Literal["kaiming_normal"] = "kaiming_normal"

    def distribution(self, weight: tuple[int, ...]) -> Distribution:
        return Distribution("normal", 0.0, self.std(weight))


class TorchDefault(_Rule):
    """U(-r, r) with r = 1 / sqrt(fan in), for weights and for biases: the default of PyTorch's layers."""

    rule: Literal["torch_default"] = "torch_default"

    def distribution(self, weight: tuple[int, ...]) -> Distribution:
        bound = 1 / sqrt(fans(weight)[0])
        return Distribution("uniform", -bound, bound)


BARE = {"constant": "value"}  # rules whose value may be given without its name


def _written(value: Any) -> Any:
    return tagged(value, "rule", "zeros or {normal: {std: 0.01}}", BARE)


Rule = Annotated[
    Constant
    | KaimingNormal
    | KaimingUniform
    | Normal
    | Ones
    | TorchDefault
    | TruncatedNormal
    | Uniform
    | XavierNormal
    | XavierUniform
    | Zeros,
    Field(discriminator="rule"),
    BeforeValidator(_written),
]

BiasRule = Annotated[
    Constant | Normal | Ones | TorchDefault | TruncatedNormal | Uniform | Zeros,
    Field(discriminator="rule"),
    BeforeValidator(_written),
]

# A norm's parameters have one value a channel: there is no fan.
NormRule = Annotated[
    Constant | Normal | Ones | TruncatedNormal | Uniform | Zeros,
    Field(discriminator="rule"),
    BeforeValidator(_written),
]


class Init(BaseModel):
    """The initializers of kernels and biases: a layer's own, else the spec's, else PyTorch's."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    weight: Rule | None = None
    bias: BiasRule | None = None

    def over(self, outer: "Init") -> "Init":
        """Return these initializers, those of `outer` where none is given, else PyTorch's defaults."""
        weight = self.weight or outer.weight or TorchDefault()
        return Init.model_construct(weight=weight, bias=self.bias or outer.bias or TorchDefault())


class NormInit(BaseModel):
    """The initializers of a norm's scale (`weight`, ones) and shift (`bias`, zeros): never the spec's."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    weight: NormRule | None = None
    bias: NormRule | None = None


class WeightInit(BaseModel):
    """The initializer of a layer's only parameter, such as a class token: never the spec's."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    weight: NormRule | None = None


NO_NORM_INIT = NormInit.model_construct(weight=None, bias=None)
NO_INIT = Init.model_construct(weight=None, bias=None)  # Init(), without making pydantic build the model at import
