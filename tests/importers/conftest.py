"""Imports in the process of the tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from archspec import importers
from archspec.importers import process
from archspec.workers import torch_import


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer requests in this process, where PyTorch is imported once."""
    pytest.importorskip("torch")

    def ask(worker: str, request: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        jobs = {"capture": torch_import.capture, "prove": torch_import.prove}
        try:
            return jobs[request["job"]](dict(request))
        except torch_import.SourceError as error:
            raise importers.ImportFailedError(error.args[0]) from None

    monkeypatch.setattr(process, "ask", ask)
