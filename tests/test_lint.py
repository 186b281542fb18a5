"""What `check` warns of, and how a layer says that it is meant."""

from __future__ import annotations

from typing import get_args

import pytest
from conftest import SPECS, spec

import archspec
from archspec.lint import lints
from archspec.ops.base import Lint


def told(layers: str, size: str = "{channels: 6, height: 9, width: 7}", head: str = "") -> list[str]:
    return [f"{d.code}: {d.message}" for d in lints(archspec.build(spec(layers, size, head))) if not d.allowed]


# A window, what it slides over, and what it leaves unread: the arithmetic beside each.
WINDOWS = [
    # (227 - 11) / 4 = 54: all read
    ("{op: conv2d, out_channels: 1, kernel_size: 11, stride: 4}", 227, 227, ""),
    # (224 - 11) / 4 = 53.25: 53 * 4 + 11 = 223 of 224; (222 - 11) / 4 = 52.75: 52 * 4 + 11 = 219 of 222
    ("{op: conv2d, out_channels: 1, kernel_size: 11, stride: 4}", 224, 222, "1 row and 3 columns"),
    # torchvision's: 2 + 224 + 2, and the one that is left is padding
    ("{op: conv2d, out_channels: 1, kernel_size: 11, stride: 4, padding: 2}", 224, 224, ""),
    # d2l's: 1 + 224 + 1; 53 * 4 + 11 = 223 end at row 222 of 224
    ("{op: conv2d, out_channels: 1, kernel_size: 11, stride: 4, padding: 1}", 224, 224, "2 rows and 2 columns"),
    # dilated by the stride, it reads every other row only
    ("{op: conv2d, out_channels: 1, kernel_size: 3, stride: 2, dilation: 2, padding: 2}", 14, 14, "7 rows and 7 columns"),
    # 0-1, 3-4 and 6 with the padding after it: what is between windows in the padding is none of the input
    ("{op: conv2d, out_channels: 1, kernel_size: 2, stride: 3, padding: {bottom: 3, right: 3}}", 7, 7, "2 rows and 2 columns"),
    # dilated by 3, at 0 and at 2: it reads 0, 3, 6 and 2, 5, 8
    ("{op: conv2d, out_channels: 1, kernel_size: 3, stride: 2, dilation: 3}", 10, 9, "4 rows and 3 columns"),
    ("{op: max_pool2d, kernel_size: 3, stride: 2}", 55, 54, "1 column"),
    ("{op: max_pool2d, kernel_size: 3, stride: 2, ceil_mode: true}", 54, 54, ""),
    ("{op: avg_pool2d, kernel_size: [2, 3]}", 7, 9, "1 row"),
    # rows 0-1, 5-6: three between them, and 7 at the end
    ("{op: avg_pool2d, kernel_size: 2, stride: 5}", 8, 2, "4 rows"),
    # a window of 1 picks on purpose, as ResNet's shortcuts do
    ("{op: conv2d, out_channels: 1, kernel_size: 1, stride: 2}", 56, 56, ""),
    ("{op: max_pool2d, kernel_size: 3, stride: 2, padding: same}", 10, 9, ""),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "height", "width", "missed"), WINDOWS)
def test_a_window_that_leaves_rows_unread(layer: str, height: int, width: int, missed: str) -> None:
    """What is said to be unread is what the arithmetic beside the row says."""
    found = told(layer.replace("{", "{name: one, ", 1), f"{{channels: 2, height: {height}, width: {width}}}")

    assert found == (
        [f"uncovered-rows: one: no window reads {missed} of its {height} x {width} input"] if missed else []
    )


@pytest.mark.parametrize("layer", [row[0] for row in WINDOWS])
def test_what_is_unread_has_no_gradient(layer: str) -> None:
    """The rows and columns that the lint counts are those whose gradient PyTorch gives as 0 everywhere."""
    torch = pytest.importorskip("torch")
    for height in range(11, 29):
        graph = archspec.build(
            spec(layer.replace("{", "{name: one, ", 1), f"{{channels: 2, height: {height}, width: 31}}")
        )
        op = graph.output.op
        (top, bottom), (left, right) = op.sides((2, height, 31))
        x = torch.ones(1, 1, height, 31, requires_grad=True)
        padded = torch.nn.functional.pad(x, (left, right, top, bottom))
        stride, dilation = getattr(op, "strides", op.stride), getattr(op, "dilation", (1, 1))
        if getattr(op, "ceil_mode", False):
            assert not lints(graph)
            continue
        torch.nn.functional.unfold(padded, op.kernel_size, stride=stride, dilation=dilation).sum().backward()
        rows, columns = int((x.grad.sum(dim=3) == 0).sum()), int((x.grad.sum(dim=2) == 0).sum())
        words = [f"{n} {what}{'s' * (n > 1)}" for n, what in ((rows, "row"), (columns, "column")) if n]
        said = " and ".join(words)
        if op.kernel_size == (1, 1):
            continue  # what a window of 1 leaves is meant

        assert [d.message for d in lints(graph)] == (
            [f"one: no window reads {said} of its {height} x 31 input"] if said else []
        )


