"""Lints: where each warns, and how a layer allows one with a reason."""

from __future__ import annotations

from typing import get_args

import pytest
from helpers import SPECS, network

import archspec
from archspec.analysis import totals
from archspec.analysis.lint import lints
from archspec.language.ops.base import Lint
from archspec.targets import TARGETS, model_source


def warnings(layers: str, size: str = "{channels: 6, height: 9, width: 7}", head: str = "") -> list[str]:
    return [f"{d.code}: {d.message}" for d in lints(network(layers, size, head)) if not d.allowed]


# A window, the height and width of its input, and what no window covers, with the arithmetic.
WINDOWS = [
    # (227 - 11) / 4 = 54: all covered
    ("{op: conv2d, out_channels: 1, kernel_size: 11, stride: 4}", 227, 227, ""),
    # (224 - 11) / 4 = 53.25: 53 * 4 + 11 = 223 of 224; (222 - 11) / 4 = 52.75: 52 * 4 + 11 = 219 of 222
    ("{op: conv2d, out_channels: 1, kernel_size: 11, stride: 4}", 224, 222, "1 row and 3 columns"),
    # torchvision's: 2 + 224 + 2, and the row that is left is padding
    ("{op: conv2d, out_channels: 1, kernel_size: 11, stride: 4, padding: 2}", 224, 224, ""),
    # d2l's: 1 + 224 + 1; 53 * 4 + 11 = 223 end at row 222 of 224
    ("{op: conv2d, out_channels: 1, kernel_size: 11, stride: 4, padding: 1}", 224, 224, "2 rows and 2 columns"),
    # dilated by the stride, it covers every other row only
    ("{op: conv2d, out_channels: 1, kernel_size: 3, stride: 2, dilation: 2, padding: 2}", 14, 14, "7 rows and 7 columns"),
    # 0-1, 3-4 and 6 with the padding after it; the padding between windows does not count
    ("{op: conv2d, out_channels: 1, kernel_size: 2, stride: 3, padding: {bottom: 3, right: 3}}", 7, 7, "2 rows and 2 columns"),
    # dilated by 3, at 0 and at 2: it covers 0, 3, 6 and 2, 5, 8
    ("{op: conv2d, out_channels: 1, kernel_size: 3, stride: 2, dilation: 3}", 10, 9, "4 rows and 3 columns"),
    ("{op: max_pool2d, kernel_size: 3, stride: 2}", 55, 54, "1 column"),
    ("{op: max_pool2d, kernel_size: 3, stride: 2, ceil_mode: true}", 54, 54, ""),
    ("{op: avg_pool2d, kernel_size: [2, 3]}", 7, 9, "1 row"),
    # rows 0-1, 5-6: three between them, and 7 at the end
    ("{op: avg_pool2d, kernel_size: 2, stride: 5}", 8, 2, "4 rows"),
    # a window of 1 skips on purpose, as ResNet's shortcuts do
    ("{op: conv2d, out_channels: 1, kernel_size: 1, stride: 2}", 56, 56, ""),
    ("{op: max_pool2d, kernel_size: 3, stride: 2, padding: same}", 10, 9, ""),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "height", "width", "uncovered"), WINDOWS)
def test_uncovered_rows_and_columns(layer: str, height: int, width: int, uncovered: str) -> None:
    """The warning counts the rows and columns that the arithmetic of WINDOWS counts."""
    size = f"{{channels: 2, height: {height}, width: {width}}}"
    message = f"uncovered-rows: one: no window covers {uncovered} of its {height} x {width} input"

    assert warnings(layer.replace("{", "{name: one, ", 1), size) == ([message] if uncovered else [])


@pytest.mark.frameworks
@pytest.mark.parametrize("layer", [row[0] for row in WINDOWS])
def test_uncovered_rows_have_no_gradient(layer: str) -> None:
    """The lint counts the rows and columns whose gradient is 0 everywhere in PyTorch."""
    torch = pytest.importorskip("torch")
    for height in range(11, 29):
        graph = network(layer.replace("{", "{name: one, ", 1), f"{{channels: 2, height: {height}, width: 31}}")
        op = graph.output.op
        (top, bottom), (left, right) = op.explicit_padding((2, height, 31))
        x = torch.ones(1, 1, height, 31, requires_grad=True)
        padded = torch.nn.functional.pad(x, (left, right, top, bottom))
        stride, dilation = getattr(op, "strides", op.stride), getattr(op, "dilation", (1, 1))
        if getattr(op, "ceil_mode", False):
            assert not lints(graph)
            continue
        torch.nn.functional.unfold(padded, op.kernel_size, stride=stride, dilation=dilation).sum().backward()
        rows, columns = int((x.grad.sum(dim=3) == 0).sum()), int((x.grad.sum(dim=2) == 0).sum())
        words = [f"{n} {axis}{'s' * (n > 1)}" for n, axis in ((rows, "row"), (columns, "column")) if n]
        uncovered = " and ".join(words)
        if op.kernel_size == (1, 1):
            continue  # a window of 1 skips on purpose

        assert [d.message for d in lints(graph)] == (
            [f"one: no window covers {uncovered} of its {height} x 31 input"] if uncovered else []
        )


def test_the_lint_of_a_huge_window_allocates_little() -> None:
    """Padding and a stride of 2e9 are not checked element by element."""
    import tracemalloc

    size = "{channels: 1, height: 2, width: 2}"
    huge = "{name: one, op: conv2d, out_channels: 1, kernel_size: 2, stride: 2000000000, padding: 2000000000}"
    graph = network(huge, size)
    tracemalloc.start()
    lints(graph)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 10 * 2**20


