"""What an author is told: every file of bad/ has its diagnostics beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import pytest
import yaml

import archspec
from archspec import source as module
from archspec.diagnostics import codes as pages
from archspec.ops.base import Lint

CHECKED = {"false-claim", "unknown-spec"}  # by `check`, of specs that load: test_family.py has them
BAD = sorted((Path(__file__).parent / "bad").glob("*.yaml"))


@pytest.mark.parametrize("parser", [yaml.CLoader, yaml.Loader], ids=["libyaml", "python"])
@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_spec_is_told_its_faults(path: Path, parser: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """The diagnostics are those of the .txt beside the spec, whichever parser reads it.

    `ARCHSPEC_GOLDEN=1 pytest tests/test_errors.py` writes them anew: read the diff.
    """
    monkeypatch.setattr(module, "Parser", parser)
    with pytest.raises(archspec.SpecError) as caught:
        archspec.load(path)
    told = f"{caught.value}\n".replace(f"{path.parent}{os.sep}", "")
    golden = path.with_suffix(".txt")
    if os.environ.get("ARCHSPEC_GOLDEN"):
        golden.write_text(told, encoding="utf-8")

    assert told == golden.read_text(encoding="utf-8")
    assert path.stem.split("-")[0] == path.stem  # names are words, as codes are kebabs


def test_every_code_has_a_bad_spec() -> None:
    """No error can be raised that no file shows, but for those about size, encoding and targets; each has its page."""
    import re

    code_in_source = re.compile(
        r'(?:fail|\.error|ShapeError|CustomError|ValueError|_diagnostic)\(\s*(?:\w+, )*?"([a-z]+(?:-[a-z0-9]+)*)"'
    )
    sources = "".join(p.read_text() for p in Path(archspec.__file__).parent.rglob("*.py"))
    codes = set(code_in_source.findall(sources))
    shown = set(re.findall(r"error\[([a-z-]+)\]", "".join(p.with_suffix(".txt").read_text() for p in BAD)))

    assert {"unknown-key", "groups", "window", "reserved-name", "duplicate-key"} <= codes & shown
    assert codes - shown <= {"too-large", "encoding", "directive", "no-spelling", *CHECKED}
    otherwise = {
        "anchor",
        "tag",
        "unknown-op",
        "unknown-optimizer",
        "unknown-rule",
        "unknown-schedule",
        "unknown-transform",
    }
    assert codes | otherwise | set(get_args(Lint)) | {"unused-allow"} == set(pages())
