"""YAML parsing with source positions."""

from __future__ import annotations

import errno
import gc
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

# A spec is untrusted text: these bounds are checked on the event stream, before anything is composed.
MAX_BYTES = 16 * 2**20
MAX_DEPTH = 32
MAX_NODES = 300_000
MAX_DIGITS = 40
MAX_DIAGNOSTICS = 1000
MAX_COMPARISONS = 20_000  # of words, for suggestions: one takes up to 50 us
_YAML_VERSION = "specs are read as YAML 1.2"

# libyaml's parser where PyYAML was built with it; PyYAML's own gives the same events, ten times slower.
Parser = getattr(yaml, "CLoader", yaml.Loader)

Loc = tuple[str | int, ...]


class Span(NamedTuple):
    """A stretch of one line: `line` and `column` count from 0, `width` is in characters."""

    line: int
    column: int
    width: int = 1


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """An error or a warning at its place in a spec; `allowed` is the author's reason to allow a warning."""

    path: str
    span: Span
    code: str
    message: str
    excerpt: str = ""
    severity: Literal["error", "warning"] = "error"
    allowed: str = ""
    related: tuple[tuple[Span, str], ...] = ()  # the uses of the block that it is in, the innermost first

    def __str__(self) -> str:
        line, column, width = self.span
        head = printable(f"{self.path}:{line + 1}:{column + 1}: {self.severity}[{self.code}]: {self.message}")
        if not self.excerpt:
            return head + self._uses
        # Tabs stay tabs under tabs, and wide characters take two columns, so that the caret stands where it should.
        before, under = printable(self.excerpt[:column]), printable(self.excerpt[column : column + width])
        pad = "".join(c if c == "\t" else " " * _columns(c) for c in before)
        carets = "^" * max(1, _columns(under))
        return f"{head}\n{line + 1:>3} | {printable(self.excerpt)}\n{'':>3} | {pad}{carets}{self._uses}"

    @property
    def _uses(self) -> str:
        lines = (f"{self.path}:{span.line + 1}:{span.column + 1}: {message}" for span, message in self.related)
        return "".join(f"\n{printable(line)}" for line in lines)


class SpecError(Exception):
    """The errors of a spec; `diagnostics` has them in the order of the text."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = sorted(diagnostics, key=lambda d: (d.path, d.span))
        super().__init__("\n".join(map(str, self.diagnostics)))


@dataclass(frozen=True)
class Source:
    """A spec's text and the plain data in it: dicts, lists, strings, numbers, booleans and None.

    Scalars are read by the rules of YAML 1.2. Numbers that YAML 1.1 reads otherwise are errors, as are duplicate keys,
    anchors, aliases, tags, and anything beyond the limits above.
    """

    path: str
    text: str
    data: Any

    @classmethod
    def read(cls, path: Path | str) -> Source:
        """Return the source in the file `path`; raise SpecError for its errors, OSError for an unreadable file."""
        return cls.parse(read_bytes(path), str(path))

    @classmethod
    def parse(cls, content: str | bytes, path: str = "<spec>") -> Source:
        """Return the source in `content`; raise SpecError for its errors."""
        global _compared
        _compared = 0
        text = _decode(content, path)
        collecting = gc.isenabled()
        gc.disable()  # millions of small objects and no cycles: the collector would nearly double the time
        try:
            data = _compose(text, path, _Plain())
        finally:
            if collecting:
                gc.enable()
        return cls(path, text, data)

    def error(self, code: str, message: str, loc: Loc, *, key: bool = False) -> Diagnostic:
        """Return an error at the value of `loc` or, if `key`, at its key."""
        return _diagnostic(self._lines, self.path, self.span(loc, key=key), code, message)

    def error_inside(self, code: str, message: str, loc: Loc, offset: int, width: int) -> Diagnostic:
        """Return an error at a part of the text at `loc`: `width` characters from `offset` on."""
        whole = self.span(loc)
        line = self._lines[whole.line] if whole.line < len(self._lines) else ""
        quoted = line[whole.column : whole.column + 1] in ('"', "'")
        if offset + width > whole.width:  # a text of several lines
            return self.error(code, message, loc)
        span = Span(whole.line, whole.column + offset + quoted, width)
        return _diagnostic(self._lines, self.path, span, code, message)

    def warning(self, code: str, message: str, loc: Loc, *, allowed: str = "") -> Diagnostic:
        """Return a warning at `loc`, with the reason why it is allowed, if any."""
        return replace(self.error(code, message, loc), severity="warning", allowed=allowed)

    def span(self, loc: Loc, *, key: bool = False) -> Span:
        """Return the span of `loc`, or of the innermost value around it that has one."""
        for end in range(len(loc), -1, -1):
            if place := self._places.get(loc[:end]):
                return place[0] if key and end == len(loc) else place[1]
        return Span(0, 0)

    @cached_property
    def _lines(self) -> list[str]:
        return _BREAK.split(self.text)

    @cached_property
    def _places(self) -> dict[Loc, tuple[Span, Span]]:
        """The spans of the key and the value at every loc.

        From a second walk over the events: only a spec with an error pays for its positions.
        """
        places = _Places()
        _compose(self.text, self.path, places)
        return places.spans


def read_bytes(path: Path | str) -> bytes:
    """Return the content of a regular file, of one that is too large no more than shows that; raise OSError."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe waits for its writer
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with Path(path).open("rb") as file:
        return file.read(MAX_BYTES + 1)


