"""Models of the caller's own process: the workers' code runs in it, and leaves it as it was."""

from __future__ import annotations

import importlib
import os
import sys
from collections import Counter
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from archspec.analysis import totals
from archspec.graph import Graph
from archspec.importers.layers import ImportFailedError
from archspec.importers.process import WORKERS
from archspec.language.ops.base import format_shape

SHOWN = 8  # differences

# By the framework's class of models, as module and name: the worker. Keras first: on PyTorch its models are modules.
KINDS = {("keras", "Model"): "keras_port", ("torch.nn", "Module"): "torch_port"}


def ask(job: str, request: dict[str, Any], model: Any) -> dict[str, Any]:
    """Return the answer of a worker's function to a request about a model; raise ImportFailedError if it gives none."""
    classes = {worker: getattr(sys.modules.get(framework), name, ()) for (framework, name), worker in KINDS.items()}
    workers = [worker for worker, kind in classes.items() if isinstance(model, kind)]
    if not workers:
        raise ImportFailedError(f"a {type(model).__name__} is no torch.nn.Module and no keras.Model")
    try:
        answer: dict[str, Any] = getattr(_worker(workers[0]), job)(request, model)
    except Exception as error:
        if getattr(error, "names", None) is None:
            raise
        raise ImportFailedError(str(error)) from error
    return answer


def count_differences(graph: Graph, model: Any) -> list[str]:
    """Return how a model's parameters, and multiply-accumulates if it is PyTorch's, differ from a spec's, in words."""
    found = ask("counts", {"input_shape": list(graph.input.output_shape)}, model)
    costs = totals(graph)
    params = sum(map(prod, found["shapes"].values()))
    pairs = {"parameters": (params, costs.params), "MACs": (found["macs"] or costs.macs, costs.macs)}
    lines = [
        f"{what}: {ours:,} in the spec, {its:,} in the model" for what, (its, ours) in pairs.items() if its != ours
    ]
    own = {f"{node.name}.{name}": shape for node in graph.nodes for name, shape in node.trainable.items()}
    for where, one, other in (("spec", own, found["shapes"]), ("model", found["shapes"], own)):
        left = Counter(tuple(sorted(shape)) for shape in other.values())  # whatever the framework's order of axes is
        for name, shape in one.items():
            left[tuple(sorted(shape))] -= 1
            if left[tuple(sorted(shape))] < 0 and params != costs.params:
                lines.append(f"only in the {where}: {name} {format_shape(tuple(shape))}")
    return lines[:SHOWN] + [f"and {len(lines) - SHOWN} more"] * (len(lines) > SHOWN)


@cache
def _worker(name: str) -> Any:
    """Import a worker; what it imports from beside it, and sets for a process of its own, is taken back."""
    siblings = [path.stem for path in Path(WORKERS).glob("*.py") if path.stem != "__init__"]
    hidden = {sibling: sys.modules.pop(sibling) for sibling in siblings if sibling in sys.modules}
    environment, bytecode = dict(os.environ), sys.dont_write_bytecode
    sys.path.insert(0, str(WORKERS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(WORKERS))
        for sibling in siblings:
            sys.modules.pop(sibling, None)
        sys.modules.update(hidden)
        os.environ.clear()
        os.environ.update(environment)
        sys.dont_write_bytecode = bytecode
