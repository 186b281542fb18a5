"""Small specs take little work: twice the spec is about twice the work, and what cannot be so is limited."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import archspec
from archspec import report
from archspec.analysis import claims
from archspec.language.source import MAX_DIAGNOSTICS
from archspec.report.compare import compare_facts
from archspec.report.drawing import draw
from archspec.targets import TARGETS, model_source

HEAD = "archspec: 1\nname: net\ninput: {channels: 3, height: 8, width: 8}\n"


def rows(count: int, row: str) -> str:
    """Return `count` rows, with their number for `#`."""
    return "".join(f"  - {{{row.replace('#', str(i))}}}\n" for i in range(count))


def joined(count: int, row: str) -> str:
    """Return a spec of `count` rows side by side, and their sum."""
    names = ", ".join(f"a{i}" for i in range(count))
    return f"{HEAD}layers:\n{rows(count, f'name: a#, from: input, {row}')}  - {{name: sum, op: add, from: [{names}]}}\n"


def errors(text: str) -> archspec.SpecError:
    """Return the errors of a spec."""
    with pytest.raises(archspec.SpecError) as caught:
        archspec.loads(text)
    return caught.value


def many_flattens(count: int, folder: Path) -> None:
    """Flattens whose order matters or not, and layers after them."""
    graph = archspec.loads(joined(count, "op: flatten") + rows(count, "name: t#, op: tanh"))
    model_source(graph, TARGETS["keras"])


def unknown_keys(count: int, folder: Path) -> None:
    """Keys that the language does not have."""
    errors(f"{HEAD}layers: [{{name: r, op: relu}}]\n" + "".join(f"key{i}: 1\n" for i in range(count)))


def unknown_layers(count: int, folder: Path) -> None:
    """Claims about layers that there are not, all like those that there are."""
    errors(f"{HEAD}layers:\n{rows(count, 'name: layer#, op: relu')}claims:\n{rows(count, 'layer: layre#, params: 0')}")


def unknown_blocks(count: int, folder: Path) -> None:
    """Rows with ops like the spec's own blocks."""
    blocks = "".join(f"  block{i}: {{layers: [{{op: relu}}]}}\n" for i in range(count))
    errors(f"{HEAD}blocks:\n{blocks}layers:\n{rows(count, 'name: a#, op: blokc#')}")


def one_name(count: int, folder: Path) -> None:
    """Layers of one name."""
    errors(f"{HEAD}layers:\n{rows(count, 'name: a, op: relu')}")


def ratios(count: int, folder: Path) -> None:
    """Claims that compare with another spec."""
    path = folder / "net.yaml"
    layers = (
        f"layers:\n  - {{name: c, op: conv2d, out_channels: 1, kernel_size: 1}}\n{rows(count, 'name: r#, op: relu')}"
    )
    path.write_text(f"{HEAD}{layers}claims:\n{rows(count, 'params: 1, times: net.yaml')}")
    claims.verdicts(archspec.load(path))


def shares(count: int, folder: Path) -> None:
    """Claims about the share of every layer."""
    layers = rows(count, "name: c#, op: conv2d, out_channels: 1, kernel_size: 1")
    claims.verdicts(archspec.loads(f"{HEAD}layers:\n{layers}claims:\n{rows(count, 'layer: c#, params_share: 1')}"))


def initializers(count: int, folder: Path) -> None:
    """Layers with a rule each."""
    row = "name: c#, op: conv2d, out_channels: 1, kernel_size: 1, init: {weight: {normal: {std: 1#}}}"
    model_source(archspec.loads(f"{HEAD}layers:\n{rows(count, row)}"), TARGETS["torch"])


def drawing(count: int, folder: Path) -> None:
    """Convolutions side by side, too many to draw."""
    assert draw(archspec.loads(joined(count, "op: conv2d, out_channels: 1, kernel_size: 1"))) is None


def views(count: int, folder: Path) -> None:
    """Flattens in a row, which share their memory."""
    graph = archspec.loads(f"{HEAD}layers:\n{rows(count, 'name: f#, op: flatten')}")
    list(report.report_lines(report.Facts(graph)))


def comparison(count: int, folder: Path) -> None:
    """A network of one op and itself."""
    graph = archspec.loads(f"{HEAD}layers:\n{rows(count, 'name: r#, op: relu')}")
    facts = compare_facts(graph, graph)
    assert not any(layer["differs"] for layer in facts["layers"])


