"""Random networks over the whole language: PyTorch, Keras and NumPy must agree on every one."""

from __future__ import annotations

import json
import os
import zlib
from typing import Any

import pytest
from helpers.random_networks import networks
from hypothesis import HealthCheck, assume, given, note, seed, settings

from archspec.graph import build
from archspec.language.ops import OPS
from archspec.language.source import Source, SpecError
from archspec.verification import CHECKS, QUICK, Workers, verify

# `ARCHSPEC_NETWORKS=5000 pytest tests/verification/test_random_networks.py -k agree` draws as many, others in each run.
COUNT = int(os.environ.get("ARCHSPEC_NETWORKS", "40"))
PARTS = 4  # so that a failure ends a quarter of them


@pytest.mark.frameworks
@pytest.mark.xdist_group("workers")
@pytest.mark.parametrize(
    "part", [pytest.param(part, marks=pytest.mark.zoo if part else pytest.mark.slow) for part in range(PARTS)]
)
def test_all_targets_agree_on_random_networks(part: int, workers: Workers) -> None:
    """Structure, outputs and gradients of each; all checks of every eighth."""

    @settings(
        max_examples=COUNT // PARTS,
        derandomize=False,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        print_blob=True,
    )
    @given(content=networks())
    def agree(content: dict[str, Any]) -> None:
        text = json.dumps(content)
        note(text)
        graph = build(Source.parse(text, "drawn.yaml"))
        checks = tuple(CHECKS) if zlib.crc32(text.encode()) % 8 == 0 else QUICK
        try:
            evidence = verify(graph, workers, batch=3, steps=6, checks=checks, dtypes=("float64",))
        except SpecError as error:
            assume(error.diagnostics[0].code != "unsupported-by-target")
            raise
        assert not evidence.failures, evidence.failures
        first = evidence.first
        assert first is None or first.problem == "is zero everywhere: nothing was compared", first

    (agree if "ARCHSPEC_NETWORKS" in os.environ else seed(part)(agree))()


@pytest.mark.slow
def test_every_op_is_drawn() -> None:
    """The random networks are valid specs, and use every op of the language."""
    drawn: set[str] = set()

    @seed(0)
    @settings(max_examples=12 * COUNT, suppress_health_check=list(HealthCheck), database=None)
    @given(content=networks())
    def draw(content: dict[str, Any]) -> None:
        graph = build(Source.parse(json.dumps(content), "drawn.yaml"))
        drawn.update(node.op.op for node in graph.nodes)

    draw()
    assert drawn == {name for name, op in OPS.items() if not op.is_opaque}
