"""A verification: every check on every target, in parallel."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspec.files import temporary_folder
from archspec.graph import Graph
from archspec.targets import files, require_code, target_of
from archspec.verification import canonical_weights
from archspec.verification.checks import CHECKS, Context, TargetRun, pixels
from archspec.verification.checks.forward import Result as ForwardResult
from archspec.verification.checks.structure import Result as StructureResult
from archspec.verification.checks.training import CAP as TRAINING_CAP
from archspec.verification.checks.training import Run as TrainingRun
from archspec.verification.evidence import Evidence, Sensitivity
from archspec.verification.inputs import Inputs, check_memory, horizon, plan
from archspec.verification.processes import WorkerError, Workers
from archspec.verification.sensitivity import sensitivity

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from archspec.verification.canonical_weights import Weights

DTYPES = ("float64", "float32")


def verify(
    graph: Graph,
    workers: Workers,
    *,
    generated: Path | None = None,
    batch: int = 2,
    seed: int = 0,
    steps: int = 20,
    checks: Sequence[str] = tuple(CHECKS),
    dtypes: Sequence[str] = DTYPES,
    sensitive: bool = False,
    inputs: NDArray[np.float32] | None = None,
    weights: Weights | None = None,
) -> Evidence:
    """Return the differences between the targets, check by check and layer by layer, with their tolerances.

    Each target's worker runs the existing files below `generated`, or else files generated from the spec. `weights` are
    canonical, by default He-normal ones from `seed`; `inputs` are (N, C, H, W), by default noise with the scale of
    mean-subtracted pixels. `sensitive`: also alter each layer and attribute, to report the alterations that no check
    would notice. Raises SpecError if a target cannot express the network, and MemoryError if it exceeds this machine's
    memory.
    """
    started = time.monotonic()
    require_code(graph)
    check_memory(graph, batch if inputs is None else len(inputs), len(workers.targets))
    workers.start()
    with temporary_folder() as workdir:
        data = Inputs(graph, workdir, batch=batch, seed=seed, steps=steps, inputs=inputs, weights=weights)
        programs = {target: Files(graph, target, data, generated) for target in workers.targets}
        runs = {
            target: TargetRun(graph, target, workers, data, program.folder, tuple(dtypes))
            for target, program in programs.items()
        }
        wanted = [check for check in CHECKS if check in checks]
        skipped = {}
        if "dropout" in wanted and not data.random_layers:
            skipped["dropout"] = "no layer is random"
        for check in ("training", "init"):
            if check in wanted and not graph.trainable:
                skipped[check] = "no layer has trainable parameters"
        if "training-mode" in wanted and not graph.batch_dependent:
            skipped["training-mode"] = "no layer depends on the batch"
        if "images" in wanted and (reason := pixels.skip_reason(graph)):
            skipped["images"] = reason
        wanted = [check for check in wanted if check not in skipped]
        if data.needs_statistics:
            measure_statistics(runs)
        # Written once and before the workers ask: the order of the random draws is part of the evidence.
        if "gradients" in wanted or "transforms" in wanted:
            _ = data.directions
        if "dropout" in wanted:
            data.write_many()
        if "dropout" in wanted or "training-mode" in wanted:
            data.write_masks()
        if "training" in wanted:
            data.write_training()
            if graph.batch_dependent:
                _measure_growth(runs)
        if "images" in wanted:
            pixels.write_images(data)
        results: dict[str, dict[str, Any]] = {check: {} for check in wanted}
        found: list[Sensitivity] = []

        def run(target: str) -> None:
            for check in wanted:
                if check != "forward" and not target_of(target).trains:
                    continue
                result = results[check][target] = CHECKS[check].ask(runs[target])
                if isinstance(result, StructureResult) and not result.fits(runs[target]):
                    break  # the canonical weights do not fit: nothing else can run
            if sensitive and target == workers.targets[0] and target in results.get("forward", {}):
                found.extend(sensitivity(runs[target], results["forward"][target].outputs["float64"]))
            workers.progress(target, "done")

        failures = workers.all(run)
        alive = tuple(target for target in workers.targets if target in workers.versions)
        context = Context(graph, data, alive, tuple(dtypes))
        in_order = {check: {t: results[check][t] for t in alive if t in results[check]} for check in wanted}
        return Evidence(
            graph=graph,
            targets=workers.targets,
            checks=tuple(wanted),
            dtypes=tuple(dtypes),
            seed=seed,
            batch=data.batch,
            steps=steps,
            horizon=data.horizon,
            device=workers.device,
            comparisons=tuple(c for check in wanted for c in CHECKS[check].judge(context, in_order[check])),
            versions={target: workers.versions[target] for target in alive},
            files={target: program.hashes for target, program in programs.items()},
            folders={target: program.existing for target, program in programs.items() if program.existing},
            stale=tuple(path for program in programs.values() for path in program.stale),
            failures=tuple(failures),
            incomplete=frozenset(
                (check, target)
                for check in wanted
                for target in workers.targets
                if target not in results[check] and (check == "forward" or target_of(target).trains)
            ),
            skipped=skipped,
            weights=canonical_weights.digest(weights) if weights else "",
            sensitivity=tuple(found),
            seconds=time.monotonic() - started,
            outputs=_outputs(graph, in_order.get("forward", {})),
            peak_bytes=_peak_bytes(in_order.get("training", {})),
        )


def measure_statistics(runs: dict[str, TargetRun]) -> None:
    """Have the first target that can measure what the norms read, for their running statistics."""
    for target, run in runs.items():
        if target_of(target).trains:
            output = run.output("statistics")
            layers = [node.name for node in run.inputs.normalized]
            files = {"weights": str(run.inputs.weights_path), "inputs": run.inputs.path("unit_scale", target)}
            try:
                run.ask("statistics", **files, layers=layers, output=str(output))
            except WorkerError:  # of a faulty program: it is reported where the checks ask again
                continue
            run.inputs.set_statistics(output)
            return


def _measure_growth(runs: dict[str, TargetRun]) -> None:
    """Have the reference measure how one rounding grows in training, which says how many steps can be compared."""
    for target, run in runs.items():
        if target_of(target).trains:
            data = run.inputs
            files = {"inputs": data.path("steps", target), "labels": data.label_path("step_labels")}
            epochs = plan(data.recipe, data.steps)
            try:
                answer = run.ask("amplification", weights=str(data.start_path), **files, epochs=epochs)
            except WorkerError:  # of a faulty program: it is reported where the checks ask again
                continue
            data.horizon = horizon(answer["apart"], data.steps, TRAINING_CAP)
            return


class Files:
    """One target's generated files: the existing ones, or files generated from the spec.

    An incomplete set of existing files is completed in a copy.
    """

    def __init__(self, graph: Graph, target: str, data: Inputs, generated: Path | None) -> None:
        kind = target_of(target)
        texts = files(graph, kind, data.recipe)
        there = generated / graph.name if generated else None
        copy = data.workdir / target
        self.existing: Path | None = None
        self.stale: tuple[Path, ...] = ()
        self.hashes: dict[str, str] = {}
        complete = there is not None
        for name, text in texts.items():
            content = text.encode()
            if there and (there / name).is_file():
                self.existing = there / kind.folder
                content = (there / name).read_bytes()
                if content != text.encode():
                    self.stale += (there / name,)
            else:
                complete = False
            self.hashes[name] = hashlib.sha256(content).hexdigest()
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(content)
        self.folder = (there / kind.folder).resolve() if there and complete else copy / kind.folder


def _outputs(graph: Graph, results: dict[str, ForwardResult]) -> dict[str, Any]:
    name = graph.output.name
    found = {t: result.outputs.get("float32") or result.outputs.get("float64", {}) for t, result in results.items()}
    return {target: outputs[name] for target, outputs in found.items() if name in outputs}


def _peak_bytes(results: dict[str, dict[str, TrainingRun]]) -> dict[str, int]:
    return {target: max(run.peak_bytes for run in runs.values()) for target, runs in results.items() if runs}