def test_a_hostile_window_takes_no_memory() -> None:
    """Padding and a stride of two thousand million are not looked at value by value."""
    import tracemalloc

    size = "{channels: 1, height: 2, width: 2}"
    huge = "{name: one, op: conv2d, out_channels: 1, kernel_size: 2, stride: 2000000000, padding: 2000000000}"
    graph = archspec.build(spec(huge, size))
    tracemalloc.start()
    lints(graph)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 10 * 2**20


RECIPE = "training: {optimizer: {sgd: {lr: 0.01}}}"
FLAT = "{name: flat, op: flatten}\n{name: fc1, op: linear, out_features: 3}\n"
OTHERS = [
    ("{name: a, op: relu}\n{name: b, op: relu}", "", ["relu-after-relu: b: does nothing: a is never negative"]),
    ("{name: a, op: sigmoid}\n{name: p, op: max_pool2d, kernel_size: 1}\n{name: b, op: relu}", "", ["relu-after-relu: b: does nothing: p is never negative"]),
    ("{name: a, op: relu}\n{name: t, op: tanh}\n{name: b, op: relu}", "", ["relu-after-relu: b: does nothing: t is never negative"]),
    ("{name: c, op: conv2d, out_channels: 2, kernel_size: 1}\n{name: t, op: tanh}\n{name: b, op: relu}", "", []),
    ("{name: a, op: relu}\n{name: s, op: add, from: [a, input]}\n{name: b, op: relu}", "", []),
    ("{name: a, op: relu}\n{name: s, op: add, from: [a, a]}\n{name: b, op: relu}", "", ["relu-after-relu: b: does nothing: s is never negative"]),
    (FLAT + "{name: drop, op: dropout}", "", ["dropout-after-output: drop: drops the network's own scores: no layer after it learns"]),
    ("{name: drop, op: dropout}\n" + FLAT, "", []),
    (FLAT + "{name: prob, op: softmax}", "", []),
    (FLAT + "{name: prob, op: softmax}", RECIPE, ["softmax-before-loss: prob: cross_entropy reads scores: this would be a second softmax"]),
    ("{name: prob, op: softmax}\n" + FLAT, RECIPE, []),
    ("{name: c, op: conv2d, out_channels: 2, kernel_size: 3}\n{name: d, op: relu}\n{name: b, op: relu, from: input}", "", ["unread-layer: c: the output does not depend on it: it is left out of the network", "unread-layer: d: the output does not depend on it: it is left out of the network"]),
]  # fmt: skip


@pytest.mark.parametrize(("layers", "head", "expected"), OTHERS)
def test_the_other_lints(layers: str, head: str, expected: list[str]) -> None:
    """Each is told where it holds, and nowhere else."""
    assert told(layers, head=head) == expected


def test_a_layer_that_nothing_reads_is_no_part_of_the_network() -> None:
    """It is neither counted nor generated, and neither is what only it reads; what is said of its shape still holds."""
    graph = archspec.build(
        spec(
            "{name: c, op: conv2d, out_channels: 2, kernel_size: 3}\n{name: d, op: relu}\n{name: b, op: conv2d, out_channels: 2, kernel_size: 1, from: input}"
        )
    )
    from archspec.analysis import totals
    from archspec.emit import TARGETS, emit

    assert [node.name for node in graph.nodes] == ["b"]
    assert [node.name for node in graph.unread] == ["c", "d"]
    assert totals(graph).params == 2 * 6 + 2
    assert all("kernel_size=(3" not in (text := emit(graph, target)) and "relu" not in text for target in TARGETS)


def test_what_a_layer_allows_is_kept_with_its_reason() -> None:
    """A warning that is meant is not told, but stands in data with the reason; an allowance of nothing is a warning."""
    pool = "{name: p, op: max_pool2d, kernel_size: 2, allow: {uncovered-rows: 'as in the book'}}"
    (warning,) = lints(archspec.build(spec(pool)))
    (unused,) = lints(archspec.build(spec(pool, "{channels: 1, height: 4, width: 4}")))

    assert (warning.code, warning.severity, warning.allowed) == ("uncovered-rows", "warning", "as in the book")
    assert (unused.code, unused.allowed) == ("unused-allow", "")
    assert unused.message == "p: there is no uncovered-rows here to allow"


def test_every_lint_is_shown_above() -> None:
    """No word that `allow` takes is without a case."""
    shown = {line.partition(":")[0] for _, _, lines in OTHERS for line in lines}

    assert shown | {"uncovered-rows"} == set(get_args(Lint))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_houses_specs_are_without_warnings(path: object) -> None:
    """What they do on purpose they say, and why."""
    assert [d for d in lints(archspec.load(str(path))) if not d.allowed] == []
