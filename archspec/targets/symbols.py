"""Polynomials over the attributes of a block, for the channels of its layers: `4 * width`, `in_channels + growth`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archspec.language.expressions import Expression, Part, parse

Term = tuple[str, ...]  # sorted factors: names, and quotients as text


class Poly:
    """A sum of products of names with whole factors; a quotient that does not come out even is a factor of its own."""

    def __init__(self, terms: Mapping[Term, int]) -> None:
        self.terms = {term: factor for term, factor in terms.items() if factor}

    @classmethod
    def of(cls, value: int | str | Poly) -> Poly:
        """Return a number, or a name, as a polynomial."""
        if isinstance(value, Poly):
            return value
        return cls({(): value} if isinstance(value, int) else {(value,): 1})

    @property
    def number(self) -> int | None:
        """Its value, if it is a number."""
        return self.terms.get((), 0) if set(self.terms) <= {()} else None

    @property
    def names(self) -> set[str]:
        """The names in it."""
        return {name for term in self.terms for factor in term for name in parse(factor).names}

    def __add__(self, other: int | Poly) -> Poly:
        terms = dict(self.terms)
        for term, factor in Poly.of(other).terms.items():
            terms[term] = terms.get(term, 0) + factor
        return Poly(terms)

    __radd__ = __add__

    def __sub__(self, other: int | Poly) -> Poly:
        return self + Poly.of(other) * -1

    def __mul__(self, other: int | Poly) -> Poly:
        terms: dict[Term, int] = {}
        for a, m in self.terms.items():
            for b, n in Poly.of(other).terms.items():
                term = tuple(sorted((*a, *b)))
                terms[term] = terms.get(term, 0) + m * n
        return Poly(terms)

    __rmul__ = __mul__

    def __floordiv__(self, other: int | Poly) -> Poly:
        divisor = Poly.of(other)
        n = divisor.number
        if n and all(factor % n == 0 for factor in self.terms.values()):
            return Poly({term: factor // n for term, factor in self.terms.items()})
        if self.number is not None and n:
            return Poly.of(self.number // n)
        return Poly({(f"{_grouped(self)} // {_grouped(divisor)}",): 1})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Poly) and self.terms == other.terms

    __hash__ = None  # type: ignore[assignment]

    def evaluate(self, values: Mapping[str, Any]) -> int:
        """Return its value."""
        total = 0
        for term, factor in self.terms.items():
            for name in term:
                factor *= parse(name).evaluate(values)
            total += factor
        return total

    def substitute(self, values: Mapping[str, Poly]) -> Poly:
        """Return it with polynomials for names."""
        total = Poly({})
        for term, factor in self.terms.items():
            product = Poly.of(factor)
            for name in term:
                product = product * _substituted(parse(name).tree, values)
            total = total + product
        return total

    def __str__(self) -> str:
        text = ""
        for term, factor in sorted(self.terms.items(), key=lambda item: _order(item[0])):
            sign = "-" if factor < 0 else "+"
            factors = [*([str(abs(factor))] if abs(factor) != 1 or not term else []), *_factors(term, factor)]
            text += f" {sign} {' * '.join(factors)}" if text else ("-" if factor < 0 else "") + " * ".join(factors)
        return text or "0"


def _order(term: Term) -> tuple[bool, bool, bool]:
    """Return the place of a term in the text: names, the channels first, then the number, then what `i` repeats."""
    return "i" in term, not term, "in_channels" not in term


def _factors(term: Term, factor: int) -> list[str]:
    alone = len(term) == 1 and factor == 1
    return [f"({name})" if " " in name and not alone else name for name in term]


def _grouped(poly: Poly) -> str:
    text = str(poly)
    return f"({text})" if " " in text else text


def from_expression(expression: Expression) -> Poly:
    """Return an expression as a polynomial."""
    return _substituted(expression.tree, {})


def _substituted(part: Part, values: Mapping[str, Poly]) -> Poly:
    if part.kind == "number" and isinstance(part.value, int):
        return Poly.of(part.value)
    if part.kind == "name":
        return values.get(part.value, Poly.of(part.value))
    if part.kind in ("+", "-", "*", "//"):
        a, b = (_substituted(operand, values) for operand in part.value)
        return a + b if part.kind == "+" else a - b if part.kind == "-" else a * b if part.kind == "*" else a // b
    if part.kind == "neg":
        return _substituted(part.value[0], values) * -1
    raise NotPolynomialError


class NotPolynomialError(ValueError):
    """Raised for an expression with another operator: `/`, `%` or a comparison."""
