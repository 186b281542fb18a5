"""Blocks and expressions: what they expand to, what they refuse, and how fast."""

from __future__ import annotations

import time
from typing import Any, get_args

import pytest

import archspec
from archspec.language.blocks import WORDS
from archspec.language.expressions import ExpressionError, parse
from archspec.language.initializers import BiasRule, Rule
from archspec.language.ops import OPS

HEAD = "archspec: 1\nname: net\ninput: {channels: 4, height: 8, width: 8}\n"


def net(blocks: str, layers: str) -> archspec.Graph:
    return archspec.loads(f"{HEAD}blocks:\n{blocks}\nlayers:\n{layers}\n")


EXPRESSIONS = [
    "4 * width",
    "width + 3 * 2 - 1",
    "(width + 3) * 2",
    "width // 3 % 4",
    "-width + 20",
    "- -width",
    "width / 4",
    "width - 3 - 2",
    "2 * width // 3 * 2",
    "stride == 1 and width == 16",
    "stride != 1 or not wide",
    "not (width > 3 and wide)",
    "width >= 16",
    "width < 16 or 1.5 <= stride",
    "wide and stride == 2 or width % 2 == 0",
    "1e2 + width",
]


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_an_expression_means_what_it_means_in_python(text: str) -> None:
    """The value, and its type, are those of Python's own evaluation of the same text."""
    values = {"width": 16, "stride": 2, "wide": True}
    expected = eval(text, {}, values)

    found = parse(text).evaluate(values)

    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("text", "message", "offset"),
    [
        ("n ** 2", "no powers", 2),
        ("n.real", "no attribute access", 1),
        ("n[0]", "no indexing", 1),
        ("max(n)", "no calls", 3),
        ("'n'", "no text", 0),
        ("n +", "ends too early", 3),
        ("(n", "ends too early", 2),
        ("n n", "'n' is not expected", 2),
        ("1 < n < 3", "write and between two", 6),
        ("n = 1", "write == to compare", 2),
        ("n; 1", "';' is not expected", 1),
        ("(" * 40 + "n" + ")" * 40, "nested more than 32 deep", 32),
        ("n" * 201, "at most 200", 0),
        ("9" * 30, "a number above", 0),
    ],
)
def test_what_is_no_expression(text: str, message: str, offset: int) -> None:
    """The message says what is wrong, and the offset where."""
    with pytest.raises(ExpressionError, match=message) as caught:
        parse(text)

    assert caught.value.offset == offset


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8 // zero", "division by zero"),
        ("8 % zero", "division by zero"),
        ("8 / zero", "division by zero"),
        ("n + wide", "needs a number here: wide is true"),
        ("n and wide", "needs true or false here: n is 7"),
        ("n * word", "needs a number here: word is 'relu'"),
        ("big * big", "the result is beyond"),
    ],
)
def test_an_expression_without_a_value(text: str, message: str) -> None:
    """Divisions by zero, operands of another type, and results beyond 2^53 are errors."""
    values = {"zero": 0, "n": 7, "wide": True, "word": "relu", "big": 2**40}

    with pytest.raises(ExpressionError, match=message):
        parse(text).evaluate(values)


def test_the_reserved_words_are_those_of_the_language() -> None:
    """No attribute or block can have the name of a rule, an option of an op, or `same`."""
    from archspec.language.initializers import KaimingNormal

    rules = {
        get_args(model.model_fields["rule"].annotation)[0]
        for union in (Rule, BiasRule)
        for model in get_args(get_args(union)[0])
    }
    options = {
        word
        for model in [*OPS.values(), KaimingNormal]
        for name, field in model.model_fields.items()
        if name not in ("op", "rule", "allow")
        for word in words(field.annotation)
    }

    assert rules | options | {"same"} == WORDS | {"relu", "tanh", "sigmoid", "linear"}


def words(annotation: Any) -> set[str]:
    """Return the words of a Literal in an annotation."""
    from typing import Literal, get_origin

    if get_origin(annotation) is Literal:
        return {word for word in get_args(annotation) if isinstance(word, str)}
    return {word for part in get_args(annotation) for word in words(part)}


BASIC = """
  unit:
    attributes: {width: required, stride: 1}
    layers:
      - {op: conv2d, out_channels: width, kernel_size: 3, stride: stride, padding: 1}
      - {op: relu}
  cell:
    attributes: {width: required, stride: 1}
    layers:
      - {name: conv, op: unit, width: width, stride: stride}
      - {name: short, op: conv2d, from: input, out_channels: width, kernel_size: 1, stride: stride, when: in_channels != width or stride != 1}
      - {name: sum, op: add, from: [conv, short]}
"""


