"""What the tests of the verification share: a small network, generated files on disk, and remembered jobs."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

from archspec.files import write, write_tensors
from archspec.graph import Graph
from archspec.targets import TARGETS, files, target_of
from archspec.verification import Workers
from helpers import DATA, network

NETS = DATA / "mutants" / "nets"  # one that uses most of the language, and one for each of the other optimizers
NET = NETS / "net.yaml"

# Every op that reads feature maps or joins branches, in a network that is verified in seconds.
SMALL = """
    {name: conv1, op: conv2d, out_channels: 8, kernel_size: 5, stride: 2, padding: 2}
    {name: relu1, op: relu}
    {name: norm1, op: local_response_norm, size: 5, alpha: 1e-4, beta: 0.75, k: 2, groups: 2}
    {name: pool1, op: max_pool2d, kernel_size: 3, stride: 2, ceil_mode: true}
    {name: conv2, op: conv2d, out_channels: 12, kernel_size: 3, padding: {top: 1, left: 2}, groups: 2}
    {name: pool2, op: max_pool2d, kernel_size: 3, stride: 2, padding: 1}
    {name: left, op: relu}
    {name: right, op: conv2d, out_channels: 12, kernel_size: 1, from: pool2}
    {name: add, op: add, from: [left, right]}
    {name: concat, op: concat, from: [pool2, add]}
    {name: flatten, op: flatten}
    {name: fc6, op: linear, out_features: 16}
    {name: relu6, op: relu}
    {name: drop6, op: dropout, p: 0.4}
    {name: fc7, op: linear, out_features: 10}
"""


def small_network() -> Graph:
    """Return the network of `SMALL`."""
    return network(SMALL, "{channels: 3, height: 22, width: 27}")


def write_generated(graph: Graph, target: str, out: Path, **altered: tuple[str, str]) -> Path:
    """Write a target's generated files below `out/NAME`, and return their folder.

    `altered` are replacements (old, new) by the file's stem, e.g. `model=("nn.ReLU()", "nn.GELU()")`; the old text
    must occur exactly once.
    """
    texts = files(graph, TARGETS[target])
    for stem, (old, new) in altered.items():
        name = f"{TARGETS[target].folder}/{stem}.py"
        assert texts[name].count(old) == 1, texts[name]
        texts[name] = texts[name].replace(old, new)
    write([(out / graph.name / name, text) for name, text in texts.items()], out)
    return out / graph.name / TARGETS[target].folder


class CachedWorkers:
    """Workers that do a job once: the same job on files of the same content is answered from memory.

    For verifications of one network in which only one target's files change. Jobs that fail are not remembered.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._answers: dict[str, tuple[dict[str, Any], bytes]] = {}
        self.done = 0  # jobs that a worker did

    def __getattr__(self, name: str) -> Any:
        return getattr(self._workers, name)

    def ask(self, target: str, job: str, *, output: str = "", **arguments: Any) -> dict[str, Any]:
        """Have a target do a job, or repeat its answer and its output file."""
        key = json.dumps([target, job, {name: _content(value) for name, value in arguments.items()}], sort_keys=True)
        if key not in self._answers:
            self.done += 1
            answer = self._workers.ask(target, job, **arguments, **({"output": output} if output else {}))
            self._answers[key] = answer, Path(output).read_bytes() if output else b""
        answer, content = self._answers[key]
        if output:
            Path(output).write_bytes(content)
        return copy.deepcopy(answer)


def _content(value: Any) -> Any:
    """Return an argument of a job with the hash of its content in place of every path."""
    if isinstance(value, list):
        return [_content(item) for item in value]
    if not isinstance(value, str) or not value.startswith("/"):
        return value
    path = Path(value)
    paths = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return [[str(p.relative_to(path)), hashlib.sha256(p.read_bytes()).hexdigest()] for p in paths]


def run_training(
    graph: Graph,
    target: str,
    workers: Workers,
    folder: Path,
    epochs: list[list[float]],
    data: tuple[Any, Any, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train by a target's generated files on (weights, inputs, labels) in float64; return the answer and the weights.

    Inputs are (steps, N, C, H, W).
    """
    import numpy as np

    from archspec.verification import canonical_weights

    start, inputs, labels = data
    generated = write_generated(graph, target, folder)
    write_tensors(folder / "start.safetensors", start)
    np.save(folder / f"{target}.npy", np.moveaxis(inputs, 2, -1) if target_of(target).channels_last else inputs)
    np.save(folder / "labels.npy", labels)
    answer = workers.ask(
        target,
        "training",
        folder=str(generated),
        name="Net",
        parameters=canonical_weights.shapes(graph),
        weights=str(folder / "start.safetensors"),
        inputs=str(folder / f"{target}.npy"),
        labels=str(folder / "labels.npy"),
        dtype="float64",
        epochs=epochs,
        output=str(folder / f"{target}.npz"),
    )
    return answer, dict(np.load(folder / f"{target}.npz"))
