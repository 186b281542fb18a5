"""The page of every code, what other readers than a terminal's are given, and the schema of the language."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import OP_SPECS, ROOT, SPECS
from test_errors import BAD

import archspec
from archspec import claims, emit
from archspec.diagnostics import as_github, as_json, as_sarif, codes, page
from archspec.lint import lints
from archspec.schema import text
from archspec.source import Diagnostic, Source, Span

ONE = Diagnostic("a b/net.yaml", Span(4, 8, 3), "window", "50 % of it,\nor: less", "")
ALLOWED = Diagnostic("net.yaml", Span(0, 0, 1), "uncovered-rows", "one row", "", "warning", "as in the book")


def found(text: str, folder: Path) -> list[str]:
    """Return the codes that check and generate tell of a spec that stands beside lenet.yaml."""
    shutil.copy(ROOT / "specs" / "lenet.yaml", folder)
    path = folder / "net.yaml"
    path.write_text(text.replace("\u2407", "\x07"), encoding="utf-8")
    try:
        graph = archspec.load(path)
        told = lints(graph) + list(claims.faults(graph, claims.verdicts(graph)))
        for target in emit.TARGETS:
            emit.files(graph, target)
    except archspec.SpecError as error:
        return [d.code for d in error.diagnostics]
    return [d.code for d in told if not d.allowed]


@pytest.mark.parametrize("code", codes())
def test_a_codes_examples_are_wrong_and_right(code: str, tmp_path: Path) -> None:
    """The wrong example has that fault and no other; the right one has none, and is told nothing."""
    wrong, right = re.findall("```yaml\n(.*?)```", page(code), re.DOTALL)

    assert page(code).startswith(f"# {code}\n\n")
    assert set(found(wrong, tmp_path)) == {code}
    assert found(right, tmp_path) == []


def test_a_github_annotation_cannot_be_broken_out_of() -> None:
    """Escaped as GitHub's toolkit escapes (actions/toolkit, command.ts); what is allowed is not annotated."""
    assert as_github([ONE, ALLOWED]) == (
        "::error file=a b/net.yaml,line=5,col=9,endColumn=12,title=archspec window::50 %25 of it,%0Aor: less"
    )
    assert as_github([Diagnostic("a,b:c.yaml", Span(0, 0), "groups", "m", "", "warning")]) == (
        "::warning file=a%2Cb%3Ac.yaml,line=1,col=1,endColumn=2,title=archspec groups::m"
    )


def test_diagnostics_as_data_count_from_1() -> None:
    """Every part of a diagnostic is there under its own key."""
    first, second = json.loads(as_json([ONE, ALLOWED]))["diagnostics"]

    assert first == {
        "path": "a b/net.yaml",
        "line": 5,
        "column": 9,
        "end_column": 12,
        "severity": "error",
        "code": "window",
        "message": "50 % of it,\nor: less",
    }
    assert second["allowed"] == "as in the book"


@pytest.mark.parametrize("diagnostics", [[], [ONE], [ALLOWED, ONE, ONE]], ids=["none", "one", "three"])
def test_sarif_is_valid(diagnostics: list[Diagnostic]) -> None:
    """By OASIS's schema of 2.1.0 (tests/schemas, from npm's @microsoft/sarif-multitool-linux 5.7.0, errata 01)."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((ROOT / "tests" / "schemas" / "sarif-2.1.0.json").read_text(encoding="utf-8-sig"))
    made = json.loads(as_sarif(diagnostics))
    validator = jsonschema.validators.validator_for(schema)(schema)

    assert list(validator.iter_errors(made)) == []
    assert [result["ruleId"] for result in made["runs"][0]["results"]] == [d.code for d in diagnostics]
    if diagnostics == [ONE]:
        (result,) = made["runs"][0]["results"]
        place = result["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "a%20b/net.yaml"
        assert place["region"] == {"startLine": 5, "startColumn": 9, "endColumn": 12}
        broken = {**made, "runs": [{**made["runs"][0], "results": [{**result, "level": "fatal"}]}]}
        assert list(validator.iter_errors(broken))
    if ALLOWED in diagnostics:
        assert made["runs"][0]["results"][0]["suppressions"] == [
            {"kind": "inSource", "justification": "as in the book"}
        ]


def test_the_committed_schema_is_the_languages() -> None:
    """`archspec schema -o specs/schema.json` writes it anew; editors find it by the first line of each spec."""
    assert (ROOT / "specs" / "schema.json").read_text() == text()
    for path in SPECS + OP_SPECS:
        first = path.read_text().partition("\n")[0]
        named = first.removeprefix("# yaml-language-server: $schema=")
        assert (path.parent / named).resolve() == ROOT / "specs" / "schema.json", path


# Faults that cannot be seen without reading another place, or the text itself: two layers, a shape, a number's spelling.
OUT_OF_SIGHT = {
    "alias", "ambiguous-number", "anchor", "claim", "directive", "duplicate-key", "duplicate-name", "encoding",
    "even-size", "groups", "images", "inputs", "no-spelling", "not-flat", "not-maps", "nothing-to-train", "number", "padding",
    "reserved-name", "sections", "shapes", "syntax", "tag", "too-deep", "too-large", "two-documents", "unknown-layer",
    "window",
}  # fmt: skip


def test_the_schema_tells_good_specs_from_bad() -> None:
    """Every spec of the house is valid, and so is its schema; a fault of one place's wording is one of the schema's too."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for path in SPECS + OP_SPECS:
        assert list(validator.iter_errors(Source.read(path).data)) == [], path
    seen = set()
    for path in BAD:
        in_text = set(re.findall(r"error\[([a-z-]+)\]", path.with_suffix(".txt").read_text()))
        try:
            data = Source.read(path).data
        except archspec.SpecError:
            continue  # no data
        in_sight = in_text - OUT_OF_SIGHT
        assert bool(list(validator.iter_errors(data))) or not in_sight, (path, in_sight)
        seen |= in_sight

    assert {
        "unknown-key",
        "missing-key",
        "wrong-type",
        "wrong-value",
        "out-of-range",
        "unknown-op",
        "unknown-rule",
    } <= seen


def test_the_schema_has_the_docstrings() -> None:
    """What an editor shows of an op is the op's own docstring."""
    layer = json.loads(text())["properties"]["layers"]["items"]["properties"]["op"]
    of_conv = layer["enumDescriptions"][layer["enum"].index("conv2d")]

    assert of_conv.startswith(
        "y[o] = bias[o] + sum over i of weight[o, i] cross-correlated with x[i], as torch.nn.Conv2d."
    )
