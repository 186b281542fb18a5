"""How long `archspec check` takes, whole process, beside what other tools take on the same network.

    python benchmarks/check.py            # AlexNet: archspec, the bare imports, torchinfo and fvcore in turn
    python benchmarks/check.py --scale    # 1,000 and 10,000 pairs of a convolution and a ReLU
    python benchmarks/check.py --report   # every rendering of a report, and the drawing, beside check
    python benchmarks/check.py --blocks   # ResNet-152 beside AlexNet, and beside itself written without blocks

Each command runs in turn with the others, several rounds, after one that is not counted; medians, and ratios within
this run. Needs the extra `bench` for the peers; those that are not installed are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
IMPORTS = "import yaml, pydantic, typer, rich"
TORCHINFO = "import torchinfo; torchinfo.summary({model}, (1, 3, 227, 227), verbose=1)"
FVCORE = (
    "import torch, fvcore.nn as f; print(f.flop_count_table(f.FlopCountAnalysis({model}, torch.zeros(1, 3, 227, 227))))"
)
MODEL = f"__import__('runpy').run_path({str(ROOT / 'generated/alexnet/pytorch/model.py')!r})['AlexNet']().eval()"


def measure(command: list[str]) -> tuple[float, float]:
    """Return the seconds and the peak MiB of one run of a command."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, command
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def race(commands: dict[str, list[str]], rounds: int) -> None:
    """Run the commands in turn, and print a row for each: median seconds, their ratio to the first's, peak MiB."""
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name, command in commands.items():
            run = measure(command)
            if turn:
                runs[name].append(run)
    first = statistics.median(seconds for seconds, _ in next(iter(runs.values())))
    print(f"{'':<34}{'median s':>10}{'ratio':>8}{'peak MiB':>10}")
    for name, found in runs.items():
        seconds = statistics.median(s for s, _ in found)
        print(f"{name:<34}{seconds:>10.3f}{seconds / first:>8.2f}{max(m for _, m in found):>10.0f}")


def pairs(count: int, folder: Path) -> Path:
    """Write a spec of `count` pairs of a convolution and a ReLU."""
    path = folder / f"{count}.yaml"
    layers = "".join(
        f"  - {{name: conv{i}, op: conv2d, out_channels: 16, kernel_size: 3, padding: 1}}\n"
        f"  - {{name: relu{i}, op: relu}}\n"
        for i in range(count)
    )
    path.write_text(
        f"archspec: 1\nname: pairs\ninput: {{channels: 3, height: 32, width: 32}}\nlayers:\n{layers}", encoding="utf-8"
    )
    return path


def flat(name: str, folder: Path) -> Path:
    """Write a spec of specs/ without its blocks: a row for each layer."""
    import archspec

    graph = archspec.load(ROOT / "specs" / f"{name}.yaml")
    lines, above = "", graph.input
    for node in graph.nodes:
        row: dict[str, Any] = {"name": node.name.replace(".", "_"), "op": node.op.op}
        if node.inputs != (above,):
            row["from"] = [read.name.replace(".", "_") for read in node.inputs]
        given = node.op.model_dump(exclude_unset=True, exclude={*row, "from_", "allow", "init"})
        row |= {key: one_number(value) for key, value in given.items()}
        lines += f"  - {json.dumps(row)}\n".replace('"', "")
        above = node
    path = folder / f"{name}_flat.yaml"
    size = dict(zip(("channels", "height", "width"), graph.input.output_shape, strict=True))
    path.write_text(f"archspec: 1\nname: {name}\ninput: {json.dumps(size)}\nlayers:\n{lines}", encoding="utf-8")
    assert archspec.check(path).totals == archspec.check(graph).totals
    return path


def one_number(value: Any) -> Any:
    """Return the number that stands for all sides, as a person writes it."""
    while isinstance(value, tuple):
        (value,) = set(value)
    return value


def main() -> None:
    """Run the benchmark that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--blocks", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    check = [str(Path(sys.executable).parent / "archspec"), "check"]
    if arguments.scale:
        with tempfile.TemporaryDirectory() as folder:
            sizes = (1_000, 10_000)
            race({f"{n:,} pairs": [*check, str(pairs(n, Path(folder)))] for n in sizes}, arguments.rounds)
        return
    if arguments.blocks:
        with tempfile.TemporaryDirectory() as folder:
            paths = {"AlexNet": ROOT / "specs/alexnet.yaml", "ResNet-152": ROOT / "specs/resnet152.yaml"}
            paths["ResNet-152 without blocks"] = flat("resnet152", Path(folder))
            commands = {name: [*check, str(path), "-q"] for name, path in paths.items()}
            race(commands, arguments.rounds)
        return
    if arguments.report:
        alexnet = str(ROOT / "specs/alexnet.yaml")
        with tempfile.TemporaryDirectory() as folder:
            reports = {
                f"report -o .{s}": ["report", alexnet, "-o", f"{folder}/a.{s}"]
                for s in "txt md csv json tex html".split()
            }
            drawings = {f"draw -o .{s}": ["draw", alexnet, "-o", f"{folder}/b.{s}"] for s in ("svg", "png")}
            words = {"check": ["check", alexnet], **reports, **drawings}
            race({name: [check[0], *rest] for name, rest in words.items()}, arguments.rounds)
        return
    commands = {IMPORTS: [sys.executable, "-c", IMPORTS], "archspec check": [*check, str(ROOT / "specs/alexnet.yaml")]}
    for name, code in (("torchinfo", TORCHINFO), ("fvcore", FVCORE)):
        if importlib.util.find_spec(name):
            commands[name] = [sys.executable, "-c", code.format(model=MODEL)]
    race(commands, arguments.rounds)


if __name__ == "__main__":
    main()