def require_inside(path: Path) -> None:
    """Raise OSError for a link out of its folder, such as to /etc/shadow, of which an error would show a line."""
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(path.parent)):
        raise OSError(errno.EPERM, "a link out of its folder", str(path))


class _Plain:
    """Builds the data from the events."""

    def scalar(self, event: Any, loc: None) -> Any:
        return resolve(event.value) if event.implicit[0] else event.value

    def container(self, event: Any, loc: None) -> None:
        pass

    def key(self, loc: None, key: str, event: Any) -> None:
        return None

    def item(self, loc: None, index: int) -> None:
        return None


class _Places:
    """Builds the positions from the events."""

    def __init__(self) -> None:
        self.spans: dict[Loc, tuple[Span, Span]] = {}
        self._keys: dict[Loc, Span] = {}

    def scalar(self, event: Any, loc: Loc | None) -> Any:
        self._put(event, loc or ())
        return event.value

    def container(self, event: Any, loc: Loc | None) -> None:
        self._put(event, loc or ())

    def key(self, loc: Loc | None, key: str, event: Any) -> Loc:
        place = (*(loc or ()), key)
        self._keys[place] = _span(event)
        return place

    def item(self, loc: Loc | None, index: int) -> Loc:
        return (*(loc or ()), index)

    def _put(self, event: Any, loc: Loc) -> None:
        span = _span(event)
        self.spans[loc] = (self._keys.get(loc, span), span)


def _compose(text: str, path: str, build: _Plain | _Places) -> Any:
    """Return the one document of `text`; every event is checked before anything is built from it."""

    def fail(code: str, message: str, event: Any) -> SpecError:
        return SpecError([_diagnostic(text, path, _span(event), code, message)])

    # The stack has (container, loc, pending key) of each container around the current event.
    root: list[Any] = []
    stack: list[tuple[Any, Any, Any]] = []
    container: Any = root
    loc: Any = None
    here: Any = None
    key: str | None = None
    count = 0
    for event in _events(text, path):
        kind = type(event)
        if kind is yaml.ScalarEvent:
            count += 1
            if event.anchor is not None or event.tag is not None:
                raise fail(*_unwanted(event), event)
            if type(container) is dict:
                if key is None:
                    key = event.value
                    if key in container:
                        raise fail("duplicate-key", f"the key {format_value(key)} is given twice", event)
                    here = build.key(loc, key, event)
                    continue
                container[key] = _value(build, event, here, fail)
                key = None
            else:
                here = build.item(loc, len(container)) if container is not root else None
                container.append(_value(build, event, here, fail))
        elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
            count += 1
            if event.anchor is not None or event.tag is not None:
                raise fail(*_unwanted(event), event)
            if len(stack) >= MAX_DEPTH:
                raise fail("too-deep", f"nested more than {MAX_DEPTH} deep", event)
            child: Any = {} if kind is yaml.MappingStartEvent else []
            if type(container) is dict:
                if key is None:
                    raise fail("syntax", "a key must be a word, not a list or a mapping", event)
                container[key] = child
            else:
                here = build.item(loc, len(container)) if container is not root else None
                container.append(child)
            build.container(event, here)
            stack.append((container, loc, None))
            container, loc, key = child, here, None
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            container, loc, key = stack.pop()
        elif kind is yaml.AliasEvent:
            raise fail("alias", "aliases (*name) are not part of the language: repeat the value", event)
        elif kind is yaml.DocumentStartEvent:
            if root:
                raise fail("two-documents", "a second document: a file has one spec", event)
            if event.version and tuple(event.version) != (1, 2):
                raise fail("directive", _YAML_VERSION, event)
            if event.tags:
                raise fail("directive", "%TAG is not part of the language", event)
        if count > MAX_NODES:
            raise fail("too-large", f"more than {MAX_NODES:,} values", event)
    return root[0] if root else None


