"""The same weights and the same data through every target, and where the results first part."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspec import analysis
from archspec import weights as canonical
from archspec.emit import TARGETS, emit, flattened_maps
from archspec.graph import Graph, Node
from archspec.names import class_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The largest difference that is rounding and no more, relative to the largest magnitude of the tensor. Between PyTorch
# and Keras on AlexNet 2e-15 and 1e-6 were measured.
TOLERANCES = {"float64": 1e-10, "float32": 1e-5}

BACKENDS = ("tensorflow", "jax", "torch")
ALL_TARGETS = ("torch", "keras", "numpy", *(f"keras-{backend}" for backend in BACKENDS))

Progress = Callable[[str, str], None]  # (target, what it does now)


class WorkerError(Exception):
    """A target that gave no results; `fatal` if its process is gone, `missing` if its framework is not installed."""

    def __init__(self, target: str, message: str, *, fatal: bool = False, missing: bool = False) -> None:
        super().__init__(f"{target}: {message}")
        self.target = target
        self.fatal = fatal
        self.missing = missing


@dataclass(frozen=True, slots=True)
class Difference:
    """How far one target's output of a layer is from the reference's."""

    target: str
    dtype: str
    relative: float  # largest absolute difference over the reference's largest magnitude; nan where there is no number
    fault: str = ""  # what keeps them from being compared: a layer that is missing, another shape, no numbers
    blind: bool = False  # both are zeros throughout: equal, but nothing could have been seen

    @property
    def agrees(self) -> bool:
        return not self.fault and self.relative <= TOLERANCES[self.dtype]


@dataclass(frozen=True, slots=True)
class Row:
    """A layer and its differences, a target and a dtype each."""

    node: Node
    differences: tuple[Difference, ...]

    @property
    def agrees(self) -> bool:
        return all(difference.agrees for difference in self.differences)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a verification found. `targets[0]` is the reference of the others."""

    graph: Graph
    targets: tuple[str, ...]
    rows: tuple[Row, ...]
    versions: dict[str, dict[str, str]]
    files: dict[str, Path]
    stale: tuple[str, ...] = ()  # targets whose file is not what the spec gives
    failures: tuple[WorkerError, ...] = ()
    outputs: dict[str, Any] = field(default_factory=dict)  # by target, the network's float32 output

    @property
    def agrees(self) -> bool:
        return not self.failures and bool(self.rows) and all(row.agrees for row in self.rows)

    @property
    def first(self) -> Row | None:
        """The first layer at which the targets part."""
        return next((row for row in self.rows if not row.agrees), None)


def verify(
    graph: Graph,
    workers: Workers,
    *,
    generated: Path | None = None,
    batch: int = 2,
    seed: int = 0,
    inputs: NDArray[np.float32] | None = None,
    weights: canonical.Weights | None = None,
) -> Evidence:
    """Return how far apart the targets' outputs are, layer by layer, in float64 and float32.

    Each target's generated file runs in its worker: the one below `generated` if it stands there, or else what the spec
    gives now. `weights` are canonical, `loud` ones from `seed` unless given; `inputs` are (N, C, H, W), noise of the
    scale of pixels less their mean unless given. Raises SpecError where a target cannot spell the network, and
    MemoryError where this machine cannot hold it.
    """
    import numpy as np

    _fits(graph, batch, len(workers.targets))
    texts = {target: emit(graph, kind(target)) for target in workers.targets}
    if inputs is None:
        pixels = np.random.default_rng(seed).uniform(0, 255, (batch, *graph.input.output_shape))
        inputs = (pixels - 120).astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="archspec-") as folder:
        room = Path(folder)
        files = {target: _file(graph, target, texts[target], generated, room) for target in workers.targets}
        canonical.save(canonical.loud(graph, seed) if weights is None else weights, room / "weights.safetensors")
        np.save(room / "torch.npy", inputs)
        np.save(room / "numpy.npy", inputs)
        np.save(room / "keras.npy", np.ascontiguousarray(inputs.transpose(0, 2, 3, 1)))

        def run(target: str) -> dict[str, dict[str, Any]]:
            outputs = {}
            for dtype in TOLERANCES:
                output = room / f"{target}-{dtype}.npz"
                workers.ask(
                    target,
                    "forward",
                    model=str(files[target]),
                    name=class_name(graph.name),
                    weights=str(room / "weights.safetensors"),
                    inputs=str(room / f"{kind(target)}.npy"),
                    dtype=dtype,
                    layers=[node.name for node in graph.nodes],
                    output=str(output),
                )
                with np.load(output) as arrays:
                    outputs[dtype] = dict(arrays)
            workers.progress(target, "done")
            return outputs

        found = workers.all(run)
        stale = tuple(t for t in workers.targets if files[t].read_bytes() != texts[t].encode())
    results = {target: result for target, result in found.items() if not isinstance(result, WorkerError)}
    return Evidence(
        graph=graph,
        targets=workers.targets,
        rows=_rows(graph, results),
        versions={target: workers.versions[target] for target in results},
        files=files,
        stale=stale,
        failures=tuple(result for result in found.values() if isinstance(result, WorkerError)),
        outputs={target: outputs["float32"].get(graph.output.name) for target, outputs in results.items()},
    )


