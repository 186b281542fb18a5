"""Settings and fixtures of all tests."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest
from helpers import TARGETS
from helpers.verification import CachedWorkers
from hypothesis import settings

from archspec.verification import Workers

# A slow machine is no failure, and a run can be repeated.
settings.register_profile("archspec", deadline=None, derandomize=True)
settings.load_profile("archspec")


@pytest.fixture(scope="session")
def workers() -> Iterator[Workers]:
    """The worker processes of NumPy, PyTorch and Keras, started once."""
    for name in ("torch", "keras", "tensorflow"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    with Workers(TARGETS, timeout=200) as running:
        yield running


@pytest.fixture(scope="session")
def cached_workers(workers: Workers) -> CachedWorkers:
    """The same processes, which do each job on the same files and inputs only once."""
    return CachedWorkers(workers)