def test_a_block_expands_to_dotted_names() -> None:
    """Layers are named by path; a repeated row is numbered, and a row that is left out stands for what it reads."""
    graph = net(
        BASIC, "  - {name: a, op: cell, width: 4}\n  - {name: b, op: cell, width: 6, repeat: 2, first: {stride: 2}}"
    )

    assert [node.name for node in graph.nodes] == [
        *("a.conv.0", "a.conv.1", "a.sum"),
        *("b.0.conv.0", "b.0.conv.1", "b.0.short", "b.0.sum"),
        *("b.1.conv.0", "b.1.conv.1", "b.1.sum"),
    ]
    assert [node.name for node in graph.named["a.sum"][0].inputs] == ["a.conv.1", "input"]
    assert [node.name for node in graph.named["b.1.sum"][0].inputs] == ["b.1.conv.1", "b.0.sum"]
    assert graph.output.output_shape == (6, 4, 4)


def test_a_layer_that_is_left_out_stands_for_what_it_reads_first() -> None:
    """As MobileNetV2's sum does where the channels change."""
    graph = net(
        "  cell:\n    attributes: {n: required}\n    layers:\n"
        "      - {name: conv, op: conv2d, out_channels: n, kernel_size: 1}\n"
        "      - {name: sum, op: add, from: [conv, input], when: in_channels == n}\n"
        "      - {name: act, op: relu}",
        "  - {name: a, op: cell, n: 6}\n  - {name: b, op: cell, n: 6}",
    )

    assert [node.name for node in graph.nodes] == ["a.conv", "a.act", "b.conv", "b.sum", "b.act"]
    assert [node.name for node in graph.named["a.act"][0].inputs] == ["a.conv"]


def test_a_block_is_the_same_network_written_flat() -> None:
    """Shapes, parameters and counts of the expanded network are those of the flat one."""
    flat = archspec.loads(
        HEAD
        + """layers:
  - {name: c1, op: conv2d, out_channels: 6, kernel_size: 3, stride: 2, padding: 1}
  - {name: r1, op: relu}
  - {name: s1, op: conv2d, from: input, out_channels: 6, kernel_size: 1, stride: 2}
  - {name: a1, op: add, from: [r1, s1]}
  - {name: c2, op: conv2d, out_channels: 6, kernel_size: 3, padding: 1}
  - {name: r2, op: relu}
  - {name: a2, op: add, from: [r2, a1]}
"""
    )
    blocks = net(BASIC, "  - {name: b, op: cell, width: 6, repeat: 2, first: {stride: 2}}")

    assert [(n.op.op, n.output_shape, n.params) for n in blocks.nodes] == [
        (n.op.op, n.output_shape, n.params) for n in flat.nodes
    ]
    assert archspec.check(blocks).totals == archspec.check(flat).totals


def test_what_first_may_change() -> None:
    """`first` gives the first of several other attributes, or another op or block, with the attributes that it has."""
    graph = net(
        BASIC,
        "  - {name: a, op: cell, width: 6, repeat: 3, first: {op: unit, stride: 2}}\n"
        "  - {name: b, op: relu, repeat: 2, first: {op: sigmoid}}",
    )

    names = [node.name for node in graph.nodes]
    assert names[:2] == ["a.0.0", "a.0.1"]
    assert names[-2:] == ["b.0", "b.1"]
    assert [graph.named[name][0].op.op for name in ("b.0", "b.1")] == ["sigmoid", "relu"]


def test_index_is_the_number_in_a_repeated_row() -> None:
    """`index` counts from 0."""
    graph = net(
        "  grow:\n    attributes: {n: required}\n    layers:\n"
        "      - {name: c, op: conv2d, out_channels: 4 + 2 * index, kernel_size: 1, repeat: n}",
        "  - {name: g, op: grow, n: 3}",
    )

    assert [node.output_shape[0] for node in graph.nodes] == [4, 6, 8]