def _value(build: _Plain | _Places, event: Any, loc: Any, fail: Any) -> Any:
    try:
        return build.scalar(event, loc)
    except ValueError as fault:
        raise fail(*fault.args, event) from None


def _unwanted(event: Any) -> tuple[str, str]:
    if event.anchor is not None:
        return "anchor", f"anchors (&{event.anchor}) are not part of the language: repeat the value"
    return "tag", f"tags ({event.tag}) are not part of the language"


def _events(text: str, path: str) -> Iterator[Any]:
    """Yield the YAML events of `text`; raise SpecError at its first syntax error."""
    try:
        yield from yaml.parse(text, Loader=Parser)
    except yaml.YAMLError as error:
        unknown_version = "incompatible YAML" in str(error)
        fault = error if unknown_version else _python_error(text) or error
        mark = getattr(fault, "problem_mark", None)
        span = Span(mark.line, mark.column) if mark else Span(0, 0)
        code, problem = "syntax", _reworded(getattr(fault, "problem", None) or "not YAML")
        if unknown_version:
            code, problem = "directive", _YAML_VERSION
        raise SpecError([_diagnostic(text, path, span, code, problem)]) from None


def _reworded(problem: str) -> str:
    """Return PyYAML's message for its most frequent errors in plain words."""
    if r"'\t'" in problem:
        return "a tab: YAML indents with spaces"
    if "expected <block end>" in problem:
        return f"{problem}: a line is indented differently from the others, or lacks its `- `"
    if "expected ',' or" in problem:
        return f"{problem}: a comma or a closing bracket is missing"
    return problem


def _python_error(text: str) -> yaml.YAMLError | None:
    """Return the error of PyYAML's own parser, whose messages and places are better than libyaml's.

    None for a text that would take it seconds: 16 KB of open brackets take a minute.
    """
    if Parser is yaml.Loader or len(text) > 2**16:
        return None
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                return None
    except yaml.YAMLError as fault:
        return fault
    return None


# YAML 1.2, section 10.3.2: the core schema.
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
# What YAML 1.1 reads as another number, or 1.2 no longer as one: octal 010, binary, 1_000, sexagesimal 3:3.
_AMBIGUOUS = re.compile(
    r"[-+]?0[0-9]+|[-+]?0b[01_]+|[-+]?(?=[0-9._]*_)[0-9][0-9_]*(\.[0-9_]*)?|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"
)
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_NUMBER_STARTS = frozenset("+-.0123456789")


@lru_cache(maxsize=4096)
def resolve(plain: str) -> Any:
    """Return the value of a plain (unquoted) scalar by YAML 1.2; raise ValueError(code, message) if it has none."""
    if plain in _WORDS:
        return _WORDS[plain]
    if plain[0] not in _NUMBER_STARTS:
        return plain
    if _AMBIGUOUS.fullmatch(plain):
        message = f"{plain} is read differently by YAML 1.1 and 1.2: write a plain decimal number"
        raise ValueError("ambiguous-number", message)
    if _NOT_FINITE.fullmatch(plain):
        raise ValueError("number", f"{plain} is not a finite number")
    if _INT.fullmatch(plain):
        if len(plain) > MAX_DIGITS:
            raise ValueError("number", f"a number of {len(plain)} digits: at most {MAX_DIGITS} are allowed")
        return int(plain, 0) if plain[:2] in ("0o", "0x") else int(plain)
    if _FLOAT.fullmatch(plain):
        value = float(plain)
        if value in (float("inf"), float("-inf")):
            raise ValueError("number", f"{format_value(plain)} is too large for a float64")
        return value
    return plain


