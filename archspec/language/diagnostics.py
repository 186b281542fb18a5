"""Diagnostics as JSON, SARIF and GitHub annotations, and the page of every code."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from archspec.language.source import Diagnostic, Span

_PAGES = Path(__file__).parent / "codes"


@cache
def codes() -> list[str]:
    """Return all codes of diagnostics."""
    return sorted(path.stem for path in _PAGES.glob("*.md"))


def page(code: str) -> str:
    """Return the page of a code, with a wrong and a right example, as Markdown; raise KeyError for an unknown one."""
    if code not in codes():
        raise KeyError(code)
    return (_PAGES / f"{code}.md").read_text(encoding="utf-8")


def summary(code: str) -> str:
    """Return the first sentence of the page of a code."""
    text = " ".join(page(code).split("\n\n")[1].split())
    return text.partition(". ")[0].rstrip(".") + "."


def json_text(data: object) -> str:
    """Return data as JSON, with the strings that CI runners take for commands (`##[`) escaped."""
    return re.sub(r"#(?=#\w*\[)", r"\\u0023", json.dumps(data, indent=2))


def as_json(diagnostics: Sequence[Diagnostic]) -> str:
    """Return diagnostics as JSON; lines and columns count from 1, and `end_column` is exclusive."""
    return json_text({"diagnostics": [as_data(d) for d in diagnostics]})


def as_data(d: Diagnostic) -> dict[str, Any]:
    """Return a diagnostic as plain data; lines and columns count from 1, and `end_column` is exclusive."""
    line, column, width = d.span
    fact = {
        "path": d.path,
        "line": line + 1,
        "column": column + 1,
        "end_column": column + 1 + width,
        "severity": d.severity,
        "code": d.code,
        "message": d.message,
    }
    related = [{"line": span.line + 1, "column": span.column + 1, "message": message} for span, message in d.related]
    return {**fact, **({"allowed": d.allowed} if d.allowed else {}), **({"related": related} if related else {})}


def as_github(diagnostics: Sequence[Diagnostic]) -> str:
    """Return diagnostics as GitHub workflow commands, which annotate the lines of a pull request."""
    return "\n".join(_command(d) for d in diagnostics if not d.allowed)


def _command(d: Diagnostic) -> str:
    line, column, width = d.span
    place = {
        "file": d.path,
        "line": line + 1,
        "col": column + 1,
        "endColumn": column + 1 + width,
        "title": f"archspec {d.code}",
    }
    properties = ",".join(f"{key}={_escaped(str(value), property=True)}" for key, value in place.items())
    uses = "".join(f"\n{d.path}:{span.line + 1}: {message}" for span, message in d.related)
    return f"::{d.severity} {properties}::{_escaped(d.message + uses)}"


def _escaped(text: str, *, property: bool = False) -> str:
    """Return a text escaped for a workflow command, as in GitHub's toolkit (command.ts)."""
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if property else text


def as_sarif(diagnostics: Sequence[Diagnostic]) -> str:
    """Return diagnostics as SARIF 2.1.0 (OASIS, 2020), with the pages of their codes; allowed ones are suppressed."""
    from archspec import __version__

    rules = sorted({d.code for d in diagnostics})
    driver = {
        "name": "archspec",
        "version": __version__,
        "rules": [_rule(code) for code in rules],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(d, rules.index(d.code)) for d in diagnostics],
    }
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return json_text({"$schema": schema, "version": "2.1.0", "runs": [run]})


def _rule(code: str) -> dict[str, Any]:
    text = page(code)
    return {
        "id": code,
        "shortDescription": {"text": " ".join(text.split("\n\n")[1].split())},
        "help": {"text": text, "markdown": text},
    }


def _result(d: Diagnostic, rule: int) -> dict[str, Any]:
    from urllib.parse import quote

    def location(span: Span) -> dict[str, Any]:
        line, column, width = span
        region = {"startLine": line + 1, "startColumn": column + 1, "endColumn": column + 1 + width}
        return {"artifactLocation": {"uri": quote(os.fsencode(Path(d.path).as_posix()))}, "region": region}

    result: dict[str, Any] = {
        "ruleId": d.code,
        "ruleIndex": rule,
        "level": d.severity,
        "message": {"text": d.message},
        "locations": [{"physicalLocation": location(d.span)}],
    }
    if d.related:
        result["relatedLocations"] = [
            {"physicalLocation": location(span), "message": {"text": message}} for span, message in d.related
        ]
    if d.allowed:
        result["suppressions"] = [{"kind": "inSource", "justification": d.allowed}]
    return result