def _fits(graph: Graph, batch: int, targets: int) -> None:
    """Raise MemoryError if the weights and all layers' outputs, in float64, are more than this machine has."""
    total = analysis.totals(graph)
    values = prod(graph.input.output_shape) + total.activation_bytes // analysis.FLOAT32
    needed = 8 * targets * (total.params + batch * values)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**63
    if needed > memory:
        gib = f"{needed / 2**30:,.0f} GiB, and this machine has {memory / 2**30:,.0f}"
        raise MemoryError(f"{graph.name}: {targets} targets at a batch of {batch:,} take at least {gib}")


def _file(graph: Graph, target: str, text: str, generated: Path | None, room: Path) -> Path:
    """Return the file to verify: the one that stands below `generated`, or else `text` in a file of its own."""
    if generated and (standing := generated / graph.name / TARGETS[kind(target)]).is_file():
        return standing.resolve()
    made = room / f"{target}_model.py"
    made.write_text(text, encoding="utf-8")
    return made


def kind(target: str) -> str:
    """Return the templates that a target is generated by: `keras` for `keras-jax`."""
    return target.partition("-")[0]


def _rows(graph: Graph, loaded: dict[str, dict[str, dict[str, Any]]]) -> tuple[Row, ...]:
    if len(loaded) < 2:
        return ()
    reference, *others = loaded
    turned = flattened_maps(graph)

    def value(target: str, dtype: str, node: Node) -> Any:
        found = loaded[target][dtype].get(node.name)
        return found if found is None or kind(target) != "keras" else _channels_first(found, node, turned)

    return tuple(
        Row(
            node,
            tuple(
                _difference(
                    target,
                    dtype,
                    value(reference, dtype, node),
                    value(target, dtype, node),
                    node,
                    is_output=node is graph.output,
                )
                for target in others
                for dtype in TOLERANCES
            ),
        )
        for node in graph.nodes
    )


def _channels_first(array: Any, node: Node, turned: dict[Node, tuple[int, ...]]) -> Any:
    """Return a channels-last output in canonical order, by what the graph says of it and nothing else."""
    if array.ndim == 4:
        return array.transpose(0, 3, 1, 2)
    if node in turned and node.op.op != "linear":
        c, h, w = turned[node]
        return array.reshape(-1, h, w, c).transpose(0, 3, 1, 2).reshape(array.shape)
    return array