RECIPE = "training: {optimizer: {sgd: {lr: 0.01}}}"
FLAT = "{name: flat, op: flatten}\n{name: fc1, op: linear, out_features: 3}\n"
OTHERS = [
    ("{name: a, op: relu}\n{name: b, op: relu}", "", ["relu-after-relu: b: has no effect: a is never negative"]),
    ("{name: a, op: sigmoid}\n{name: p, op: max_pool2d, kernel_size: 1}\n{name: b, op: relu}", "", ["relu-after-relu: b: has no effect: p is never negative"]),
    ("{name: a, op: relu}\n{name: t, op: tanh}\n{name: b, op: relu}", "", ["relu-after-relu: b: has no effect: t is never negative"]),
    ("{name: c, op: conv2d, out_channels: 2, kernel_size: 1}\n{name: t, op: tanh}\n{name: b, op: relu}", "", []),
    ("{name: a, op: relu}\n{name: s, op: add, from: [a, input]}\n{name: b, op: relu}", "", []),
    ("{name: a, op: relu}\n{name: s, op: add, from: [a, a]}\n{name: b, op: relu}", "", ["relu-after-relu: b: has no effect: s is never negative"]),
    ("{name: o, op: opaque, kind: Roll, shape: [3]}", "", ["opaque-layer: o: its operations are not counted, and no target computes it"]),
    (FLAT + "{name: drop, op: dropout}", "", ["dropout-after-output: drop: drops the network's own outputs: no layer after it has parameters"]),
    ("{name: drop, op: dropout}\n" + FLAT, "", []),
    (FLAT + "{name: prob, op: softmax}", "", []),
    (FLAT + "{name: prob, op: softmax}", RECIPE, ["softmax-before-loss: prob: cross_entropy expects logits: this would be a second softmax"]),
    ("{name: prob, op: softmax}\n" + FLAT, RECIPE, []),
    ("{name: c, op: conv2d, out_channels: 2, kernel_size: 3}\n{name: d, op: relu}\n{name: b, op: relu, from: input}", "", ["unused-layer: c: the output does not depend on it: it is not part of the network", "unused-layer: d: the output does not depend on it: it is not part of the network"]),
]  # fmt: skip


@pytest.mark.parametrize(("layers", "head", "expected"), OTHERS)
def test_the_other_lints(layers: str, head: str, expected: list[str]) -> None:
    """Each lint warns at the layers in OTHERS and at no others."""
    assert warnings(layers, head=head) == expected


def test_unused_layers_are_not_part_of_the_network() -> None:
    """A layer that the output does not depend on is neither counted nor generated."""
    graph = network(
        """
        {name: c, op: conv2d, out_channels: 2, kernel_size: 3}
        {name: d, op: relu}
        {name: b, op: conv2d, out_channels: 2, kernel_size: 1, from: input}
        """
    )
    texts = [model_source(graph, target) for target in TARGETS.values()]

    assert [node.name for node in graph.nodes] == ["b"]
    assert [node.name for node in graph.unused] == ["c", "d"]
    assert totals(graph).params == 2 * 6 + 2
    assert all("kernel_size=3" not in text and "Conv2D(2, 3" not in text for text in texts)
    assert all("relu" not in text.lower() for text in texts)


def test_an_allowed_warning_has_its_reason() -> None:
    """An allowed warning is kept with its reason; allowing a warning that does not occur is a warning."""
    pool = "{name: p, op: max_pool2d, kernel_size: 2, allow: {uncovered-rows: 'as in the book'}}"
    (warning,) = lints(network(pool))
    (unused,) = lints(network(pool, "{channels: 1, height: 4, width: 4}"))

    assert (warning.code, warning.severity, warning.allowed) == ("uncovered-rows", "warning", "as in the book")
    assert (unused.code, unused.allowed) == ("unused-allow", "")
    assert unused.message == "p: there is no uncovered-rows here to allow"


def test_every_lint_has_a_case() -> None:
    """WINDOWS and OTHERS have every lint that `allow` accepts."""
    shown = {line.partition(":")[0] for _, _, lines in OTHERS for line in lines}

    assert shown | {"uncovered-rows"} == set(get_args(Lint))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_specs_here_have_no_warnings(path: object) -> None:
    """Every warning about a spec of this repository is allowed in it, with a reason."""
    assert [d for d in lints(archspec.load(str(path))) if not d.allowed] == []


IN_BLOCKS = """archspec: 1
name: net
input: {channels: 4, height: 8, width: 8}
blocks:
  cell:
    layers:
      - {name: first, op: relu}
      - {name: second, op: relu%s}
layers:
  - {name: a, op: cell, repeat: 2, first: {op: sigmoid}}
  - {name: idle, op: cell, from: input}
  - {name: b, op: cell, from: a}
"""


def test_a_row_of_a_block_is_warned_about_once() -> None:
    """At its first instance, with the number of the others; a block that is not used is one warning, at its use."""
    found = [(w.code, w.span.line + 1, w.message) for w in lints(archspec.loads(IN_BLOCKS % ""))]

    assert found == [
        ("relu-after-relu", 7, "a.1.first: has no effect: a.0 is never negative; so it is in 1 more of its instances"),
        (
            "relu-after-relu",
            8,
            "a.1.second: has no effect: a.1.first is never negative; so it is in 1 more of its instances",
        ),
        ("unused-layer", 11, "idle: the output does not depend on it: it is not part of the network"),
    ]


def test_a_row_of_a_block_allows_a_warning_in_all_instances() -> None:
    """The reason is the row's."""
    warnings = lints(archspec.loads(IN_BLOCKS % ", allow: {relu-after-relu: to  show}"))

    assert {w.span.line + 1: w.allowed for w in warnings} == {7: "", 8: "to show", 11: ""}
