"""Generate every spec of this repository for every target, and pass the code through its users' tools.

Ruff's formatter and linter with their defaults, mypy --strict of the PyTorch code, and no import of archspec.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tempfile
from pathlib import Path

import archspec
from archspec.api import planned_files
from archspec.cli.specs import spec_paths
from archspec.targets import MODULES, TARGETS, model_parallel, model_source
from archspec.targets.render import formatted

ROOT = Path(__file__).resolve().parent.parent
SPECS = list(spec_paths([ROOT / "specs"]))
SMALL = list(spec_paths([ROOT / "specs" / "ops", ROOT / "tests" / "data" / "regressions"]))  # of these the models alone

# The packages that generated files import, and their own modules.
PROGRAM = set("PIL engine matplotlib model recipe safetensors sklearn tqdm".split())
PACKAGES = {
    "pytorch": {"torch", "torchvision", "numpy"} | PROGRAM,  # which shuffles as the Keras program does
    # tf.data reads images, jax.sharding distributes, and the torch backend is asked for its GPUs
    "keras": {"keras", "numpy", "tensorflow", "jax", "torch"} | PROGRAM,
    "numpy": {"numpy"},
}
# Some of these have no types, and reading the types of the others takes minutes.
UNTYPED = "matplotlib safetensors sklearn torchvision tqdm".split()


def generate(out: Path) -> None:
    """Write the files of every spec below `out`, a folder a spec."""
    texts: dict[Path, str] = {}
    for graph in map(archspec.load, SPECS):
        texts |= planned_files(graph, None, out)
        if graph.name == "alexnet":
            texts |= {out / graph.name / name: text for name, text in model_parallel(graph).items()}
    models = {  # formatted together, as that takes a tenth of the time
        f"{graph.name}/{target.folder}/model.py": model_source(graph, target)
        for graph in map(archspec.load, SMALL)
        for target in TARGETS.values()
    }
    texts |= {out / name: text for name, text in formatted(models, MODULES).items()}
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def lint(out: Path) -> None:
    """Run ruff on the models, and on each program in its own folder, as its users do."""
    programs = [path.parent for path in out.glob("*/*/train.py")]
    models = [path for path in out.glob("*/*/model.py") if path.parent not in programs]
    run("ruff", "format", "--isolated", "--check", "--no-cache", out)
    run("ruff", "check", "--isolated", "--no-cache", *models)
    for folder in programs:
        run("ruff", "check", "--isolated", "--no-cache", ".", cwd=folder)


def check_types(out: Path) -> None:
    """Run mypy --strict on every PyTorch model and recipe, and on one training program with its engine, at once."""
    with tempfile.TemporaryDirectory() as folder:
        together = Path(folder)
        (together / "engine").mkdir()
        for path in (out / "alexnet" / "pytorch" / "engine").glob("*.py"):
            (together / "engine" / path.name).write_text(path.read_text())
        for path in out.glob("*/pytorch/*.py"):
            name = path.parent.parent.name
            if path.stem == "train" and name != "alexnet":
                continue  # the same in every folder
            text = path.read_text()
            for module in ("model", "recipe"):
                text = text.replace(f"import {module}\n", f"import {name}_{module} as {module}\n")
            (together / f"{name}_{path.name}").write_text(text)
        config = together / "mypy.ini"
        others = ",".join(f"{name}.*" for name in UNTYPED)
        skipped = f"[mypy-{others}]\nfollow_imports = skip\nignore_missing_imports = True\n"
        config.write_text(f"[mypy]\nstrict = True\n{skipped}")
        run("mypy", "--config-file", config, together)


def check_imports(out: Path) -> None:
    """Exit if a file imports more than its framework, what the program needs, and the files beside it."""
    for path in out.glob("*/*/**/*.py"):
        tree = ast.parse(path.read_text())
        names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        names |= {str(n.module) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and not n.level}
        packages = {name.partition(".")[0] for name in names} - sys.stdlib_module_names
        if others := packages - PACKAGES[path.relative_to(out).parts[1]]:
            sys.exit(f"{path.relative_to(out)} imports {', '.join(sorted(others))}")


def run(*words: object, cwd: Path = ROOT) -> None:
    """Run a tool; exit with its output if it finds anything."""
    done = subprocess.run([sys.executable, "-m", *map(str, words)], capture_output=True, text=True, cwd=cwd)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


def main() -> None:
    """Generate, then run every tool."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        generate(out)
        found = [len(list(out.glob(pattern))) for pattern in ("*/*/model.py", "*/*/train.py")]
        trained = sum(archspec.load(path).spec.training is not None for path in SPECS)
        assert found == [3 * len(SPECS + SMALL), 2 * trained], found
        for check in (lint, check_types, check_imports):
            check(out)
    print(f"{found[0]} models and {found[1]} programs pass")


if __name__ == "__main__":
    main()