def lines_run(task: Callable[[], Any]) -> int:
    """Return how many lines of Python a task runs: loops on one line, calls and generators count each time."""
    count = 0

    def trace(frame: object, event: str, argument: object) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        task()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    ("attack", "count"),
    [
        (many_flattens, 100),
        (unknown_keys, 200),
        (unknown_keys, 2000),
        (unknown_layers, 400),
        (unknown_blocks, 200),
        (one_name, 200),
        (one_name, 2000),
        (ratios, 300),
        (shares, 100),
        (initializers, 200),
        (drawing, 500),
        (views, 200),
        (comparison, 1001),
    ],
)
def test_twice_the_spec_is_twice_the_work(attack: Callable[[int, Path], None], count: int, tmp_path: Path) -> None:
    """None of these takes quadratic work, in which the second count would be four times the first."""
    if attack in (many_flattens, initializers):
        attack(1, tmp_path)  # imports, and templates are compiled
    once, twice = (lines_run(lambda n=n: attack(n, tmp_path)) for n in (count, 2 * count))

    assert twice < 2.5 * once


@pytest.mark.parametrize(
    "text",
    [
        f"{HEAD}layers:\n{rows(2 * MAX_DIAGNOSTICS, 'name: r#, op: relu, slope: 1')}",
        f"{HEAD}layers: [{{name: r, op: relu}}]\n" + "".join(f"key{i}: 1\n" for i in range(2 * MAX_DIAGNOSTICS)),
        f"{HEAD}layers: [{{name: r, op: relu}}]\nclaims:\n{rows(2 * MAX_DIAGNOSTICS, 'layer: b, macs: 0')}",
        f"{HEAD}layers: [{{name: r, op: relu}}]\nclaims:\n{rows(2 * MAX_DIAGNOSTICS, 'layer: r')}",
    ],
    ids=["rows", "keys", "layers", "claims"],
)
def test_of_many_errors_the_first_are_shown(text: str) -> None:
    """Of more than a thousand errors the last one says that there are more."""
    found = errors(text).diagnostics

    assert len(found) == MAX_DIAGNOSTICS + 1
    assert found[-1].code == "too-large"
    assert found[-1].message == "more than 1,000 errors or warnings: the others are not shown"


def test_of_many_false_claims_and_warnings_the_first_are_shown() -> None:
    """`check` returns a thousand errors of claims, and a thousand warnings, at most."""
    relus = rows(2 * MAX_DIAGNOSTICS, "name: r#, op: relu")
    checked = archspec.check(archspec.loads(f"{HEAD}layers:\n{relus}claims:\n{rows(2000, 'macs: 1')}"))

    codes = [d.code for d in checked.diagnostics]
    assert codes.count("relu-after-relu") == codes.count("false-claim") == MAX_DIAGNOSTICS
    assert codes.count("too-large") == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEAD}layers: [{{op: relu, name: r}}]\nclaims:\n{rows(10_001, 'macs: 0')}", "claims must have at most 10,000"),
        (f"{HEAD}unknown: [{'1, ' * 300_000}]", "more than 300,000 values"),
        (f"{HEAD}blocks: {{{', '.join(f'b{i}: 1' for i in range(1001))}}}\nlayers: []", "blocks must have at most 1,000"),
        (f"{HEAD}blocks: {{b: {{attributes: {{{', '.join(f'a{i}: 1' for i in range(101))}}}, layers: [{{op: relu}}]}}}}\nlayers: [{{name: b, op: b}}]", "attributes must have at most 100"),
    ],
    ids=["claims", "values", "blocks", "attributes"],
)  # fmt: skip
def test_sizes_are_limited(text: str, message: str) -> None:
    """More claims, values, blocks or attributes than a person writes are an error."""
    assert ("too-large", message) in [(d.code, d.message) for d in errors(text).diagnostics]


def test_the_layers_of_claims_are_limited() -> None:
    """Many claims about blocks of many layers are an error."""
    blocks = "blocks: {b: {layers: [{op: relu}]}}\n"
    layers = "layers: [{name: a, op: b, repeat: 200}, {name: c, op: b}]\n"
    some = rows(6000, "layer: a, macs: 0")
    with pytest.raises(archspec.SpecError, match=r"error\[too-large\]: the claims are about more than 1,000,000"):
        claims.verdicts(archspec.loads(f"{HEAD}{blocks}{layers}claims:\n{some}"))
