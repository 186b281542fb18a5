"""The page of every code, diagnostics as JSON, SARIF and GitHub annotations, and the JSON Schema."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from helpers import DATA, OP_SPECS, ROOT, SPECS
from test_errors import ERRORS

import archspec
from archspec.language.diagnostics import as_github, as_json, as_sarif, codes, page
from archspec.language.schema import text
from archspec.language.source import Diagnostic, Source, Span
from archspec.targets import TARGETS, model_source

ERROR = Diagnostic("a b/net.yaml", Span(4, 8, 3), "window", "50 % of it,\nor: less", "")
ALLOWED = Diagnostic("net.yaml", Span(0, 0, 1), "uncovered-rows", "one row", "", "warning", "as in the book")


def reported_codes(text: str, folder: Path) -> list[str]:
    """Return the codes that `check` and `generate` report for a spec in a folder with lenet.yaml."""
    shutil.copy(ROOT / "specs" / "lenet.yaml", folder)
    path = folder / "net.yaml"
    path.write_text(text.replace("\u2407", "\x07"), encoding="utf-8")
    try:
        graph = archspec.load(path)
        diagnostics = list(archspec.check(graph).diagnostics)
        opaque = any(node.op.is_opaque for node in graph.nodes)
        for target in () if opaque else TARGETS.values():  # what is only counted has no code
            model_source(graph, target)
    except archspec.SpecError as error:
        return [d.code for d in error.diagnostics]
    return [d.code for d in diagnostics if not d.allowed]


@pytest.mark.parametrize("code", codes())
def test_the_examples_of_a_code_are_wrong_and_right(code: str, tmp_path: Path) -> None:
    """The wrong example on a code's page has that code only; the right one has no diagnostics."""
    wrong, right = re.findall("```yaml\n(.*?)```", page(code), re.DOTALL)

    assert page(code).startswith(f"# {code}\n\n")
    assert set(reported_codes(wrong, tmp_path)) == {code}
    assert reported_codes(right, tmp_path) == []


def test_github_annotations_are_escaped() -> None:
    """Escaped as in GitHub's toolkit (actions/toolkit, command.ts); allowed warnings are left out."""
    assert as_github([ERROR, ALLOWED]) == (
        "::error file=a b/net.yaml,line=5,col=9,endColumn=12,title=archspec window::50 %25 of it,%0Aor: less"
    )
    assert as_github([Diagnostic("a,b:c.yaml", Span(0, 0), "groups", "m", "", "warning")]) == (
        "::warning file=a%2Cb%3Ac.yaml,line=1,col=1,endColumn=2,title=archspec groups::m"
    )


def test_json_diagnostics_count_from_1() -> None:
    """Lines and columns count from 1; an allowed warning has its reason."""
    first, second = json.loads(as_json([ERROR, ALLOWED]))["diagnostics"]

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


@pytest.mark.parametrize("diagnostics", [[], [ERROR], [ALLOWED, ERROR, ERROR]], ids=["none", "one", "three"])
def test_sarif_is_valid(diagnostics: list[Diagnostic]) -> None:
    """By OASIS's schema of 2.1.0 (tests/data/schemas, from npm's @microsoft/sarif-multitool-linux 5.7.0, errata 01)."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((DATA / "schemas" / "sarif-2.1.0.json").read_text(encoding="utf-8-sig"))
    made = json.loads(as_sarif(diagnostics))
    validator = jsonschema.validators.validator_for(schema)(schema)

    assert list(validator.iter_errors(made)) == []
    assert [result["ruleId"] for result in made["runs"][0]["results"]] == [d.code for d in diagnostics]
    if diagnostics == [ERROR]:
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


def test_the_committed_schema_is_up_to_date() -> None:
    """`archspec schema -o specs/schema.json` writes it; the first line of each spec names it for editors."""
    assert (ROOT / "specs" / "schema.json").read_text() == text()
    for path in SPECS + OP_SPECS:
        first = path.read_text().partition("\n")[0]
        named = first.removeprefix("# yaml-language-server: $schema=")
        assert (path.parent / named).resolve() == ROOT / "specs" / "schema.json", path


# Errors that a JSON Schema cannot express: between two layers, of a shape, or of the text itself.
NOT_IN_SCHEMA = {
    "alias", "ambiguous-number", "anchor", "claim", "directive", "duplicate-key", "duplicate-name", "encoding",
    "even-size", "groups", "images", "inputs", "unsupported-by-target", "not-flat", "not-maps",
    "no-gradient", "not-scores", "not-tokens", "nothing-to-train", "number", "padding",
    "reserved-name", "sections", "shapes", "syntax", "tag", "too-deep", "too-large", "two-documents", "unknown-layer",
    "window",
}  # fmt: skip


def test_the_schema_accepts_valid_specs_and_rejects_others() -> None:
    """Every spec here is valid by the schema; a spec with an error that a schema can express is not."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for path in SPECS + OP_SPECS:
        assert list(validator.iter_errors(Source.read(path).data)) == [], path
    seen = set()
    for path in ERRORS:
        if path.stem.startswith(("block_", "expressions")):
            continue  # a schema knows neither attributes nor their values
        in_text = set(re.findall(r"error\[([a-z-]+)\]", path.with_suffix(".txt").read_text()))
        try:
            data = Source.read(path).data
        except archspec.SpecError:
            continue  # no data
        expressible = in_text - NOT_IN_SCHEMA
        assert bool(list(validator.iter_errors(data))) or not expressible, (path, expressible)
        seen |= expressible

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
    """An editor shows an op's docstring as its description."""
    layer = json.loads(text())["properties"]["layers"]["items"]["properties"]["op"]
    ops = layer["anyOf"][0]
    of_conv = ops["enumDescriptions"][ops["enum"].index("conv2d")]

    assert of_conv.startswith(
        "y[o] = bias[o] + sum over i of weight[o, i] cross-correlated with x[i], as torch.nn.Conv2d."
    )
