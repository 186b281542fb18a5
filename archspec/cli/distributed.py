"""archspec verify --distributed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from archspec.cli.console import print_diagnostics, progress, usage_error
from archspec.language.source import SpecError, printable_lines

if TYPE_CHECKING:
    from archspec.graph import Graph


def check_distributed(graphs: list[Graph], targets: list[str], processes: int, timeout: float) -> int:
    """Compare multi-process training with single-process training; return the exit status."""
    from archspec.verification import WorkerError, Workers
    from archspec.verification.multiprocess import SUPPORTED, compare_multiprocess

    if unsupported := [name for name in targets if name not in SUPPORTED]:
        usage_error(f"--distributed supports {', '.join(SUPPORTED)}, not {unsupported[0]}")
    status = 0
    with progress() as show, Workers(targets, timeout=timeout, progress=show) as workers:
        for graph in graphs:
            try:
                for result in compare_multiprocess(graph, workers, processes, timeout):
                    print(f"{graph.name}: {result}")
                    status = max(status, 0 if result.agrees else 1)
            except SpecError as error:
                status = max(status, print_diagnostics(error.diagnostics))
            except ValueError as error:
                usage_error(str(error))
            except WorkerError as error:
                print(f"archspec: {graph.name}: {printable_lines(str(error))}", file=sys.stderr)
                status = max(status, 2 if error.missing else 1)
    return status
