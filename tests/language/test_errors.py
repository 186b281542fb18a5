"""Diagnostics of specs with errors: each spec of tests/data/errors has its expected diagnostics beside it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import get_args

import pytest
import yaml
from helpers import DATA

import archspec
from archspec.language import source as module
from archspec.language.diagnostics import codes as pages
from archspec.language.ops.base import Lint

CHECKED = {
    "false-claim",
    "over-budget",
    "unknown-spec",
}  # by `check`, of specs that load: see test_published_networks.py
ERRORS = sorted((DATA / "errors").glob("*.yaml"))


@pytest.mark.parametrize("parser", [yaml.CLoader, yaml.Loader], ids=["libyaml", "python"])
@pytest.mark.parametrize("path", ERRORS, ids=lambda path: path.stem)
def test_diagnostics_of_a_spec_with_errors(path: Path, parser: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """The diagnostics are those of the .txt file beside the spec, with either YAML parser.

    `ARCHSPEC_GOLDEN=1 pytest tests/language/test_errors.py` writes the .txt files again; read the diff.
    """
    monkeypatch.setattr(module, "Parser", parser)
    with pytest.raises(archspec.SpecError) as caught:
        archspec.load(path)
    diagnostics = f"{caught.value}\n".replace(f"{path.parent}{os.sep}", "")
    golden = path.with_suffix(".txt")
    if os.environ.get("ARCHSPEC_GOLDEN"):
        golden.write_text(diagnostics, encoding="utf-8")

    assert diagnostics == golden.read_text(encoding="utf-8")
    assert re.fullmatch("[a-z0-9_]+", path.stem)


def test_every_code_has_a_spec_that_raises_it() -> None:
    """Every code in the source has a page and a spec in tests/data/errors, but for size, encoding and targets."""
    code_in_source = re.compile(
        r'(?:fail|\.error|_error|error_inside|ExpressionError|ShapeError|CustomError|ValueError|_diagnostic)\(\s*(?:\w+, )*?"([a-z]+(?:-[a-z0-9]+)*)"'
    )
    sources = "".join(p.read_text() for p in Path(archspec.__file__).parent.rglob("*.py"))
    codes = set(code_in_source.findall(sources))
    raised = set(re.findall(r"error\[([a-z-]+)\]", "".join(p.with_suffix(".txt").read_text() for p in ERRORS)))

    assert {"unknown-key", "groups", "window", "reserved-name", "duplicate-key"} <= codes & raised
    assert codes - raised <= {"too-large", "encoding", "directive", "unsupported-by-target", *CHECKED}
    computed = {
        "anchor",
        "tag",
        "unknown-op",
        "unknown-optimizer",
        "unknown-rule",
        "unknown-schedule",
        "unknown-transform",
    }
    assert codes | computed | set(get_args(Lint)) | {"unused-allow"} == set(pages())
