"""Each op alone: its shapes, weights and MACs, and every attribute in every target's text."""

from __future__ import annotations

import re
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import FRAMEWORKS, OP_SPECS, ROOT, spec

import archspec
from archspec import ops
from archspec.emit import TARGETS, emit
from archspec.inits import BiasRule, Rule
from archspec.ops.base import same, window
from archspec.source import Source

OPS = {
    model.model_fields["op"].annotation.__args__[0]: model for model in typing.get_args(typing.get_args(ops.AnyOp)[0])
}

# An input, a layer, and what comes out: shape, weight, bias, MACs. Shapes are PyTorch's own (2.14.1, run by hand) or the
# arithmetic beside them.
ROWS = [
    ((3, 227, 227), "{op: conv2d, out_channels: 96, kernel_size: 11, stride: 4}", (96, 55, 55), (96, 3, 11, 11), 105_415_200),
    ((96, 27, 27), "{op: conv2d, out_channels: 256, kernel_size: 5, padding: 2, groups: 2}", (256, 27, 27), (256, 48, 5, 5), 223_948_800),
    # floor((11 + 3 - 3) / 2) + 1 = 6, floor((14 + 3 - 2) / 3) + 1 = 6; 6 * 6 * 4 * 3 * 3 * 2 MACs
    (
        (6, 11, 14),
        "{op: conv2d, out_channels: 4, kernel_size: [3, 2], stride: [2, 3], padding: {top: 2, bottom: 1, right: 3}, groups: 2}",
        (4, 6, 6),
        (4, 3, 3, 2),
        2_592,
    ),
    # 9 - 2 * (3 - 1) = 5, 8 - 3 * (2 - 1) = 5; 5 * 5 * 7 * 2 * 3 * 2 MACs
    ((2, 9, 8), "{op: conv2d, out_channels: 7, kernel_size: [3, 2], dilation: [2, 3]}", (7, 5, 5), (7, 2, 3, 2), 2_100),
    # TensorFlow's SAME: ceil(224 / 4) = 56, ceil(9 / 2) = 5
    ((3, 224, 9), "{op: conv2d, out_channels: 1, kernel_size: 11, stride: [4, 2], padding: same}", (1, 56, 5), (1, 3, 11, 11), 101_640),
    ((9216,), "{op: linear, out_features: 4096}", (4096,), (4096, 9216), 37_748_736),
    ((3, 55, 54), "{op: max_pool2d, kernel_size: 3, stride: 2}", (3, 27, 26), None, 0),
    ((3, 55, 54), "{op: max_pool2d, kernel_size: 3, stride: 2, ceil_mode: true}", (3, 27, 27), None, 0),
    # A last window that would start in the padding is dropped: torch.nn.MaxPool2d(2, 3, 1, ceil_mode=True) gives 2 of 5
    ((3, 5, 6), "{op: max_pool2d, kernel_size: 2, stride: 3, padding: 1, ceil_mode: true}", (3, 2, 3), None, 0),
    ((3, 7, 12), "{op: max_pool2d, kernel_size: [2, 4]}", (3, 3, 3), None, 0),
    ((3, 7, 12), "{op: max_pool2d, kernel_size: 3, stride: 2, padding: same}", (3, 4, 6), None, 0),
    ((3, 55, 54), "{op: avg_pool2d, kernel_size: 3, stride: 2}", (3, 27, 26), None, 0),
    ((3, 5, 6), "{op: avg_pool2d, kernel_size: 2, stride: 3, padding: 1, ceil_mode: true}", (3, 2, 3), None, 0),
    ((256, 13, 9), "{op: adaptive_avg_pool2d, output_size: [6, 7]}", (256, 6, 7), None, 0),
    ((6, 5, 4), "{op: split, sections: 3, index: 2}", (2, 5, 4), None, 0),
    ((4, 5, 6), "{op: sigmoid}", (4, 5, 6), None, 0),
    ((4, 5, 6), "{op: tanh}", (4, 5, 6), None, 0),
    ((4, 5, 6), "{op: relu}", (4, 5, 6), None, 0),
    ((4, 5, 6), "{op: softmax}", (4, 5, 6), None, 0),
    ((4, 5, 6), "{op: dropout}", (4, 5, 6), None, 0),
    ((4, 5, 6), "{op: flatten}", (120,), None, 0),
    ((7,), "{op: flatten}", (7,), None, 0),
    ((4, 5, 6), "{op: local_response_norm, size: 3, groups: 2}", (4, 5, 6), None, 0),
    ((4, 5, 6), "{op: add, from: [a, b]}", (4, 5, 6), None, 0),
    ((4, 5, 6), "{op: concat, from: [a, b, a]}", (12, 5, 6), None, 0),
    ((7,), "{op: concat, from: [a, b]}", (14,), None, 0),
]  # fmt: skip


