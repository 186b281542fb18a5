"""Many processes with a part of every batch each, against one with the whole: the training programs themselves."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspec.emit import TARGETS, TRAINERS, emit, emit_training
from archspec.graph import Graph, altered
from archspec.verify.arrays import distance
from archspec.verify.data import RECIPE
from archspec.verify.workers import WorkerError, Workers, kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ABLE = ("torch", "keras", "keras-tensorflow", "keras-jax")
BOUND = 1e-8  # as that of verify's training
IMAGES = 19  # the last batch is small, and no number of processes from 2 to 18 divides them
BATCH = 8
EPOCHS = 2
SIDE = 28  # pixels, as MNIST's


@dataclass(frozen=True)
class Distributed:
    """What one target's program came to in many processes."""

    target: str
    processes: int
    steps: int
    apart: float  # of weights and states, relative to the largest of each tensor
    where: str  # the tensor that is farthest apart

    @property
    def agrees(self) -> bool:
        return self.apart <= BOUND

    def __str__(self) -> str:
        end = f"{self.target}: after {self.steps} steps {self.processes} processes with a part of every batch each "
        if self.agrees:
            return end + f"have the weights of one with the whole, within {self.apart:.1e}"
        return end + f"part from one with the whole, by {self.apart:.1e} at {self.where} (bound {BOUND:.0e})"


def distributed(graph: Graph, workers: Workers, processes: int, timeout: float) -> list[Distributed]:
    """Return, for every target, how far a training in `processes` processes is from that in one.

    The generated programs run as they are, in float64, on images of noise, with dropout at 0. Raises WorkerError where
    a program fails, ValueError where it cannot read images, SpecError where a target cannot spell the network.
    """
    import numpy as np

    channels = graph.input.output_shape[0]
    if channels not in (1, 3):
        raise ValueError(f"the training programs read images of 1 or 3 channels, and {graph.name} reads {channels}")
    quiet = graph
    for node in graph.nodes:
        if node.op.op == "dropout":
            here = next(n for n in quiet.nodes if n.name == node.name)
            quiet = altered(quiet, here, here.op.model_copy(update={"p": 0.0})) or quiet  # type: ignore[arg-type]
    found = []
    with tempfile.TemporaryDirectory(prefix="archspec-") as folder:
        room = Path(folder)
        _write_images(room / "data", min(10, graph.output.output_shape[0]))
        for target in workers.targets:
            word = kind(target)
            (room / target).mkdir()
            for name, text in (
                (TARGETS[word], emit(quiet, word)),
                (TRAINERS[word], emit_training(quiet, word, graph.spec.training or RECIPE)),
            ):
                (room / target / name).write_text(text, encoding="utf-8")
            ends: list[dict[str, NDArray[np.float64]]] = []
            for count in (1, processes):
                workers.progress(target, f"training in {count} process{'es' * (count > 1)}")
                output = room / f"{target}-{count}"
                _train(target, room, output, count, timeout)
                if word == "torch":
                    workers.ask(target, "checkpoint", path=str(output / "last.pt"), output=str(output / "last.npz"))
                with np.load(output / "last.npz") as arrays:
                    ends.append({name: arrays[name] for name in arrays.files if arrays[name].dtype.kind == "f"})
            apart = {name: distance(one, ends[1][name]) for name, one in ends[0].items() if one.size}
            worst = max(apart, key=lambda name: apart[name])
            steps = EPOCHS * -(-IMAGES // BATCH)
            found.append(Distributed(target, processes, steps, apart[worst], worst))
            workers.progress(target, "done")
    return found


def _write_images(folder: Path, classes: int) -> None:
    """Write noise as a data set in MNIST's files."""
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


def _train(target: str, room: Path, output: Path, count: int, timeout: float) -> None:
    """Run a target's program in `count` processes; raise WorkerError if one fails."""
    words = ["--data", str(room / "data"), "--output", str(output), "--precision", "fp64"]
    words += ["--epochs", str(EPOCHS), "--batch-size", str(BATCH)]
    ports = _ports(count)
    threads = str(max(1, (os.cpu_count() or 1) // count))
    running = []
    for rank in range(count):
        own: dict[str, str] = {}
        if count > 1 and target == "torch":
            own = {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}
            own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(ports[0])}
        elif count > 1 and target == "keras-jax":
            addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
            own = {"JOB_ADDRESSES": addresses, "NUM_PROCESSES": str(count), "PROCESS_ID": str(rank)}
            own = {f"KERAS_DISTRIBUTION_{key}": value for key, value in own.items()}
        elif count > 1:
            cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
            own = {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": rank}})}
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": threads, **own}
        backend = "jax" if target == "keras-jax" else "tensorflow"
        environment |= {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        program = str(room / target / TRAINERS[kind(target)])
        more = ["--distribute"] if count > 1 and target != "torch" else ["--device", "cpu"]
        log = (room / f"{target}-{count}-{rank}.log").open("w+")
        command = [sys.executable, program, *words, *more]
        running.append((subprocess.Popen(command, stdout=log, stderr=log, env=environment), log))
    end = time.monotonic() + timeout
    try:
        while any(process.poll() is None for process, _ in running):
            failed = any(process.poll() for process, _ in running)
            if failed or time.monotonic() > end:
                time.sleep(1)  # for the others to say why
                break
            time.sleep(0.05)
    finally:
        for process, log in running:
            process.kill()
            process.wait()
            log.seek(0)
    said = [(process.returncode, log.read()) for process, log in running]
    for _, log in running:
        log.close()
    _tell(target, said, timeout)


def _tell(target: str, said: list[tuple[int, str]], timeout: float) -> None:
    """Raise WorkerError if a process failed, with the last that the first of them said; one that was killed is none."""
    failures = [one for one in said if one[0] > 0] or [one for one in said if one[0]]
    if failures:
        status, text = failures[0]
        lines = text.strip().splitlines()
        missing = next((line for line in lines if line.startswith("ModuleNotFoundError")), "")
        why = missing or (lines[-1] if lines and status > 0 else f"no end in {timeout:g} s")
        raise WorkerError(target, why, missing=bool(missing))


def _ports(count: int) -> list[int]:
    """Return ports that nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[Any] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
