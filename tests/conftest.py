"""What several tests share: where things are, and the targets' processes."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from archspec.source import Source
from archspec.verify import Workers

# A slow machine is no failure, and a run can be repeated.
settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")

ROOT = Path(__file__).parent.parent
SPECS = sorted((ROOT / "specs").glob("*.yaml"))
OP_SPECS = sorted((ROOT / "specs" / "ops").glob("*.yaml"))
FOUND = sorted((ROOT / "tests" / "found").glob("*.yaml"))  # what once went wrong, a spec each
TARGETS = ("numpy", "torch", "keras")  # NumPy's plain text is the reference of the others
FRAMEWORKS = ("torch", "keras")


def spec(layers: str, size: str = "{channels: 6, height: 9, width: 7}", head: str = "") -> Source:
    """Return a spec of the given layers, one a line."""
    lines = "".join(f"  - {line.strip()}\n" for line in layers.strip().splitlines())
    return Source.parse(f"archspec: 1\nname: net\ninput: {size}\n{head}\nlayers:\n{lines}", "net.yaml")


@pytest.fixture(scope="session")
def workers() -> Iterator[Workers]:
    """The processes of NumPy, PyTorch and Keras, started once."""
    for name in ("torch", "keras", "tensorflow"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    with Workers(TARGETS, timeout=200) as running:
        yield running


@pytest.fixture
def archspec_command() -> list[str]:
    """The command, as a process of its own."""
    return [sys.executable, "-m", "archspec"]
