"""The architecture: packages import downwards only, few import a framework, one prints, ops are not listed by name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from helpers import OP_SPECS, ROOT, SPECS

import archspec
from archspec.language.ops import OPS
from archspec.language.spec import Spec

PACKAGE = ROOT / "archspec"
# Each package imports only packages before it.
PACKAGES = tuple(
    "files language graph analysis targets importers verification report api live cli pytest_plugin".split()
)
FRAMEWORKS = {"torch", "torchvision", "keras", "tensorflow", "jax"}
WITH_FRAMEWORKS = {"engines", "workers"}  # run in a process of their own, or copied beside generated code


@cache
def modules() -> list[tuple[str, Path, ast.Module]]:
    """Return every module of archspec as (package, path, syntax tree); a module's package is below archspec."""
    return [
        (path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path, ast.parse(path.read_text()))
        for path in sorted(PACKAGE.rglob("*.py"))
    ]


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield the dotted names that a module imports, wherever it imports them; of `from a import b`, `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def package_imports() -> dict[str, set[str]]:
    """Return the other packages of archspec that each package imports."""
    names = {package for package, _, _ in modules()}
    graph: dict[str, set[str]] = {name: set() for name in names}
    for package, _, tree in modules():
        used = {name.split(".")[1] for name in imports(tree) if name.startswith("archspec.")}
        graph[package] |= (used & names) - {package}
    return graph


def test_every_package_has_a_place() -> None:
    """PACKAGES and the packages with frameworks are all of archspec but its public API and `python -m archspec`."""
    assert set(package_imports()) == {*PACKAGES, *WITH_FRAMEWORKS, "__init__", "__main__"}


def test_the_packages_import_each_other_without_a_cycle() -> None:
    """The imports between packages are acyclic; TopologicalSorter raises CycleError with the cycle if they are not."""
    order = list(TopologicalSorter(package_imports()).static_order())

    assert order.index("language") < order.index("graph") < order.index("cli")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_packages_below_it(package: str) -> None:
    """The imports of a package are among those before it in PACKAGES."""
    assert package_imports()[package] <= set(PACKAGES[: PACKAGES.index(package)])


def test_engines_and_workers_import_nothing_of_archspec() -> None:
    """Engines are copied beside generated code, and workers run beside it: both import only their own modules."""
    for package, path, tree in modules():
        if package in ("engines", "workers"):
            assert not [name for name in imports(tree) if name.partition(".")[0] == "archspec"], path


def test_only_engines_workers_and_importers_import_a_framework() -> None:
    """No other package imports PyTorch, Keras, TensorFlow or JAX."""
    importing = {
        package for package, _, tree in modules() if FRAMEWORKS & {name.partition(".")[0] for name in imports(tree)}
    }

    assert {"engines", "workers"} <= importing <= WITH_FRAMEWORKS


def test_only_the_command_line_prints() -> None:
    """`print` is called in cli/ and in engines/, which train, and by the protocol of the workers."""
    printing = {
        path.relative_to(PACKAGE).as_posix()
        for _, path, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("print", "sys.stdout.write")
        and not any(keyword.arg == "file" and ast.unparse(keyword.value) != "sys.stderr" for keyword in node.keywords)
    }
    outside = {name for name in printing if not name.startswith(("cli/", "engines/"))}

    assert "cli/check.py" in printing
    assert outside <= {"workers/protocol.py"}


def compared_op_names(tree: ast.Module) -> Iterator[str]:
    """Yield the comparisons of an op's name in a module: `node.op.op == ...`, `op.op in ...`, or with a name of OPS.

    `dropout` is also the name of a check of `verify`.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
            named = any(isinstance(p, ast.Attribute) and ast.unparse(p).endswith("op.op") for p in parts)
            constants = {n.value for part in parts for n in ast.walk(part) if isinstance(n, ast.Constant)}
            if (named and constants) or constants & (set(OPS) - {"dropout"}):
                yield ast.unparse(node)


def test_no_module_compares_the_names_of_ops() -> None:
    """Outside language/ops traits decide, but for the lint about a softmax, and importers, which choose ops."""
    compared = {
        (path.relative_to(PACKAGE).as_posix(), text)
        for _, path, tree in modules()
        if path.parent.name not in ("ops", "importers")
        for text in compared_op_names(tree)
    }

    slope = ("language/initializers.py", "self.nonlinearity == 'leaky_relu'")  # the word of torch.nn.init
    assert compared == {("analysis/lint.py", "node.op.op == 'softmax'"), slope}


@pytest.mark.parametrize("path", [*SPECS, *OP_SPECS], ids=lambda path: path.stem)
def test_every_spec_here_loads(path: Path) -> None:
    """Every spec of this repository loads, and its name is that of its file."""
    graph = archspec.load(path)

    assert isinstance(graph.spec, Spec)
    assert graph.name.removeprefix("one_") == path.stem
