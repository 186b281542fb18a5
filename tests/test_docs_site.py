"""The documentation site: pages from the code for every name of the language, and links that lead somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath
from posixpath import normpath

import pytest
import yaml
from helpers import ROOT

import archspec
from archspec.analysis.conventions import CONVENTIONS
from archspec.language import reference
from archspec.language.diagnostics import codes
from archspec.language.ops import OPS

sys.path.insert(0, str(ROOT / "scripts"))
import docs_site

RECIPES = {"Optimizers": "optimizers", "Schedules": "schedules", "Transforms": "transforms"}


@pytest.mark.parametrize(("section", "name"), [(s, name) for s in RECIPES for name in reference.SECTIONS[s]])
def test_the_example_of_a_name_has_it(section: str, name: str) -> None:
    """The spec on the page of an optimizer, a schedule or a transform is valid, and its recipe has it."""
    graph = archspec.loads(docs_site.example(section, name))

    assert re.search(rf"(optimizer|schedule|transform)='{name}'", str(graph.spec.training))


def test_traps_are_of_names_and_have_an_issue() -> None:
    """Every key of docs/traps.yaml has a page, and every trap the address of a discussion."""
    assert set(docs_site.TRAPS) <= set(OPS) | set(reference.SECTIONS["Optimizers"])
    for name, traps in docs_site.TRAPS.items():
        for trap in traps:
            assert re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", trap["issue"]), name
            assert trap["trap"].endswith(".")


@pytest.mark.parametrize(
    "path", ["README.md", "specs/README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_the_links_of_a_moved_page_stay_in_the_site(path: str) -> None:
    """They lead to pages of docs/ or to generated ones, as Markdown files or drawings; other files are plain text."""
    here = PurePosixPath(str(docs_site.place(path))).parent
    for target in re.findall(r"\]\(([^)\s#]+)", docs_site.moved(path)):
        if "://" in target:
            continue
        page = normpath(str(here / target))
        generated = re.fullmatch(r"networks/(\w+)\.(md|svg)", page)
        assert (
            (generated and generated[1] in {*docs_site.SPECS, "index"})
            or page in docs_site.MOVED.values()
            or (ROOT / "docs" / page).is_file()
        ), target


def test_text_of_a_spec_is_plain_in_markdown() -> None:
    """No character of it is markup."""
    shown = docs_site.plain("<b>*a*</b> [x](http://y) | `c` &amp; _d_ $e$\n# f")

    assert not re.search(r"[<>*\[\]|`_$:]", shown)
    assert "\n" not in shown


def test_the_navigation_has_every_page_of_docs() -> None:
    """A new page of docs/ has a place in mkdocs.yml."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    shown = set(re.findall(r"[\w/-]+\.md", str(config["nav"])))

    assert {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")} <= shown
    assert config["theme"]["font"] is False


@pytest.mark.slow
def test_the_site_is_built_without_warnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name has a page, every link and heading that is linked to exists, and nothing is loaded from elsewhere."""
    pytest.importorskip("zensical")
    monkeypatch.setattr(docs_site, "OUT", tmp_path / "build" / "docs")
    docs_site.main()
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    pages = {p.relative_to(docs_site.OUT).with_suffix("").as_posix() for p in docs_site.OUT.rglob("*.md")}
    for folder, names in (
        ("ops", OPS),
        ("codes", codes()),
        ("conventions", CONVENTIONS),
        ("networks", docs_site.SPECS),
    ):
        assert {f"{folder}/{name}" for name in names} <= pages
    for section, folder in {**RECIPES, "Initializers": "initializers"}.items():
        assert {f"{folder}/{name}" for name in reference.SECTIONS[section]} <= pages
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "No issues found" in run.stdout + run.stderr
    loaded = re.compile(
        r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?(?:https?:)?//|<link\b[^>]*rel=\"?(?:stylesheet|preconnect)[^>]*href=\"?(?:https?:)?//"
    )
    built = list((tmp_path / "build" / "site").rglob("*.html"))
    assert len(built) >= len(pages)
    assert [path for path in built if loaded.search(path.read_text())] == []
