"""The arithmetic behind a layer's shape, parameters and MACs, recorded from the op's own methods.

The methods run on integers that record every operation on them. So the formula of a number is the one that was
evaluated, for every op.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from archspec.graph import Node
from archspec.language.ops.base import Op, Padding2d, Shape

MAX_LENGTH = 400  # of a formula: a longer one is left out


class Formula(NamedTuple):
    """How a number was computed: in names, in numbers (both empty if that is not recorded), and its value."""

    subject: str  # e.g. `height`, or `weight`
    names: str
    numbers: str
    value: int


def arithmetic(node: Node) -> list[Formula]:
    """Return the formulas of a layer: its output shape, its parameters and buffers, and its MACs.

    In a formula `//` is division rounded down.
    """
    if not isinstance(node.op, Op):
        return []
    shapes = [
        _traced_shape(shape, "" if len(node.inputs) == 1 else f"_{i + 1}") for i, shape in enumerate(node.input_shapes)
    ]
    op = _traced_op(node.op)
    found: list[Formula] = []
    if getattr(op, "windowed", False):
        padding: Padding2d = op.explicit_padding(shapes[0])  # type: ignore[attr-defined]
        sides = dict(zip(("top", "bottom", "left", "right"), (*padding[0], *padding[1]), strict=True))
        if op.padding == "same":  # type: ignore[attr-defined]
            found += [_formula(f"padding, {side}", size) for side, size in sides.items()]
        top, bottom, left, right = (Traced(size, side) for side, size in sides.items())
        op = op.model_copy(update={"padding": ((top, bottom), (left, right))})
    output = op.output_shape(*shapes)
    axes = [_formula(axis, size) for axis, size in zip(_AXES[len(output)], output, strict=True)]
    found += axes
    found += [_formula(name, _product(param.shape)) for name, param in op.params(*shapes).items()]
    counts = op.counts(*shapes)
    macs = [counts[kind] for kind in ("mac", "matmul") if counts.get(kind)]
    return found + ([_shortened(_formula("MACs", sum(macs)), axes)] if macs else [])


_AXES = {1: ("features",), 2: ("tokens", "features"), 3: ("channels", "height", "width")}


def _formula(subject: str, value: int) -> Formula:
    if isinstance(value, Traced) and value.names:
        return Formula(subject, value.names, value.numbers, int(value))
    return Formula(subject, "", "", int(value))


def _shortened(formula: Formula, axes: list[Formula]) -> Formula:
    """Return a formula in which the sizes of the output are not computed again."""
    names, numbers = formula.names, formula.numbers
    for axis in axes:
        if axis.names:
            names = names.replace(f"({axis.names})", f"output_{axis.subject}")
            numbers = numbers.replace(f"({axis.numbers})", str(axis.value))
    return formula._replace(names=names, numbers=numbers)


def _product(sizes: Sequence[int]) -> int:
    first, *others = sizes
    for size in others:
        first = first * size
    return first


def _traced_shape(shape: Shape, suffix: str) -> Shape:
    return tuple(Traced(size, axis + suffix) for axis, size in zip(_AXES[len(shape)], shape, strict=True))


def _traced_op(op: Op) -> Op:
    """Return an op whose integer attributes are traced."""
    own = {name: getattr(op, name) for name in type(op).model_fields if name not in Op.model_fields}
    return op.model_copy(update={name: _traced(value, name) for name, value in own.items()})


def _traced(value: Any, name: str) -> Any:
    if type(value) is int:
        return Traced(value, name)
    if type(value) is tuple:
        return tuple(_traced(part, name) for part in value)
    return value


# --- integers that record --------------------------------------------------------------------------------------------

# How tightly an operator binds. A division is below a product: `a * (b // c)` is not `a * b // c`.
_SUM, _DIVISION, _PRODUCT, _SIGN, _LEAF = range(5)
_LEVELS = {"+": _SUM, "-": _SUM, "//": _DIVISION, "%": _DIVISION, "*": _PRODUCT}


class Traced(int):
    """An integer with the formula that it was computed by, in names and in numbers."""

    names: str
    numbers: str
    level: int

    def __new__(cls, value: int, names: str, numbers: str | None = None, level: int = _LEAF) -> Traced:
        made = super().__new__(cls, value)
        made.names, made.numbers, made.level = names, str(int(value)) if numbers is None else numbers, level
        if len(made.names) > MAX_LENGTH:
            made.names, made.numbers = "", ""
        return made

    def __neg__(self) -> Traced:
        names, numbers = _inside(self, _SIGN)
        return Traced(-int(self), f"-{names}" if names else "", f"-{numbers}", _SIGN)

    def __pow__(self, power: Any, modulus: Any = None) -> Any:
        return _product([self] * power)

    def __add__(self, other: Any) -> Any:
        return _recorded("+", self, other, int.__add__)

    def __radd__(self, other: Any) -> Any:
        return _recorded("+", other, self, int.__add__)

    def __sub__(self, other: Any) -> Any:
        return _recorded("-", self, other, int.__sub__)

    def __rsub__(self, other: Any) -> Any:
        return _recorded("-", other, self, int.__sub__)

    def __mul__(self, other: Any) -> Any:
        return _recorded("*", self, other, int.__mul__)

    def __rmul__(self, other: Any) -> Any:
        return _recorded("*", other, self, int.__mul__)

    def __floordiv__(self, other: Any) -> Any:
        return _recorded("//", self, other, int.__floordiv__)

    def __rfloordiv__(self, other: Any) -> Any:
        return _recorded("//", other, self, int.__floordiv__)

    def __mod__(self, other: Any) -> Any:
        return _recorded("%", self, other, int.__mod__)

    def __rmod__(self, other: Any) -> Any:
        return _recorded("%", other, self, int.__mod__)


_NEUTRAL = {"+": 0, "*": 1}  # that `sum` and `prod` start with


def _recorded(operator: str, left: int, right: int, compute: Callable[[int, int], int]) -> Any:
    """Return a traced result; NotImplemented for other numbers, such as fractions."""
    if not isinstance(left, int) or not isinstance(right, int):
        return NotImplemented
    neutral = _NEUTRAL.get(operator)
    if type(left) is int and left == neutral:
        return right
    if type(right) is int and right == neutral:
        return left
    level = _LEVELS[operator]
    before = _inside(left, min(level, _DIVISION))
    after = _inside(right, level if operator in "+*" else _SIGN if level else _DIVISION)
    names, numbers = (f"{a} {operator} {b}" if a and b else "" for a, b in zip(before, after, strict=True))
    return Traced(compute(int(left), int(right)), names, numbers, level)


def _inside(value: int, level: int) -> tuple[str, str]:
    """Return the formula of an operand in names and in numbers, in parentheses if it binds less tightly."""
    if not isinstance(value, Traced):
        return str(value), str(value)
    if not value.names or value.level >= level:
        return value.names, value.numbers
    return f"({value.names})", f"({value.numbers})"
