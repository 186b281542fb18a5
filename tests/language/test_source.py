"""YAML as the language reads it: scalars, limits, positions."""

from __future__ import annotations

import time

import pytest
import yaml

from archspec.language import source as module
from archspec.language.source import Source, SpecError

PARSERS = [pytest.param(yaml.CLoader, id="libyaml"), pytest.param(yaml.Loader, id="python")]


@pytest.fixture(params=PARSERS, autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test with libyaml's parser and with PyYAML's own."""
    monkeypatch.setattr(module, "Parser", request.param)


# YAML 1.2.2, section 10.3.2, and its example 10.9.
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E+3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-0", 0),
        ("+12", 12),
        ("0o14", 12),
        ("0xC", 12),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("Off", "Off"),
        ("y", "y"),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("2012-12-03", "2012-12-03"),
        ("=", "="),
        ("'010'", "010"),
        ('"3:3"', "3:3"),
        ("'1e-4'", "1e-4"),
        ("1.2.3", "1.2.3"),
        ("tRUE", "tRUE"),
    ],
)
def test_scalars_are_read_by_yaml_1_2(text: str, value: object) -> None:
    """A plain scalar has the value of YAML 1.2's core schema; a quoted one is a string."""
    data = Source.parse(f"a: {text}").data

    assert data == {"a": value}
    assert type(data["a"]) is type(value)


@pytest.mark.parametrize("text", ["010", "-007", "3:3", "1:30:00", "190:20:30.15", "1_000", "0b11", "1_0.5"])
def test_numbers_that_yaml_1_1_reads_differently_are_rejected(text: str) -> None:
    """A number with different values in the two versions is an error."""
    with pytest.raises(SpecError, match=r"spec>:1:4: error\[ambiguous-number\]"):
        Source.parse(f"a: {text}")


@pytest.mark.parametrize("text", [".inf", "-.INF", ".nan", "1e999", "9" * 41])
def test_numbers_that_are_not_finite_or_too_long_are_rejected(text: str) -> None:
    """Infinities, NaN and numbers of more than 40 digits are errors."""
    with pytest.raises(SpecError, match=r"error\[number\]"):
        Source.parse(f"a: {text}")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[" * 200_000, "too-deep"),
        ("{a: " * 200_000, "too-deep"),
        ("- " * 200_000, "too-deep"),
        ("a: &a [1]\nb: *a", "anchor"),
        ("a: &a {<<: *a}", "anchor"),
        ("a: *b", "alias"),
        ("a: !!python/name:os.system x", "tag"),
        ("! a", "tag"),
        ("!!map {a: 1}", "tag"),
        ("a: 1\n---\nb: 2", "two-documents"),
        ("a: 1\n...\n---\nb: 2", "two-documents"),
        ("%YAML 1.1\n---\na: 1", "directive"),
        ("%YAML 1.3\n---\n" + "[" * 262_000, "directive"),
        ("%YAML 2.0\n---\na: 1", "directive"),
        ("%TAG ! tag:x,2000:\n---\na: 1", "directive"),
        ("a: 1\na: 2", "duplicate-key"),
        ("a: 1\n'a': 2", "duplicate-key"),
        ("? [a]\n: 1", "syntax"),
        ("a: [1", "syntax"),
        ("a: 'x", "syntax"),
        ("a: \x07", "encoding"),
    ],
)
def test_yaml_outside_the_language_is_rejected_in_seconds(text: str, code: str) -> None:
    """Anchors, tags, directives, deep nesting and other YAML outside the language are one error each."""
    start = time.perf_counter()
    with pytest.raises(SpecError) as caught:
        Source.parse(text)

    assert [d.code for d in caught.value.diagnostics] == [code]
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("start", ["%FOO\n---\n", "[a:,"])
def test_a_syntax_error_is_reported_in_seconds(start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML's own parser, which words the errors of libyaml, stops where the text is nested too deep."""
    monkeypatch.setattr(module, "Parser", yaml.CLoader)
    begin = time.perf_counter()
    with pytest.raises(SpecError, match=r"error\[syntax\]"):
        Source.parse(start + "[" * 16_000)

    assert time.perf_counter() - begin < 5


def test_bytes_and_values_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text of more bytes or values than the limits is an error."""
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    monkeypatch.setattr(module, "MAX_NODES", 10)

    assert Source.parse("[1, 2, 3, 4, 5, 6, 7, 8, 9]").data == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    with pytest.raises(SpecError, match=r"too-large.*10 values"):
        Source.parse("[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]")
    with pytest.raises(SpecError, match=r"too-large.*100 bytes"):
        Source.parse("a" * 101)


def test_bytes_that_are_not_utf8_are_an_error() -> None:
    """Latin-1 and UTF-16 are errors; UTF-8 may start with a byte order mark."""
    with pytest.raises(SpecError, match=r":2:1: error\[encoding\]: byte 0xe9"):
        Source.parse("a: 1\nb: é".encode("latin-1"))
    with pytest.raises(SpecError, match="encoding"):
        Source.parse("a: 1".encode("utf-16"))
    assert Source.parse("\ufeffa: 1".encode()).data == {"a": 1}


def test_every_key_and_value_has_a_position() -> None:
    """Positions count characters from 0, also after wide characters and in nested lists."""
    source = Source.parse("名: {a: [1, 'xy']}\nb:\n  - c: 3\n")

    assert source.span(("名",)) == (0, 3, 1)
    assert source.span(("名", "a", 1)) == (0, 11, 4)
    assert source.span(("名", "a"), key=True) == (0, 4, 1)
    assert source.span(("b", 0, "c")) == (2, 7, 1)
    assert source.span(("b", 0, "nowhere")) == source.span(("b", 0))


def test_parsing_restores_the_garbage_collector() -> None:
    """The garbage collector is enabled after parsing if it was enabled before."""
    import gc

    gc.enable()
    Source.parse("a: 1")
    assert gc.isenabled()
    gc.disable()
    Source.parse("a: 1")
    assert not gc.isenabled()
    gc.enable()