def _difference(target: str, dtype: str, a: Any, b: Any, node: Node, *, is_output: bool) -> Difference:
    import numpy as np

    def fault(message: str) -> Difference:
        return Difference(target, dtype, float("nan"), message)

    if a is None or b is None:
        return fault("is missing")
    if a.shape != b.shape or a.shape[1:] != node.output_shape:
        return fault(f"is {_shape(b)}, the reference {_shape(a)}, the spec {_shape((len(a), *node.output_shape))}")
    if a.dtype != dtype or b.dtype != dtype:
        return fault(f"is computed in {b.dtype}, the reference in {a.dtype}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return fault("is not finite")
    scale = float(abs(a).max())
    if scale == 0 and not b.any():
        return fault("is all zeros: nothing could be seen") if is_output else Difference(target, dtype, 0.0, blind=True)
    return Difference(target, dtype, float(abs(a - b).max()) / scale if scale else float("inf"))


def _shape(shape: Any) -> str:
    return " x ".join(map(str, getattr(shape, "shape", shape)))


# --- workers ---------------------------------------------------------------------------------------------------------


class Workers:
    """The targets' processes: each starts at its first job, side by side with the others, and serves until the end."""

    def __init__(self, targets: Sequence[str], *, timeout: float = 600, progress: Progress = lambda target, what: None):
        self.targets = tuple(targets)
        self.progress = progress
        self.versions: dict[str, dict[str, str]] = {}
        self._timeout = timeout
        self._running: dict[str, _Worker] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._running.values():
            worker.stop()
        self._running.clear()

    def ask(self, target: str, job: str, **arguments: Any) -> dict[str, Any]:
        """Have a target do a job, and return its answer.

        Raises WorkerError where there is none: the framework is missing, the job failed, the process died or took
        longer than the timeout. The next job then gets a new process.
        """
        try:
            if target not in self._running:
                self.progress(target, "starting")
                self._running[target] = _Worker(target)
                self.versions[target] = self._running[target].answer(self._timeout)["versions"]
            self.progress(target, f"{job} {arguments.get('dtype', '')}".rstrip())
            self._running[target].send({"job": job, **arguments})
            return self._running[target].answer(self._timeout)
        except WorkerError as fault:
            self.progress(target, "failed")
            if fault.fatal:
                self._running.pop(target).stop()
            raise

    def all(self, task: Callable[[str], Any]) -> dict[str, Any]:
        """Return what `task` returns, or the WorkerError that it raises, for every target, side by side."""

        def one(target: str) -> Any:
            try:
                return task(target)
            except WorkerError as fault:
                return fault

        with ThreadPoolExecutor(len(self.targets)) as threads:
            return dict(zip(self.targets, threads.map(one, self.targets), strict=True))


class _Worker:
    """One target's process."""

    def __init__(self, target: str) -> None:
        self._target = target
        backend = target.partition("-")[2] or os.environ.get("KERAS_BACKEND", "tensorflow")
        script = Path(__file__).parent / "workers" / f"{kind(target)}_worker.py"
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  closed by stop()
        self._process = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": backend, "JAX_ENABLE_X64": "1"},
        )

    def send(self, job: dict[str, Any]) -> None:
        """Give it a job. A process that has died says so when it is asked for the answer."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(job), file=self._process.stdin, flush=True)

    def answer(self, timeout: float) -> dict[str, Any]:
        """Return its next answer; raise WorkerError if that is a fault, or none comes in `timeout` seconds."""
        assert self._process.stdout
        late = threading.Event()

        def kill() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(timeout, kill)
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        if not line:
            why = f"no answer in {timeout:g} s" if late.is_set() else self._death()
            raise WorkerError(self._target, why, fatal=True)
        content: dict[str, Any] = json.loads(line)
        if "missing" in content:
            message = f"{content['error']}: pip install 'archspec-nn[{kind(self._target)}]'"
            raise WorkerError(self._target, message, fatal=True, missing=True)
        if "error" in content:
            raise WorkerError(self._target, f"{content['error']}\n{content['traceback']}")
        return content

    def stop(self) -> None:
        """End the process, and leave nothing of it."""
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _death(self) -> str:
        """Return how it ended, with the last that it said."""
        status = self._process.wait()
        self._log.seek(0)
        last = "".join(self._log.readlines()[-5:]).rstrip()
        how = "killed, perhaps for want of memory" if status == -9 else f"exit status {status}"
        return f"the worker died ({how})" + (f"\n{last}" if last else "")
