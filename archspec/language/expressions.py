"""Arithmetic over the attributes of a block: `4 * width`, `kernel_size // 2`, `stride == 1 and not wide`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

MAX_LENGTH = 200  # characters
MAX_NESTING = 32  # parentheses and prefix operators
MAX_VALUE = 2**53  # exact as a float64


class ExpressionError(ValueError):
    """A fault of an expression; `offset` and `width` are its place in the text, in characters."""

    def __init__(self, code: str, message: str, offset: int = 0, width: int = 1) -> None:
        super().__init__(message)
        self.code, self.offset, self.width = code, offset, width


class Part(NamedTuple):
    """A part of an expression: a number, a name, or an operator with its operands."""

    kind: str  # `number`, `name`, or the operator
    value: Any  # the number, the name, or the operands
    offset: int
    width: int


@dataclass(frozen=True)
class Expression:
    """An expression; its text means the same in Python."""

    text: str
    tree: Part

    @cached_property
    def names(self) -> frozenset[str]:
        """The names in it."""
        return frozenset(part.value for part in _parts(self.tree) if part.kind == "name")

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """Return its value; raise ExpressionError where it has none. `values` has every name in it."""
        return _evaluate(self.tree, values)


def parse(text: str) -> Expression:
    """Return the expression in `text`; raise ExpressionError at its first fault."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError("expression", f"an expression of {len(text)} characters: at most {MAX_LENGTH}")
    return Expression(text, _Parser(text).whole())


_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<operator>\*\*|//|[=!<>]=|\S))"
)
_COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
_KEYWORDS = ("and", "or", "not")
_PYTHON_ONLY = {
    "**": "powers",
    "[": "indexing",
    ".": "attribute access",
    "'": "text",
    '"': "text",
    "=": "assignment: write == to compare",
    "!": "!: write not",
    "&": "&: write and",
    "|": "|: write or",
    "^": "powers",
}


class _Token(NamedTuple):
    kind: str  # `number`, `name`, `operator` or `end`
    text: str
    offset: int


def _tokens(text: str) -> Iterator[_Token]:
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or ""
        word = match[kind]
        yield _Token("operator" if word in _KEYWORDS else kind, word, match.start(kind))
    yield _Token("end", "", len(text.rstrip()))


class _Parser:
    """Precedence climbing, in Python's order: or, and, not, comparisons, sums, products, signs."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0
        self._nesting = 0

    def whole(self) -> Part:
        part = self._or()
        if self._next.kind != "end":
            raise self._fault()
        return part

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self, *operators: str) -> _Token | None:
        token = self._next
        if token.kind == "operator" and token.text in operators:
            self._at += 1
            return token
        return None

    def _fault(self) -> ExpressionError:
        token = self._next
        if token.kind == "end":
            return ExpressionError("expression", "the expression ends too early", token.offset)
        what = _PYTHON_ONLY.get(token.text)
        before = self._tokens[self._at - 1] if self._at else None
        if token.text == "(" and before and before.kind == "name":
            what = "calls"
        message = f"expressions have no {what}" if what else f"{token.text!r} is not expected here"
        return ExpressionError("expression", message, token.offset, len(token.text))

    def _deeper(self, token: _Token) -> None:
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            raise ExpressionError("too-deep", f"nested more than {MAX_NESTING} deep", token.offset)

    def _binary(self, operand: Callable[[], Part], *operators: str) -> Part:
        part = operand()
        while token := self._take(*operators):
            right = operand()
            part = Part(token.text, (part, right), part.offset, right.offset + right.width - part.offset)
        return part

    def _or(self) -> Part:
        return self._binary(self._and, "or")

    def _and(self) -> Part:
        return self._binary(self._not, "and")

    def _not(self) -> Part:
        if token := self._take("not"):
            self._deeper(token)
            part = self._not()
            self._nesting -= 1
            return Part("not", (part,), token.offset, part.offset + part.width - token.offset)
        return self._comparison()

    def _comparison(self) -> Part:
        part = self._sum()
        token = self._take(*_COMPARISONS)
        if token:
            right = self._sum()
            part = Part(token.text, (part, right), part.offset, right.offset + right.width - part.offset)
            if self._next.text in _COMPARISONS:
                message = "one comparison follows another: write and between two"
                raise ExpressionError("expression", message, self._next.offset, len(self._next.text))
        return part

    def _sum(self) -> Part:
        return self._binary(self._product, "+", "-")

    def _product(self) -> Part:
        return self._binary(self._sign, "*", "//", "/", "%")

    def _sign(self) -> Part:
        if token := self._take("-"):
            self._deeper(token)
            part = self._sign()
            self._nesting -= 1
            return Part("neg", (part,), token.offset, part.offset + part.width - token.offset)
        return self._atom()

    def _atom(self) -> Part:
        token = self._next
        if token.kind == "number":
            self._at += 1
            return Part("number", _number(token), token.offset, len(token.text))
        if token.kind == "name":
            self._at += 1
            return Part("name", token.text, token.offset, len(token.text))
        if token := self._take("("):  # type: ignore[assignment]
            self._deeper(token)
            part = self._or()
            self._nesting -= 1
            if not (end := self._take(")")):
                raise self._fault()
            return part._replace(offset=token.offset, width=end.offset + 1 - token.offset)
        raise self._fault()


def _number(token: _Token) -> int | float:
    value: int | float = int(token.text) if token.text.isdecimal() else float(token.text)
    if value > MAX_VALUE:
        raise ExpressionError("too-large", f"a number above {MAX_VALUE:,}", token.offset, len(token.text))
    return value


def _parts(part: Part) -> Iterator[Part]:
    yield part
    if part.kind not in ("number", "name"):
        for operand in part.value:
            yield from _parts(operand)


def _evaluate(part: Part, values: Mapping[str, Any]) -> Any:
    if part.kind == "number":
        return part.value
    if part.kind == "name":
        return values[part.value]
    first = _evaluate(part.value[0], values)
    if part.kind in ("and", "or", "not"):
        _require(part.value[0], first, bool, "true or false")
        if part.kind == "not":
            return not first
        if first is (part.kind == "or"):
            return first
        second = _evaluate(part.value[1], values)
        _require(part.value[1], second, bool, "true or false")
        return second
    if part.kind == "neg":
        _require(part.value[0], first, (int, float), "a number")
        return -first
    second = _evaluate(part.value[1], values)
    if part.kind in ("==", "!="):
        return (first == second) is (part.kind == "==")
    _require(part.value[0], first, (int, float), "a number")
    _require(part.value[1], second, (int, float), "a number")
    if part.kind in ("/", "//", "%") and second == 0:
        raise ExpressionError("expression", "a division by zero", part.value[1].offset, part.value[1].width)
    result = _OPERATORS[part.kind](first, second)
    if not -MAX_VALUE <= result <= MAX_VALUE:
        raise ExpressionError("too-large", f"the result is beyond {MAX_VALUE:,}", part.offset, part.width)
    return result


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _require(part: Part, value: Any, kind: type | tuple[type, ...], what: str) -> None:
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        from archspec.language.source import format_value

        said = f"{part.value} is {format_value(value)}" if part.kind == "name" else f"{format_value(value)}"
        raise ExpressionError("wrong-type", f"needs {what} here: {said}", part.offset, part.width)
