"""YAML as the language reads it: the scalars, the limits, the places."""

from __future__ import annotations

import time

import pytest
import yaml

from archspec import source as module
from archspec.source import Source, SpecError

PARSERS = [pytest.param(yaml.CLoader, id="libyaml"), pytest.param(yaml.Loader, id="python")]


@pytest.fixture(params=PARSERS, autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test here runs with libyaml's parser and with PyYAML's own."""
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
    """A plain scalar is what YAML 1.2's core schema says, a quoted one text."""
    data = Source.parse(f"a: {text}").data

    assert data == {"a": value}
    assert type(data["a"]) is type(value)


@pytest.mark.parametrize("text", ["010", "-007", "3:3", "1:30:00", "190:20:30.15", "1_000", "0b11", "1_0.5"])
def test_what_yaml_1_1_reads_otherwise_is_refused(text: str) -> None:
    """A number that the two versions read differently is an error, not a guess."""
    with pytest.raises(SpecError, match=r"spec>:1:4: error\[ambiguous-number\]"):
        Source.parse(f"a: {text}")


@pytest.mark.parametrize("text", [".inf", "-.INF", ".nan", "1e999", "9" * 41])
def test_numbers_that_no_network_can_hold_are_refused(text: str) -> None:
    """Infinities, nan and endless digits are errors."""
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
        ("%TAG ! tag:x,2000:\n---\na: 1", "directive"),
        ("a: 1\na: 2", "duplicate-key"),
        ("a: 1\n'a': 2", "duplicate-key"),
        ("? [a]\n: 1", "syntax"),
        ("a: [1", "syntax"),
        ("a: 'x", "syntax"),
        ("a: \x07", "encoding"),
    ],
)
def test_what_is_not_of_the_language_is_an_error_at_once(text: str, code: str) -> None:
    """Hostile and foreign YAML is refused, in a moment, before anything is made of it."""
    start = time.perf_counter()
    with pytest.raises(SpecError) as caught:
        Source.parse(text)

    assert [d.code for d in caught.value.diagnostics] == [code]
    assert time.perf_counter() - start < 5


def test_a_text_is_at_most_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes and values have limits, which are checked before and while they are read."""
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    monkeypatch.setattr(module, "MAX_NODES", 10)

    assert Source.parse("[1, 2, 3, 4, 5, 6, 7, 8, 9]").data == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    with pytest.raises(SpecError, match=r"too-large.*10 values"):
        Source.parse("[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]")
    with pytest.raises(SpecError, match=r"too-large.*100 bytes"):
        Source.parse("a" * 101)


def test_bytes_that_are_no_utf8_are_an_error() -> None:
    """Latin-1 and UTF-16 are told apart from UTF-8, which may start with a byte order mark."""
    with pytest.raises(SpecError, match=r":2:1: error\[encoding\]: byte 0xe9"):
        Source.parse("a: 1\nb: é".encode("latin-1"))
    with pytest.raises(SpecError, match="encoding"):
        Source.parse("a: 1".encode("utf-16"))
    assert Source.parse("\ufeffa: 1".encode()).data == {"a": 1}


def test_every_key_and_value_has_its_place() -> None:
    """A place is counted in characters, from 0, after wide ones and in nested lists too."""
    source = Source.parse("名: {a: [1, 'xy']}\nb:\n  - c: 3\n")

    assert source.span(("名",)) == (0, 3, 1)
    assert source.span(("名", "a", 1)) == (0, 11, 4)
    assert source.span(("名", "a"), key=True) == (0, 4, 1)
    assert source.span(("b", 0, "c")) == (2, 7, 1)
    assert source.span(("b", 0, "nowhere")) == source.span(("b", 0))


def test_a_collector_is_left_as_it_was() -> None:
    """Reading turns the garbage collector off for a moment, and on again if it was on."""
    import gc

    gc.enable()
    Source.parse("a: 1")
    assert gc.isenabled()
    gc.disable()
    Source.parse("a: 1")
    assert not gc.isenabled()
    gc.enable()
