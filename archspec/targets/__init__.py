"""Targets: the source code of a network and its training program, for each framework."""

from __future__ import annotations

import ast
import builtins
import contextlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from threading import Lock

from archspec.graph import Graph
from archspec.language.recipe import Training
from archspec.language.source import Loc, SpecError
from archspec.targets import render
from archspec.targets.base import Target, split_variant
from archspec.targets.header import with_header
from archspec.targets.keras import KERAS
from archspec.targets.numpy import NUMPY
from archspec.targets.torch import TORCH

__all__ = [
    "INSTALL",
    "TARGETS",
    "TRAINED",
    "VARIANTS",
    "Target",
    "files",
    "model_parallel",
    "model_source",
    "split_variant",
    "target_of",
]

TARGETS: dict[str, Target] = {target.name: target for target in (TORCH, KERAS, NUMPY)}

# Every name that --target of `verify` accepts: a target, or a target on one of its backends.
VARIANTS = (*TARGETS, *(f"{target.name}-{backend}" for target in TARGETS.values() for backend in target.backends))

TRAINED = tuple(name for name, target in TARGETS.items() if target.trains)  # the targets with a training program

# CPython 3.11 loses count of its depth where two threads parse, or a collection of garbage runs meanwhile
# (python/cpython#106905): "AST constructor recursion depth mismatch".
_parsing = Lock()
_ATTEMPTS = 5

# How to install an extra, from a checkout and from a package index.
INSTALL = "pip install '.[{extra}]' in a checkout of archspec, or pip install 'archspec-nn[{extra}]'"

MODULES = ("model", "recipe", "train", "engine")  # that generated files import from beside them


def target_of(name: str) -> Target:
    """Return the target of a variant, e.g. Keras' for `keras-jax`; raise KeyError for an unknown one."""
    return TARGETS[split_variant(name)[0]]


def files(
    graph: Graph, target: Target, recipe: Training | None = None, *, headers: bool = True, engine: bool = True
) -> dict[str, str]:
    """Return the generated files of a network for `target`, by their paths below the spec's folder.

    `model.py` and, if the spec or `recipe` says how to train, `recipe.py`, `train.py` and, with `engine`, `engine/`.
    Raises SpecError where the target cannot express a layer.
    """
    recipe = recipe or graph.spec.training
    texts = {"model.py": _model(graph, target)}
    if target.recipe and recipe:
        view = target.recipe(target.model(graph), recipe)
        texts["recipe.py"] = render.render(target.template("recipe.py.jinja"), recipe=view, model=view.model)
    texts = render.formatted(texts, MODULES)
    if target.recipe and recipe:
        texts |= {name: text for name, text in _engine(target).items() if engine or "/" not in name}
    return {
        f"{target.folder}/{name}": with_header(name, text, graph.source) if headers else text
        for name, text in texts.items()
    }


def model_source(graph: Graph, target: Target) -> str:
    """Return the source of a network's model alone, unformatted and without a header; raise SpecError as `files`."""
    return _model(graph, target)


def model_parallel(graph: Graph) -> dict[str, str]:
    """Return `pytorch/model_parallel.py`: the network on two ranks, half of every layer's channels on each.

    Raises SpecError where a network has no two equal halves.
    """
    from archspec.graph.model_parallel import replicated_params, shard, transfers

    part = shard(graph)
    text = _render_model(
        part,
        TORCH,
        "model_parallel.py.jinja",
        transfers=transfers(part),
        replicated=replicated_params(part),
        batch=graph.spec.training.batch_size if graph.spec.training else 128,
    )
    name = "model_parallel.py"
    return {f"{TORCH.folder}/{name}": with_header(name, render.formatted({name: text}, MODULES)[name], graph.source)}


def require_code(graph: Graph) -> None:
    """Raise SpecError for a network with a layer that no target computes."""
    for node in graph.nodes:
        if node.op.is_opaque:  # type: ignore[union-attr]
            message = f"{node.name}: an opaque layer is counted, not computed: no target has code for it"
            raise SpecError([graph.source.error("unsupported-by-target", message, (*node.loc, "op"))])


