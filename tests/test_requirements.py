"""`requirements/`, written by `make lock`: what CI and the Makefile install, with the hashes of its files."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from helpers import ROOT
from packaging.requirements import Requirement

LOCKS = ROOT / "requirements"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def locked(path: Path) -> dict[str, tuple[str, int]]:
    """Return the version of each package of a file, and how many hashes it has."""
    packages = {}
    for block in re.split(r"\n(?=[a-z])", path.read_text().split("\n", 2)[2]):
        first, *hashes = block.replace("\\\n", "\n").splitlines()
        name, version = re.fullmatch(r"([a-z0-9.-]+)==([^ ;]+)(?: ;.*)?", first.strip()).groups()
        assert all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64} *", line) for line in hashes), block
        packages[name] = (version, len(hashes))
    return packages


def needed(name: str) -> list[str]:
    """Return the requirements that a file has to meet."""
    groups = PROJECT["dependency-groups"]
    if name == "release":
        return groups["release"]
    extras = [one for all_of in PROJECT["project"]["optional-dependencies"].values() for one in all_of]
    return PROJECT["project"]["dependencies"] + groups["install"] + (extras if name == "all" else [])


@pytest.mark.parametrize("name", ["core", "all", "release"])
def test_every_requirement_is_locked_with_hashes(name: str) -> None:
    """Each dependency in pyproject.toml has a version that meets it, and every package at least one hash."""
    packages = locked(LOCKS / f"{name}.txt")
    missing = []
    for text in needed(name):
        one = Requirement(text)
        key = re.sub(r"[-_.]+", "-", one.name).lower()
        if key != PROJECT["project"]["name"] and (key not in packages or not one.specifier.contains(packages[key][0])):
            missing.append(text)

    assert missing == []
    assert [package for package, (_, hashes) in packages.items() if not hashes] == []


def test_the_files_agree_on_versions_and_the_build_backend() -> None:
    """A package has one version and the same hashes in every file; hatchling's is that of the build."""
    everything = locked(LOCKS / "all.txt")
    for name in ("core", "release"):
        packages = locked(LOCKS / f"{name}.txt")
        assert {key: found for key, found in packages.items() if everything.get(key, found) != found} == {}
    (backend,) = PROJECT["build-system"]["requires"]
    assert backend == f"hatchling=={everything['hatchling'][0]}"