def test_index_is_known_in_a_repeated_row_of_the_network() -> None:
    """Of the names in expressions, the rows of the network itself have `index`, where they are repeated."""
    unit = "  unit:\n    attributes: {width: required}\n    layers:\n      - {op: conv2d, out_channels: width, kernel_size: 1}"
    graph = net(unit, "  - {name: u, op: unit, width: 4 + 2 * index, repeat: 3}")
    assert [node.output_shape[0] for node in graph.nodes] == [4, 6, 8]

    for row, message in (
        (
            "{name: u, op: unit, width: 4 + in_channels, repeat: 2}",
            ":36: error.unknown-attribute.: u: no attribute 'in_ch",
        ),
        ("{name: u, op: unit, width: 4 + index}", "error.wrong-value.: u: width must be a number"),
        ("{name: u, op: unit, width: 4, repeat: 1 + index}", "repeat must be a positive whole number"),
    ):
        with pytest.raises(archspec.SpecError, match=message):
            net(unit, f"  - {row}")


def test_a_block_may_have_several_inputs() -> None:
    """`inputs` names what the block reads, in the order of `from`."""
    graph = net(
        "  joint:\n    inputs: [left, right]\n    layers:\n      - {name: sum, op: concat, from: [right, left]}",
        "  - {name: a, op: relu}\n  - {name: b, op: tanh, from: input}\n  - {name: j, op: joint, from: [a, b]}",
    )

    assert [node.name for node in graph.output.inputs] == ["b", "a"]


def test_init_and_multipliers_go_by_the_role_of_a_parameter() -> None:
    """The spec's `init` is for kernels and biases: a norm has ones and zeros, or its own."""
    graph = archspec.loads(
        HEAD
        + """init: {weight: {constant: 3}, bias: {constant: 2}}
layers:
  - {name: conv, op: conv2d, out_channels: 4, kernel_size: 1}
  - {name: norm, op: batch_norm2d}
  - {name: last, op: batch_norm2d, init: {weight: zeros}}
"""
    )
    rules = {
        f"{node.name}.{name}": graph.initializer(node, name).rule for node in graph.nodes for name in node.trainable
    }

    assert rules == {
        "conv.weight": "constant",
        "conv.bias": "constant",
        "norm.weight": "ones",
        "norm.bias": "zeros",
        "last.weight": "zeros",
        "last.bias": "zeros",
    }


def nested(depth: int) -> str:
    lines = ["  b0:\n    layers: [{op: relu}]"]
    lines += [f"  b{i}:\n    layers: [{{op: b{i - 1}}}]" for i in range(1, depth)]
    return "\n".join(lines)


