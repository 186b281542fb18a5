"""Multi-process training: N processes with a part of every batch each, against one with the whole batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspec.files import temporary_folder
from archspec.graph import Graph
from archspec.graph.build import rebuild
from archspec.targets import VARIANTS, files, split_variant, target_of
from archspec.verification.inputs import DEFAULT_RECIPE
from archspec.verification.processes import WorkerError, Workers
from archspec.verification.tensors import distance

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SUPPORTED = tuple(name for name in VARIANTS if split_variant(name)[1] in target_of(name).launched)
BOUND = 1e-8  # as of the check `training`
IMAGES = 19  # the last batch is small, and no number of processes from 2 to 18 divides them
BATCH = 8
EPOCHS = 2
SIDE = 28  # pixels, as MNIST's


@dataclass(frozen=True)
class MultiprocessResult:
    """The difference between N-process and single-process training, for one target."""

    target: str
    processes: int
    steps: int
    difference: float  # of weights and optimizer state, relative to the largest magnitude of each tensor
    where: str  # the tensor with the largest difference

    @property
    def agrees(self) -> bool:
        """Whether the difference is within the bound."""
        return self.difference <= BOUND

    def __str__(self) -> str:
        relation = "agrees with" if self.agrees else "differs from"
        found = f"{self.target}: training in {self.processes} processes {relation} one process after {self.steps} steps"
        if self.agrees:
            return f"{found}, within {self.difference:.1e}"
        return f"{found}: {self.where} by {self.difference:.1e} (tolerance {BOUND:.0e})"


End = dict[str, Any]  # arrays of weights and optimizer state


def compare_multiprocess(
    graph: Graph, workers: Workers, processes: int, timeout: float, ends: dict[str, End] | None = None
) -> list[MultiprocessResult]:
    """Return the difference between N-process and single-process training, for every target.

    The generated programs run unchanged, in float64, on images of noise, with dropout at 0. `ends` caches the results
    of single-process training, by target. Raises WorkerError where a program fails, ValueError where it cannot read
    images or where a norm depends on the batch, SpecError where a target cannot express the network.
    """
    if graph.batch_dependent:
        raise ValueError(
            f"{graph.name}: {graph.batch_dependent[0].name} normalizes by the statistics of a batch, of which each "
            "process has a part: training in several processes is another computation "
            "(torch.nn.SyncBatchNorm refuses CPUs)"
        )
    channels = graph.input.output_shape[0]
    if channels not in (1, 3) or len(graph.input.output_shape) != 3:
        raise ValueError(f"the training programs read images of 1 or 3 channels, but {graph.name} has {channels}")
    without_dropout = graph
    for node in graph.nodes:
        if node.op.random:  # type: ignore[union-attr]
            without_dropout = rebuild(without_dropout, node.loc, {"p": 0.0}) or without_dropout
    found = []
    with temporary_folder() as workdir:
        _write_images(workdir / "data", min(10, graph.output.output_shape[0]))
        for target in workers.targets:
            texts = files(without_dropout, target_of(target), graph.spec.training or DEFAULT_RECIPE, headers=False)
            for name, text in texts.items():
                path = workdir / target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")

            def end(count: int, target: str = target) -> End:
                workers.progress(target, f"training in {count} process{'es' * (count > 1)}")
                return _train(target, workdir, workers, count, timeout)

            if ends is None or target not in ends:
                single = end(1)
                if ends is not None:
                    ends[target] = single
            else:
                single = ends[target]
            many = end(processes)
            apart = {name: distance(values, many[name]) for name, values in single.items() if values.size}
            worst = max(apart, key=lambda name: apart[name])
            steps = EPOCHS * -(-IMAGES // BATCH)
            found.append(MultiprocessResult(target, processes, steps, apart[worst], worst))
            workers.progress(target, "done")
    return found


def _load(target: str, workers: Workers, output: Path) -> dict[str, NDArray[np.float64]]:
    """Return the arrays of a program's last checkpoint."""
    import numpy as np

    if (output / "last.pt").exists():
        workers.ask(target, "checkpoint", path=str(output / "last.pt"), output=str(output / "last.npz"))
    with np.load(output / "last.npz") as arrays:
        return {name: arrays[name] for name in arrays.files if arrays[name].dtype.kind == "f"}


def _write_images(folder: Path, classes: int) -> None:
    """Write images of noise in MNIST's format."""
    import numpy as np

    folder.mkdir()
    random = np.random.default_rng(0)
    for part, count in (("train", IMAGES), ("t10k", 3)):
        labels = np.arange(count) % classes
        for name, values in (
            (f"{part}-images-idx3-ubyte", random.integers(0, 256, (count, SIDE, SIDE))),
            (f"{part}-labels-idx1-ubyte", random.permutation(labels)),
        ):
            head = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
            (folder / name).write_bytes(head + values.astype(np.uint8).tobytes())


def _train(target: str, workdir: Path, workers: Workers, count: int, timeout: float) -> End:
    """Run a target's program in `count` processes; return its end, and raise WorkerError if one fails."""
    output = workdir / f"{target}-{count}"
    words = ["--data", str(workdir / "data"), "--output", str(output), "--precision", "fp64"]
    words += ["--epochs", str(EPOCHS), "--batch-size", str(BATCH)]
    kind, backend = target_of(target), split_variant(target)[1]
    ports = _ports(count)
    threads = str(max(1, (os.cpu_count() or 1) // count))
    running = []
    for rank in range(count):
        own, more = kind.launch(backend, rank, ports) if count > 1 and kind.launch else ({}, ["--device", "cpu"])
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": threads}
        environment |= {**kind.environment(backend), **own}
        program = str(workdir / target / kind.folder / "train.py")
        log = (workdir / f"{target}-{count}-{rank}.log").open("w+")
        command = [sys.executable, program, *words, *more]
        running.append((subprocess.Popen(command, stdout=log, stderr=log, env=environment), log))
    end = time.monotonic() + timeout
    try:
        while any(process.poll() is None for process, _ in running):
            failed = any(process.poll() for process, _ in running)
            if failed or time.monotonic() > end:
                time.sleep(1)  # for the others to report why
                break
            time.sleep(0.05)
    finally:
        for process, log in running:
            process.kill()
            process.wait()
            log.seek(0)
    logs = [(process.returncode, log.read()) for process, log in running]
    for _, log in running:
        log.close()
    _raise_failure(target, logs, timeout)
    return _load(target, workers, output)


def _raise_failure(target: str, logs: list[tuple[int, str]], timeout: float) -> None:
    """Raise WorkerError with the last line of the first process that failed; one that was killed is not the first."""
    failures = [log for log in logs if log[0] > 0] or [log for log in logs if log[0]]
    if failures:
        status, text = failures[0]
        lines = text.strip().splitlines()
        missing = next((line for line in lines if line.startswith("ModuleNotFoundError")), "")
        why = missing or (lines[-1] if lines and status > 0 else f"timed out after {timeout:g} s")
        raise WorkerError(target, why, missing=bool(missing))


def _ports(count: int) -> list[int]:
    """Return free ports."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[Any] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
