"""What several tests share: where things are, small specs, the command in process."""

from __future__ import annotations

import os
import subprocess
import sys
import typing
from pathlib import Path

from archspec.graph import Graph, build
from archspec.language.initializers import BiasRule, Rule
from archspec.language.source import Source

ROOT = Path(__file__).parent.parent.parent
DATA = ROOT / "tests" / "data"
CLAIMS = sorted((ROOT / "specs").glob("*.claims.yaml"))
SPECS = [path for path in sorted((ROOT / "specs").glob("*.yaml")) if path not in CLAIMS]
ALEXNETS = [path for path in SPECS if path.stem.startswith(("alexnet", "caffenet", "lenet"))]
ZOO = [path for path in SPECS if path not in ALEXNETS]
OP_SPECS = sorted((ROOT / "specs" / "ops").glob("*.yaml"))
REGRESSIONS = sorted((DATA / "regressions").glob("*.yaml"))  # specs that once went wrong
TARGETS = ("numpy", "torch", "keras")  # NumPy is the reference of the others
FRAMEWORKS = ("torch", "keras")

# The initializers of kernels and of biases, by name.
RULES = {r.model_fields["rule"].default: r for r in typing.get_args(typing.get_args(Rule)[0])}
BIAS_RULES = {r.model_fields["rule"].default: r for r in typing.get_args(typing.get_args(BiasRule)[0])}


def source(layers: str, size: str = "{channels: 6, height: 9, width: 7}", head: str = "") -> Source:
    """Return the source of a spec of the given layers, one a line; its name is `net`."""
    lines = "".join(f"  - {line.strip()}\n" for line in layers.strip().splitlines())
    return Source.parse(f"archspec: 1\nname: net\ninput: {size}\n{head}\nlayers:\n{lines}", "net.yaml")


def network(layers: str, size: str = "{channels: 6, height: 9, width: 7}", head: str = "") -> Graph:
    """Return the network of the given layers, one a line; its name is `net`."""
    return build(source(layers, size, head))


def archspec_process(*words: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own."""
    command = [sys.executable, "-m", "archspec", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment})


def archspec_command(*words: object, cwd: Path = ROOT, stdin: str | bytes = "") -> subprocess.CompletedProcess[str]:
    """Run the command in this process, as its users see it: exit status, standard output, standard error."""
    from typer.testing import CliRunner

    from archspec.cli.app import app

    before = Path.cwd()
    os.chdir(cwd)
    try:
        result = CliRunner().invoke(app, [str(word) for word in words], input=stdin)
    finally:
        os.chdir(before)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess(words, result.exit_code, result.stdout, result.stderr)