def _model(graph: Graph, target: Target) -> str:
    return _render_model(graph, target, "model.py.jinja")


def _render_model(graph: Graph, target: Target, template: str, **context: object) -> str:
    """Return a model's source in which no variable hides a name that the file uses, and no parameter is unused."""
    require_code(graph)
    taken: frozenset[str] = frozenset()
    unused: frozenset[tuple[str, str]] = frozenset()
    while True:
        view = target.model(graph, taken, unused)
        try:
            text = render.render(target.template(template), model=view, **context)
        except render.UnsupportedError as error:
            raise _unsupported(graph, target, error) from None
        module = _parsed(text)
        names = _module_names(module)
        for body in view.bodies:
            loc: Loc = body.block.loc if body.block else ("name",)
            if names.count(body.name) > 1:
                kind = "class" if body.name[0].isupper() else "function"
                message = f"{kind} {body.name} would replace a name that {target.title} code uses: choose another name"
                raise SpecError([graph.source.error("reserved-name", message, loc, key=body.block is not None)])
            for name in body.used_names & _shadowed(module):
                message = f"{name} is a name that {target.title} code uses: choose another for the attribute"
                raise SpecError([graph.source.error("reserved-name", message, (*loc, "attributes", name), key=True)])
        if replaced := _replaced_methods(module):
            row = next(row.row for body in view.bodies for row in body.rows if row.name in replaced)
            message = f"{row.name} is a method of the {target.title} model: choose another name"
            raise SpecError([graph.source.error("reserved-name", message, (*row.loc, "name"))])
        hidden = frozenset(names) & view.variables
        idle = _unused_parameters(module, {body.name: body.used_names for body in view.blocks})
        if not hidden - taken and not idle:
            return text
        taken |= hidden
        unused |= idle


def _parsed(text: str) -> ast.Module:
    """Return the syntax tree of a file, in spite of the fault of CPython 3.11."""
    for _ in range(_ATTEMPTS):
        with _parsing, contextlib.suppress(SystemError):
            return ast.parse(text)
    return ast.parse(text)


def _unused_parameters(module: ast.Module, names: Mapping[str, set[str]]) -> set[tuple[str, str]]:
    """Return the names that a block's code was to depend on, and does not."""
    found = set()
    for node in module.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name in names:
            read = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
            found |= {(node.name, name) for name in names[node.name] - read}
    return found


def _replaced_methods(module: ast.Module) -> set[str]:
    """Return the methods of a module's classes that an attribute of the same name replaces."""
    replaced: set[str] = set()
    for node in module.body:
        if isinstance(node, ast.ClassDef):
            methods = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
            stored = (n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store))
            replaced |= methods & set(stored)
    return replaced


def _shadowed(module: ast.Module) -> set[str]:
    """Return the names that no parameter of a block's code may have: what the file imports and defines, and calls."""
    return {"range", "super", *_defined(module)}


def _defined(module: ast.Module) -> Iterator[str]:
    """Yield the names that a module imports, and those of its classes and functions."""
    for node in module.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name


def _module_names(module: ast.Module) -> list[str]:
    """Return the names that a module binds at its top level, and Python's builtins."""
    names = [*dir(builtins), *_defined(module)]
    for node in module.body:
        if isinstance(node, ast.FunctionDef):
            names += [arg.arg for arg in node.args.args]
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return names


def _unsupported(graph: Graph, target: Target, error: render.UnsupportedError) -> SpecError:
    loc = (*error.layer.node.loc, error.field or "op")
    message = f"{error.layer.name}: {target.title} {error}"
    return SpecError([graph.source.error("unsupported-by-target", message, loc)])


@cache
def _engine(target: Target) -> Mapping[str, str]:
    """Return the training program and its engine, which are the same for every network."""
    folder = Path(__file__).parent.parent / "engines" / target.engine
    paths = sorted(folder.glob("*.py"))
    return {
        "train.py" if path.stem == "train" else f"engine/{path.name}": path.read_text(encoding="utf-8")
        for path in paths
    }