@pytest.mark.parametrize(("given", "layer", "shape", "weight", "macs"), ROWS, ids=lambda value: str(value)[:60])
def test_an_op_knows_its_shapes_and_costs(
    given: tuple[int, ...], layer: str, shape: tuple[int, ...], weight: tuple[int, ...] | None, macs: int
) -> None:
    """Shape, weights and MACs of an op are those of PyTorch's module, or of the arithmetic in the row."""
    fields = {"name": "one", **yaml.safe_load(layer)}
    op = OPS[fields["op"]].model_validate(fields)
    shapes = [given] * len(fields.get("from", [0]))

    assert op.output_shape(*shapes) == shape
    assert op.weights(*shapes) == ({} if weight is None else {"weight": weight, "bias": weight[:1]})
    assert op.counts(*shapes).get("mac", 0) == macs


def test_every_op_has_a_row() -> None:
    """No op is without numbers from outside."""
    assert {yaml.safe_load(row[1])["op"] for row in ROWS} == set(OPS)


def test_same_is_tensorflows() -> None:
    """What SAME adds, from TensorFlow 2.21: (size, kernel, stride) to (before, after)."""
    assert same(224, 11, 4) == (3, 4)
    assert same(224, 3, 2) == (0, 1)
    assert same(225, 3, 2) == (1, 1)
    assert same(28, 11, 1) == (5, 5)
    assert same(9, 4, 1) == (1, 2)
    assert same(10, 2, 1, 3) == (1, 2)
    assert same(5, 1, 2) == (0, 0)


