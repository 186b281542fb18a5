"""Settings and fixtures of all tests."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import pytest
from helpers import TARGETS
from helpers.verification import CachedWorkers
from hypothesis import settings

from archspec.verification import Workers

# Two tests run at once, each with processes of its own: threads that wait do not spin, TensorFlow has one, and XLA's
# compiler is the quickest. PyTorch keeps its threads: with one, 2.14.1 corrupts memory in the backward pass of
# nn.Conv2d(4, 6, 1, stride=2) on channels-last images.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

# A slow machine is no failure, and a run can be repeated.
settings.register_profile("archspec", deadline=None, derandomize=True)
settings.load_profile("archspec")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse to run where xdist ignores the groups of `--dist loadgroup`, as 3.8 does with pytest 9.2.

    Every process would then make the fixtures of every group.
    """
    if getattr(session.config.option, "loadgroup", False):
        for item in session.items:
            if item.get_closest_marker("xdist_group") and "@" not in item.nodeid:
                raise pytest.UsageError(f"this pytest-xdist ignores the group of {item.nodeid}")


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
