"""Runs every check of a verification, all targets side by side."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspec import weights as canonical
from archspec.emit import TARGETS, TRAINERS, emit, emit_training
from archspec.graph import Graph
from archspec.names import class_name
from archspec.verify.compare import compare, fits
from archspec.verify.data import STEP, Data, check_memory
from archspec.verify.evidence import CHECKS, Evidence
from archspec.verify.sensitivity import sensitivity
from archspec.verify.workers import Workers, kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DTYPES = ("float64", "float32")
SMALL = 1_000_000  # weights to draw at the most, where it takes several draws to tell two rules apart
QUICK = ("structure", "forward", "gradients")  # the checks of --quick, in float64


def verify(
    graph: Graph,
    workers: Workers,
    *,
    generated: Path | None = None,
    batch: int = 2,
    seed: int = 0,
    steps: int = 20,
    checks: Sequence[str] = CHECKS,
    dtypes: Sequence[str] = DTYPES,
    sensitive: bool = False,
    inputs: NDArray[np.float32] | None = None,
    weights: canonical.Weights | None = None,
) -> Evidence:
    """Return how far apart the targets are, check by check and layer by layer, relative to bounds.

    Each target's generated files run in its worker: those below `generated` if they stand there, or else what the spec
    gives now. `weights` are canonical, `loud` ones from `seed` unless given; `inputs` are (N, C, H, W), noise of the
    scale of pixels less their mean unless given. With `sensitive`, what of the network the output depends on too.
    Raises SpecError where a target cannot spell the network, and MemoryError where this machine cannot hold it.
    """
    started = time.monotonic()
    check_memory(graph, batch, len(workers.targets))
    workers.start()
    with tempfile.TemporaryDirectory(prefix="archspec-") as folder:
        room = Path(folder)
        data = Data(graph, room, batch=batch, seed=seed, steps=steps, inputs=inputs, weights=weights)
        runs = {target: _Run(graph, target, workers, data, generated, tuple(dtypes)) for target in workers.targets}
        directions = data.directions() if "gradients" in checks else []
        dropouts = data.masks() if "dropout" in checks else []
        learned = any(node.weights for node in graph.nodes)
        start = data.training() if "training" in checks and learned else None
        skipped = {}
        if "dropout" in checks and not dropouts:
            skipped["dropout"] = "no layer drops anything"
        for check in ("training", "init"):
            if check in checks and not learned:
                skipped[check] = "no layer learns"

        def run(target: str) -> None:
            one = runs[target]
            if "structure" in checks and one.trains and not one.structure():
                workers.progress(target, "done")
                return
            if "forward" in checks:
                one.forward()
            if one.trains:
                if "gradients" in checks:
                    one.gradients()
                if dropouts:
                    one.dropout([node.name for node in dropouts])
                if start:
                    one.training(start)
                if "init" in checks and learned:
                    one.initial()
            if sensitive and target == workers.targets[0] and "forward" in checks:
                one.sensitivity()
            workers.progress(target, "done")

        failures = workers.all(run)
        trained = {target: one for target, one in runs.items() if target in workers.versions}
        paths = {target: one.paths for target, one in runs.items()}
        return Evidence(
            graph=graph,
            targets=workers.targets,
            checks=tuple(check for check in CHECKS if check in checks and check not in skipped),
            dtypes=tuple(dtypes),
            seed=seed,
            batch=data.batch,
            steps=steps,
            device=workers.device,
            comparisons=tuple(compare(graph, {t: one.found for t, one in trained.items()}, data, directions)),
            versions={target: workers.versions[target] for target in trained},
            files=paths,
            hashes={str(p): hashlib.sha256(p.read_bytes()).hexdigest() for ps in paths.values() for p in ps},
            stale=tuple(path for one in runs.values() for path in one.stale),
            failures=tuple(failures),
            skipped=skipped,
            sensitivity=tuple(runs[workers.targets[0]].found.get("sensitivity", ())),
            seconds=time.monotonic() - started,
            outputs={
                target: one.found["forward", "float32"][graph.output.name]
                for target, one in trained.items()
                if graph.output.name in one.found.get(("forward", "float32"), {})
            },
            peak_bytes={t: one.found["peak_bytes"] for t, one in trained.items() if "peak_bytes" in one.found},
        )


class _Run:
    """One target's part in a verification; what it finds is in `found`, by check, and by check and dtype."""

    def __init__(
        self, graph: Graph, target: str, workers: Workers, data: Data, generated: Path | None, dtypes: tuple[str, ...]
    ) -> None:
        self._graph, self._target, self._workers, self._data, self._dtypes = graph, target, workers, data, dtypes
        self.found: dict[Any, Any] = {}
        self.trains = kind(target) in TRAINERS
        texts = {TARGETS[kind(target)]: emit(graph, kind(target))}
        if self.trains:
            texts[TRAINERS[kind(target)]] = emit_training(graph, kind(target), data.recipe)
        room = data.room / target
        room.mkdir()
        self.paths: tuple[Path, ...] = ()
        self.stale: tuple[Path, ...] = ()
        for name, text in texts.items():
            standing = generated / graph.name / name if generated else room / name
            if generated and standing.is_file():
                path = standing.resolve()
                if path.read_bytes() != text.encode():
                    self.stale += (path,)
            else:
                path = room / name
                path.write_text(text, encoding="utf-8")
            self.paths += (path,)
        self._layers = [node.name for node in graph.nodes]

    def _ask(self, job: str, **arguments: Any) -> dict[str, Any]:
        if job in ("gradients", "training"):
            arguments["train"] = str(self.paths[1])
        name = class_name(self._graph.name)
        return self._workers.ask(self._target, job, model=str(self.paths[0]), name=name, **arguments)

    def _output(self, *words: str) -> Path:
        return self._data.room / f"{'-'.join((self._target, *words))}.npz"

    def structure(self) -> bool:
        """Ask for the shapes; return whether the canonical weights fit into them."""
        inputs = self._graph.input.output_shape
        laid = [*inputs[1:], inputs[0]] if kind(self._target) == "keras" else list(inputs)
        self.found["structure"] = self._ask("structure", inputs=[2, *laid], layers=self._layers)
        return fits(self._graph, self._target, self.found["structure"])

    def forward(self) -> None:
        """Ask for every layer's output."""
        import numpy as np

        for dtype in self._dtypes:
            output = self._output("forward", dtype)
            answer = self._ask(
                "forward",
                weights=str(self._data.weights_path),
                inputs=self._data.path("inputs", self._target),
                dtype=dtype,
                layers=self._layers,
                output=str(output),
            )
            with np.load(output) as arrays:
                self.found["forward", dtype] = dict(arrays)
            self.found["forward fault", dtype] = answer.get("fault", "")

    def gradients(self) -> None:
        """Ask for the gradients in evaluation mode, and, in float64, for losses to hold them against."""
        import numpy as np

        for dtype in self._dtypes:
            along = {"directions": self._data.direction_paths(self._target), "step": STEP}
            self._gradients("gradients", dtype, **(along if dtype == "float64" else {}))
            self.found["gradients", dtype] = np.load(self._output("gradients", dtype))

    def _gradients(self, word: str, dtype: str, **arguments: Any) -> None:
        self.found[f"{word} answer", dtype] = self._ask(
            "gradients",
            weights=str(self._data.weights_path),
            inputs=self._data.path("gentle", self._target),
            labels=self._data.label_path("labels"),
            dtype=dtype,
            output=str(self._output(word, dtype)),
            **arguments,
        )

    def dropout(self, layers: list[str]) -> None:
        """Ask for the gradients with given draws, in float64, and for what the layers do with their own."""
        import numpy as np

        self._gradients("masked", "float64", masks=self._data.masks_path(self._target))
        self.found["masked"] = np.load(self._output("masked", "float64"))
        output = self._output("dropout")
        self._ask(
            "dropout",
            weights=str(self._data.weights_path),
            inputs=self._data.path("many", self._target),
            dtype="float32",
            layers=layers,
            seed=self._data.seed + 1,
            output=str(output),
        )
        self.found["dropout"] = np.load(output)

    def training(self, start: Path) -> None:
        """Ask for a training across a drop of the rate."""
        import numpy as np

        for dtype in self._dtypes:
            output = self._output("training", dtype)
            answer = self._ask(
                "training",
                weights=str(start),
                inputs=self._data.path("steps", self._target),
                labels=self._data.label_path("step_labels"),
                dtype=dtype,
                epochs=self._data.epochs,
                output=str(output),
            )
            self.found["training", dtype] = np.load(output)
            self.found["training answer", dtype] = answer
            self.found["peak_bytes"] = answer["peak_bytes"]

    def initial(self) -> None:
        """Ask for the weights that the model is made with."""
        import numpy as np

        output = self._output("initial")
        draws = max(1, min(8, SMALL // sum(w.size for w in self._data.weights.values())))
        self._ask("initial", seed=self._data.seed + 1, draws=draws, output=str(output))
        self.found["init"] = np.load(output)

    def sensitivity(self) -> None:
        """Ask for the outputs of altered networks."""
        self.found["sensitivity"] = sensitivity(
            self._graph, self._target, self._workers, self._data, self.found["forward", "float64"]
        )