@pytest.mark.frameworks
def test_windows_are_counted_as_pytorch_counts_them() -> None:
    """`window` gives torch.nn.MaxPool2d's size for every small size, kernel, stride, padding and both ways of rounding."""
    torch = pytest.importorskip("torch")
    for size in range(1, 10):
        for kernel in range(1, 5):
            for stride in range(1, 5):
                for pad in range(kernel // 2 + 1):
                    for ceil in (False, True):
                        expected = window(size, kernel, stride, (pad, pad), ceil_mode=ceil)
                        pool = torch.nn.MaxPool2d(kernel, stride, pad, ceil_mode=ceil)
                        if expected < 1:
                            with pytest.raises(RuntimeError):
                                pool(torch.zeros(1, 1, size, size))
                        else:
                            assert pool(torch.zeros(1, 1, size, size)).shape[2:] == (expected, expected)


# Another value for every attribute of every op: neither what its one-op spec says nor what holds where nothing is said.
OTHERS: dict[str, dict[str, Any]] = {
    "add": {},
    "concat": {},
    "conv2d": {
        "out_channels": 12,
        "kernel_size": [1, 4],
        "stride": [1, 4],
        "padding": 1,
        "dilation": [1, 2],
        "groups": 1,
        "bias": True,
        "init": {"weight": "ones"},
    },
    "adaptive_avg_pool2d": {"output_size": 5},
    "avg_pool2d": {
        "kernel_size": 5,
        "stride": [1, 2],
        "padding": [0, 1],
        "ceil_mode": False,
        "count_include_pad": False,
    },
    "dropout": {"p": 0.25},
    "flatten": {},
    "linear": {"out_features": 5, "bias": False, "init": {"bias": "ones"}},
    "local_response_norm": {
        "size": 7,
        "alpha": 0.03,
        "beta": 0.7,
        "k": 1.25,
        "groups": 5,
        "norm_region": "within_channel",
    },
    "max_pool2d": {"kernel_size": 5, "stride": [1, 2], "padding": [0, 1], "ceil_mode": True},
    "relu": {},
    "sigmoid": {},
    "softmax": {},
    "split": {"sections": 2, "index": 0},
    "tanh": {},
}


def body(text: str) -> str:
    """Return generated text without its first lines, which name the spec and its hash."""
    return text.partition('"""')[2]


FIELDS = [(op, field) for op, model in OPS.items() for field in model.model_fields if field not in ops.Op.model_fields]


@pytest.mark.parametrize(
    ("op", "field", "target"),
    # The NumPy target is forward only: it is given its weights and draws none.
    [(op, field, target) for op, field in FIELDS for target in TARGETS if (field, target) != ("init", "numpy")],
)
def test_every_attribute_reaches_every_targets_text(op: str, field: str, target: str) -> None:
    """Two specs that differ in one attribute of one layer differ in what is generated."""
    text = (ROOT / "specs" / "ops" / f"{op}.yaml").read_text()
    data = yaml.safe_load(text)
    i = next(i for i, layer in enumerate(data["layers"]) if layer["op"] == op)
    data["layers"] = data["layers"][: i + 1]
    layer = data["layers"][i]
    if (op, field) == ("conv2d", "dilation"):
        layer["stride"] = 1  # a target refuses both at once
    if (op, field) == ("conv2d", "init"):
        layer["bias"] = True
    if (op, field) == ("local_response_norm", "norm_region"):
        layer["groups"] = 1

    def emitted(value: Any) -> str:
        layer[field] = value
        return body(emit(archspec.build(Source.parse(yaml.safe_dump(data))), target))

    value = layer.get(field, OPS[op].model_fields[field].default if field != "init" else {})
    was = list(value) if isinstance(value, tuple) else value

    assert OTHERS[op][field] != was
    assert emitted(was) != emitted(OTHERS[op][field])


def test_every_attribute_has_another_value() -> None:
    """OTHERS names every op and every attribute, so that a new one cannot be forgotten."""
    assert {op: set(others) for op, others in OTHERS.items()} == {
        op: {field for o, field in FIELDS if o == op} for op in OPS
    }


def test_every_op_has_its_files() -> None:
    """One word everywhere: ops/NAME.py, templates/ops/NAME.jinja and specs/ops/NAME.yaml; and its class is CamelCase."""
    beside = {p.stem for p in (ROOT / "archspec" / "ops").glob("*.py")} - {"__init__", "base", "input"}

    assert set(OPS) == beside
    of_placements = {"gather", "tower_response_norm"}  # no words of the language: see archspec/emit/towers.py
    assert set(OPS) | of_placements == {p.stem for p in (ROOT / "templates" / "ops").glob("*.jinja")}
    assert set(OPS) == {p.stem for p in OP_SPECS}
    assert {name: model.__name__ for name, model in OPS.items()} == {
        name: "".join(word.capitalize() for word in name.split("_")) for name in OPS
    }


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("op", OPS)
def test_every_target_spells_every_op(op: str, target: str) -> None:
    """An entry of the dictionary has a word for each target, and only macros that a skeleton asks for."""
    text = (ROOT / "templates" / "ops" / f"{op}.jinja").read_text()
    macros = set(re.findall(r"macro ([a-z]\w+)\(", text))

    assert macros & {f"{target}_module", f"{target}_expression"}
    assert macros <= {f"{t}_{form}" for t in TARGETS for form in ("module", "expression", "pad", "definition")}


@pytest.mark.parametrize("path", OP_SPECS, ids=lambda path: path.stem)
def test_a_one_op_spec_has_every_attribute_off_its_default(path: Path) -> None:
    """A fault that a default hides would not be seen."""
    graph = archspec.load(path)
    layers = [node.op for node in graph.nodes if node.op.op == path.stem]
    model = OPS[path.stem]

    assert layers
    for field, info in model.model_fields.items():
        if not info.is_required() and field not in ops.Op.model_fields:
            assert any(getattr(layer, field) != info.default for layer in layers), field
    height, width = graph.input.output_shape[1:]
    assert height != width


# --- init rules ------------------------------------------------------------------------------------------------------

RULES = {r.model_fields["rule"].default: r for r in typing.get_args(typing.get_args(Rule)[0])}
BIAS_RULES = {r.model_fields["rule"].default: r for r in typing.get_args(typing.get_args(BiasRule)[0])}
RULE_VALUES: dict[str, dict[str, Any]] = {
    "constant": {"value": 0.3},
    "normal": {"mean": 0.2, "std": 0.4},
    "truncated_normal": {"mean": 0.2, "std": 0.4},
    "uniform": {"a": -0.2, "b": 0.7},
    "xavier_uniform": {"gain": 0.5},
    "xavier_normal": {"gain": 0.5},
    "kaiming_uniform": {"mode": "fan_out", "nonlinearity": "tanh", "a": 0.5},
    "kaiming_normal": {"mode": "fan_out", "nonlinearity": "tanh", "a": 0.5},
    "ones": {},
    "zeros": {},
    "torch_default": {},
}


@pytest.mark.parametrize("target", FRAMEWORKS)
@pytest.mark.parametrize(("rule", "field"), [(rule, field) for rule, fields in RULE_VALUES.items() for field in fields])
def test_every_field_of_every_rule_reaches_every_targets_text(rule: str, field: str, target: str) -> None:
    """As for ops: a rule's field that is said is written."""

    def emitted(fields: dict[str, Any]) -> str:
        layer = "{name: conv, op: conv2d, out_channels: 4, kernel_size: 3, init: {weight: {%s: %s}}}"
        return body(emit(archspec.build(spec(layer % (rule, str(fields).replace("'", "")))), target))

    required = {name: 0.9 for name, info in RULES[rule].model_fields.items() if info.is_required()}
    slope = {"nonlinearity": "leaky_relu"} if field == "a" and "kaiming" in rule else {}
    assert emitted({**required, **slope}) != emitted({**required, **slope, field: RULE_VALUES[rule][field]})


def test_every_rule_has_values() -> None:
    """RULE_VALUES names every rule and field; a bias has those rules that need no fan of its own."""
    assert {rule: set(values) for rule, values in RULE_VALUES.items()} == {
        rule: set(model.model_fields) - {"rule"} for rule, model in RULES.items()
    }
    assert set(BIAS_RULES) == {rule for rule in RULES if not rule.startswith(("kaiming", "xavier"))}
