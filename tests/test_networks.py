"""Random networks over the whole language: torch, Keras and NumPy must agree on every one."""

from __future__ import annotations

import json
import os
import zlib
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, note, seed, settings
from networks import networks
from test_ops import OPS

import archspec
from archspec.source import Source, SpecError
from archspec.verify import CHECKS, QUICK, Workers, verify

# ARCHSPEC_NETWORKS=5000 pytest tests/test_networks.py -k agree draws that many, and others in every run.
COUNT = int(os.environ.get("ARCHSPEC_NETWORKS", "100"))


PARTS = 4  # which can run side by side


@pytest.mark.frameworks
@pytest.mark.parametrize("part", range(PARTS))
def test_all_targets_agree_on_random_networks(part: int, workers: Workers) -> None:
    """Structure, outputs and gradients of each; of every eighth, the draws, the training and the initial weights too."""

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
        graph = archspec.build(Source.parse(text, "drawn.yaml"))
        whole = zlib.crc32(text.encode()) % 8 == 0
        try:
            evidence = verify(graph, workers, batch=3, steps=6, checks=CHECKS if whole else QUICK, dtypes=("float64",))
        except SpecError as refusal:
            assume(refusal.diagnostics[0].code != "no-spelling")
            raise
        assert not evidence.failures, evidence.failures
        assert evidence.first is None or evidence.first.fault == "is all zeros: nothing could be seen", evidence.first

    (agree if "ARCHSPEC_NETWORKS" in os.environ else seed(part)(agree))()


def test_every_op_is_drawn() -> None:
    """The drawn networks are specs, and have all of the language in them."""
    seen: set[str] = set()

    @settings(max_examples=COUNT, suppress_health_check=list(HealthCheck), database=None)
    @given(content=networks())
    def draw(content: dict[str, Any]) -> None:
        graph = archspec.build(Source.parse(json.dumps(content), "drawn.yaml"))
        seen.update(node.op.op for node in graph.nodes)

    draw()
    assert seen == set(OPS)