_UNPRINTABLE = yaml.reader.Reader.NON_PRINTABLE  # both parsers', compiled once
_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")  # as YAML's parsers count lines


def _decode(content: str | bytes, path: str) -> str:
    if len(content) > MAX_BYTES:
        raise SpecError([Diagnostic(path, Span(0, 0), "too-large", f"more than {MAX_BYTES:,} bytes")])
    text = content if isinstance(content, str) else _utf8(content, path)
    if bad := _UNPRINTABLE.search(text):
        before = _BREAK.split(text[: bad.start()])
        span = Span(len(before) - 1, len(before[-1]))
        message = f"character U+{ord(bad[0]):04X} is not allowed in YAML"
        raise SpecError([_diagnostic(text, path, span, "encoding", message)])
    return text


def _utf8(content: bytes, path: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        span = Span(content.count(b"\n", 0, fault.start), 0)
        message = f"byte {content[fault.start]:#04x} is not UTF-8"
        raise SpecError([Diagnostic(path, span, "encoding", message)]) from None


def _span(event: Any) -> Span:
    start, end = event.start_mark, event.end_mark
    width = end.column - start.column if end.line == start.line else 1
    return Span(start.line, start.column, max(1, width))


def _diagnostic(text: str | list[str], path: str, span: Span, code: str, message: str) -> Diagnostic:
    """Return a diagnostic with its line, from a text or from its lines."""
    lines = _BREAK.split(text, maxsplit=span.line + 1) if isinstance(text, str) else text
    line = lines[span.line] if span.line < len(lines) else ""
    if len(line) <= 200:
        return Diagnostic(path, span, code, message, line)
    return Diagnostic(path, span, code, message)  # no excerpt of a line that no person wrote


def format_value(value: object) -> str:
    """Return a value of a spec as short printable text for a message."""
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    text = f"'{value}'" if isinstance(value, str) else f"{value}"
    return printable(text if len(text) <= 60 else text[:57] + "...")


# What CI runners take for commands: a line that starts with `::` (GitHub), `##[` or `##vso[` anywhere (GitHub, Azure).
_COMMAND = re.compile(r"(?<![^\s]):(?=:)|#(?=#\w*\[)")


def printable(text: str) -> str:
    """Return a text with control characters, and what CI runners take for commands, as escape sequences."""
    text = "".join(c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in text)
    return _COMMAND.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def printable_lines(text: str) -> str:
    """Return a text of several lines, each as `printable` returns it."""
    return "\n".join(map(printable, text.split("\n")))


def _columns(text: str) -> int:
    import unicodedata

    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def first_diagnostics(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Return the first MAX_DIAGNOSTICS diagnostics and, if there are more, one that says so."""
    found = list(islice(diagnostics, MAX_DIAGNOSTICS + 1))
    if len(found) > MAX_DIAGNOSTICS:
        message = f"more than {MAX_DIAGNOSTICS:,} errors or warnings: the others are not shown"
        found[-1] = replace(found[-1], code="too-large", message=message, allowed="")
    return found


_compared = 0  # words, since the last spec was read


def did_you_mean(word: Any, words: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest of `words`, or an empty string if none is near.

    Nothing is suggested any more after MAX_COMPARISONS for one spec.
    """
    import difflib

    global _compared
    candidates = list(words)[-1000:]
    _compared += len(candidates)
    if _compared > MAX_COMPARISONS:
        return ""
    found = difflib.get_close_matches(str(word)[:64], candidates, n=1)
    return f"; did you mean {format_value(found[0])}?" if found else ""


def listed(words: Iterable[str]) -> str:
    """Return words as text, separated by commas; of more than a hundred, the first."""
    found = list(islice(words, 101))
    return ", ".join(found if len(found) <= 100 else [*found[:100], "..."])