TEN = "\n".join(
    ["  b0:\n    layers: [{name: x, op: relu, repeat: 10}]"]
    + [f"  b{i}:\n    layers: [{{name: x, op: b{i - 1}, repeat: 10}}]" for i in range(1, 9)]
)
THOUSAND = "\n".join(
    ["  b0:\n    layers: [{name: x, op: relu, repeat: 1000}]"]
    + [f"  b{i}:\n    layers: [{{name: x, op: b{i - 1}, repeat: 1000}}]" for i in range(1, 3)]
)
HOSTILE = {
    "nested repeats": (THOUSAND, "  - {name: a, op: b2}", "too-large"),
    "ten-fold blocks": (TEN, "  - {name: a, op: b8}", "too-large"),
    "a huge repeat that is never there": (
        "  b:\n    attributes: {n: required}\n    layers:\n      - {name: x, op: relu, repeat: n, when: n == 1}",
        "  - {name: a, op: b, n: 1000000000}",
        "too-large",
    ),
    "powers": (
        "  b:\n    attributes: {n: required}\n    layers: [{op: conv2d, out_channels: n ** 999999999, kernel_size: 1}]",
        "  - {name: a, op: b, n: 9}",
        "expression",
    ),
    "parentheses": (
        "  b:\n    attributes: {n: 1}\n    layers: [{op: conv2d, kernel_size: 1, out_channels: "
        + "(" * 5000 + "n" + ")" * 5000 + "}]",
        "  - {name: a, op: b}",
        "expression",
    ),
    "a division by zero": (
        "  b:\n    attributes: {n: 0}\n    layers: [{op: conv2d, out_channels: 8 // n, kernel_size: 1}]",
        "  - {name: a, op: b}",
        "expression",
    ),
    "600 levels": (nested(600), "  - {name: a, op: b599}", "too-deep"),
    "recursion": ("  b:\n    layers: [{op: b}]", "  - {name: a, op: b}", "unknown-op"),
    "an import": (
        "  b:\n    attributes: {n: 1}\n    layers: [{op: conv2d, kernel_size: 1, out_channels: \"__import__('os').getpid()\"}]",
        "  - {name: a, op: b}",
        "expression",
    ),
    "a recursion by word": (
        "  b:\n    attributes: {n: required}\n    layers: [{op: n, n: n}]",
        "  - {name: a, op: b, n: b}",
        "unknown-op",
    ),
    "channels squared 100 times": (
        "  b:\n    attributes: {n: 1}\n    layers: [{name: x, op: conv2d, out_channels: in_channels * in_channels, kernel_size: 1}]",
        "\n".join(f"  - {{name: a{i}, op: b}}" for i in range(100)),
        "out-of-range",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("blocks", "layers", "code"), HOSTILE.values(), ids=HOSTILE.keys())
def test_what_would_exhaust_the_machine_is_refused_at_its_place(blocks: str, layers: str, code: str) -> None:
    """Each is a diagnostic with a place, found before anything is expanded."""
    start = time.process_time()
    with pytest.raises(archspec.SpecError) as caught:
        net(blocks, layers)

    assert code in {diagnostic.code for diagnostic in caught.value.diagnostics}
    assert all(diagnostic.span.line > 2 for diagnostic in caught.value.diagnostics)
    assert time.process_time() - start < 5  # 1 s on a quiet machine


@pytest.mark.parametrize(
    ("op", "hint"),
    [
        ("dense", "write `op: linear`"),
        ("fc", "write `op: linear`"),
        ("Linear", "write `op: linear`"),
        ("ReLU", "write `op: relu`"),
        ("BatchNorm2d", "write `op: batch_norm2d`"),
        ("BatchNormalization", "write `op: batch_norm2d`"),
        ("lrn", "write `op: local_response_norm`"),
        ("global_avg_pool2d", "`output_size: 1`"),
        ("depthwise_conv2d", "`groups` equal to its input channels"),
        ("Multiply", "write `op: mul`"),
        ("ChannelShuffle", "write `op: channel_shuffle`"),
    ],
)
def test_names_of_other_frameworks_say_what_to_write(op: str, hint: str) -> None:
    """An op's name in PyTorch, Keras or Caffe is answered with its name here."""
    with pytest.raises(archspec.SpecError, match=hint):
        archspec.loads(f"{HEAD}layers:\n  - {{name: a, op: {op}}}\n")


@pytest.mark.parametrize(
    ("layer", "hint"),
    [
        ("op: conv2d, filters: 3, kernel_size: 1", "out_channels"),
        ("op: linear, units: 3", "out_features"),
        ("op: dropout, rate: 0.3", "write `p`"),
        ("op: linear, out_features: 3, activation: relu", "add a layer after it"),
        ("op: conv2d, in_channels: 3, out_channels: 3, kernel_size: 1", "it is inferred"),
    ],
)
def test_keys_of_other_frameworks_say_what_to_write(layer: str, hint: str) -> None:
    """A key of PyTorch, Keras or Caffe is answered with what to write here."""
    with pytest.raises(archspec.SpecError, match=hint):
        archspec.loads(f"{HEAD}layers:\n  - {{name: a, {layer}}}\n")


def test_an_error_has_the_place_in_the_block_and_the_uses_of_it() -> None:
    """Text, JSON, SARIF and GitHub's commands show both."""
    import json

    from archspec.language.diagnostics import as_github, as_json, as_sarif

    with pytest.raises(archspec.SpecError) as caught:
        net(
            BASIC,
            "  - {name: a, op: cell, width: 4, stride: 20, repeat: 2, first: {stride: 1}}\n  - {name: b, op: max_pool2d, kernel_size: 30}",
        )

    (found,) = caught.value.diagnostics
    assert "in" not in [span for span, _ in found.related]
    text = str(caught.value)
    assert "b: a window of 30 x 30 does not fit" in text
    assert found.related == ()
    with pytest.raises(archspec.SpecError) as caught:
        net(BASIC, "  - {name: a, op: cell, width: 0}")
    (found,) = caught.value.diagnostics
    assert [message for _, message in found.related] == [
        "in a.conv, where width is 0 and stride is 1",
        "in a, where width is 0 and stride is 1",
    ]
    assert str(caught.value).splitlines()[-1].endswith("in a, where width is 0 and stride is 1")
    related = json.loads(as_json([found]))["diagnostics"][0]["related"]
    assert [place["message"] for place in related] == [message for _, message in found.related]
    result = json.loads(as_sarif([found]))["runs"][0]["results"][0]
    assert [place["message"]["text"] for place in result["relatedLocations"]] == [m for _, m in found.related]
    assert "in a, where width is 0" in as_github([found])
