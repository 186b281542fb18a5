"""Each op alone: its shapes, parameters and MACs, and every attribute in every target's code."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import BIAS_RULES, FRAMEWORKS, OP_SPECS, ROOT, RULES, network

import archspec
from archspec.graph import build
from archspec.graph.model_parallel import Gather, ShardedLocalResponseNorm
from archspec.language.ops import OPS, Op
from archspec.language.ops.base import conv_output_size, same_padding
from archspec.language.source import Source
from archspec.targets import TARGETS, model_source

# An input shape, a layer, and its output shape, weight shape and MACs: of PyTorch's modules (2.14.1, run by hand), or by
# the arithmetic beside them.
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
    ((3, 5, 4), "{op: batch_norm2d, affine: false}", (3, 5, 4), None, 0),
    ((6, 5, 4), "{op: group_norm, num_groups: 3, affine: false}", (6, 5, 4), None, 0),
    ((3, 5, 4), "{op: relu6}", (3, 5, 4), None, 0),
    ((3, 5, 4), "{op: leaky_relu}", (3, 5, 4), None, 0),
    ((3, 5, 4), "{op: elu}", (3, 5, 4), None, 0),
    ((3, 5, 4), "{op: mul, from: [a, b]}", (3, 5, 4), None, 0),
    ((3, 5, 4), "{op: silu}", (3, 5, 4), None, 0),
    ((3, 5, 4), "{op: layer_norm, elementwise_affine: false}", (3, 5, 4), None, 0),
    ((3, 5, 4), "{op: stochastic_depth, p: 0.5}", (3, 5, 4), None, 0),
    ((3, 5, 4), "{op: hardswish}", (3, 5, 4), None, 0),
    ((3, 5, 4), "{op: hardsigmoid}", (3, 5, 4), None, 0),
    ((3, 5, 4), "{op: softplus}", (3, 5, 4), None, 0),
    ((3, 5, 4), "{op: mish}", (3, 5, 4), None, 0),
    ((3, 5, 4), "{op: gelu, approximate: tanh}", (3, 5, 4), None, 0),
    ((6, 5, 4), "{op: channel_shuffle, groups: 3}", (6, 5, 4), None, 0),
    # torch.nn.ConvTranspose2d(6, 4, (3, 2), (2, 3), (1, 0), (1, 0), 2, dilation=(1, 2)); 20 places * 6 * 2 * 3 * 2 MACs
    (
        (6, 5, 4),
        "{op: conv_transpose2d, out_channels: 4, kernel_size: [3, 2], stride: [2, 3], padding: [1, 0], output_padding: [1, 0], dilation: [1, 2], groups: 2}",
        (4, 10, 12),
        (6, 2, 3, 2),
        1_440,
    ),
    ((6, 5, 4), "{op: upsample, scale_factor: [2, 3], mode: bilinear}", (6, 10, 12), None, 0),
    ((6, 6, 4), "{op: space_to_depth, block_size: 2}", (24, 3, 2), None, 0),
    ((6, 5, 4), "{op: center_crop, from: [a, b]}", (6, 5, 4), None, 0),
    ((6, 5, 4), "{op: tokens}", (20, 6), None, 0),
    ((20, 6), "{op: maps, height: 2}", (6, 2, 10), None, 0),
    ((6, 5, 4), "{op: rescaling, scale: 0.5, offset: 1.5}", (6, 5, 4), None, 0),
    ((20, 6), "{op: dot_product_attention, num_heads: 2, from: [a, b, c]}", (20, 6), None, 0),
    ((20, 6), "{op: transpose}", (6, 20), None, 0),
    ((20, 6), "{op: mean}", (6,), None, 0),
    ((20, 6), "{op: select, index: 19}", (6,), None, 0),
    ((20, 6), "{op: flatten}", (120,), None, 0),
    ((20, 6), "{op: softmax}", (20, 6), None, 0),
    ((20, 6), "{op: concat, from: [a, b]}", (20, 12), None, 0),
    ((20, 6), "{op: split, sections: 3, index: 1}", (20, 2), None, 0),
    ((20, 6), "{op: linear, out_features: 5}", (20, 5), (5, 6), 600),  # 20 * 6 * 5
    ((3, 5, 4), "{op: pad_channels, before: 2, after: 1}", (6, 5, 4), None, 0),
    ((3, 5, 4), "{op: zero_pad2d, padding: {top: 1, left: 3}}", (3, 6, 7), None, 0),
    ((3, 5, 4), "{op: zero_pad2d, padding: [1, 2]}", (3, 7, 8), None, 0),
    ((3, 5, 4), "{op: opaque, kind: Any, shape: [7, 9]}", (7, 9), None, 0),
    ((3, 5, 4), "{op: opaque, kind: Any}", (3, 5, 4), None, 0),
    ((7, 5, 4), "{op: split, sizes: [2, 5], index: 1}", (5, 5, 4), None, 0),
    # torch.nn.MaxPool2d(3, 2, 1, dilation=2): (9 + 2 - 5) // 2 + 1 and (8 + 2 - 5) // 2 + 1
    ((2, 9, 8), "{op: max_pool2d, kernel_size: 3, stride: 2, padding: 1, dilation: 2}", (2, 4, 3), None, 0),
]  # fmt: skip


@pytest.mark.parametrize(("input_shape", "layer", "shape", "weight", "macs"), ROWS, ids=lambda value: str(value)[:60])
def test_shapes_parameters_and_macs_of_an_op(
    input_shape: tuple[int, ...], layer: str, shape: tuple[int, ...], weight: tuple[int, ...] | None, macs: int
) -> None:
    """Output shape, parameters and MACs of an op are those of PyTorch's module, or of the arithmetic in the row."""
    fields = {"name": "one", **yaml.safe_load(layer)}
    op = OPS[fields["op"]].model_validate(fields)
    shapes = [input_shape] * len(fields.get("from", [0]))

    assert op.output_shape(*shapes) == shape
    expected = {} if weight is None else {"weight": (weight, "kernel"), "bias": (shape[:1], "bias")}
    if weight is not None and len(shape) == 2:
        expected["bias"] = (shape[1:], "bias")
    assert {name: param for name, param in op.params(*shapes).items() if param.trainable} == expected
    assert op.counts(*shapes).get("mac", 0) == macs


def test_parameters_and_buffers_of_norms() -> None:
    """A norm has a scale and a shift for each channel; batch normalization keeps two buffers, as torch.nn's does."""
    batch = OPS["batch_norm2d"].model_validate({"op": "batch_norm2d", "name": "one"}).params((5, 2, 3))
    group = OPS["group_norm"].model_validate({"op": "group_norm", "name": "one", "num_groups": 1}).params((5, 2, 3))

    assert {name: (param.shape, param.role, param.trainable) for name, param in batch.items()} == {
        "weight": ((5,), "scale", True),
        "bias": ((5,), "shift", True),
        "running_mean": ((5,), "running_mean", False),
        "running_var": ((5,), "running_var", False),
    }
    assert {name: param.role for name, param in group.items()} == {"weight": "scale", "bias": "shift"}

    layer = OPS["layer_norm"].model_validate({"op": "layer_norm", "name": "one"})
    unshifted = layer.model_copy(update={"bias": False})
    scale = OPS["layer_scale"].model_validate({"op": "layer_scale", "name": "one"})
    assert {name: tuple(param) for name, param in layer.params((5, 2, 3)).items()} == {
        "weight": ((5,), "scale"),
        "bias": ((5,), "shift"),
    }
    assert layer.params((7,))["weight"].shape == (7,)
    assert set(unshifted.params((5, 2, 3))) == set(scale.params((5, 2, 3))) == {"weight"}
    assert scale.init.weight.value == 1e-6  # Touvron et al. 2021


def test_parameters_of_ops_on_tokens() -> None:
    """Those of torch.nn.MultiheadAttention(6, 2), and one embedding for each place, or one for all samples."""
    torch_s = {"in_proj_weight": (18, 6), "in_proj_bias": (18,), "out_proj.weight": (6, 6), "out_proj.bias": (6,)}
    attention = OPS["multihead_attention"].model_validate({"op": "multihead_attention", "name": "one", "num_heads": 2})
    unbiased = attention.model_copy(update={"bias": False})
    token = OPS["class_token"].model_validate({"op": "class_token", "name": "one"})
    position = OPS["position_embedding"].model_validate({"op": "position_embedding", "name": "one"})

    assert {name: param.shape for name, param in attention.params((20, 6)).items()} == torch_s
    assert set(unbiased.params((20, 6))) == {"in_proj_weight", "out_proj.weight"}
    assert token.params((20, 6)) == {"weight": ((1, 1, 6), "embedding")}
    assert position.params((20, 6)) == {"weight": ((1, 20, 6), "embedding")}
    assert token.output_shape((20, 6)) == (21, 6)
    assert attention.output_shape((20, 6)) == position.output_shape((20, 6)) == (20, 6)
    fields = {"op": "shifted_window_attention", "name": "one", "num_heads": 2, "window_size": [3, 2]}
    windows = OPS["shifted_window_attention"].model_validate(fields)
    assert windows.params((6, 5, 4))["relative_position_bias_table"] == (
        (15, 2),
        "embedding",
    )  # (2 * 3 - 1) (2 * 2 - 1)
    assert windows.output_shape((6, 5, 4)) == (6, 5, 4)
    # 2 x 2 windows of 6 places; 4 products of 24 places with (6, 6), and 2 of 24 with 6 places
    assert {k: windows.counts((6, 5, 4))[k] for k in ("mac", "matmul")} == {"mac": 3456, "matmul": 1728}
    # 4 products of (20, 6) with (6, 6), and 2 of (20, 6) with (20, 6)
    counts = attention.counts((20, 6))
    assert (counts["mac"], counts["matmul"], counts["bias_add"]) == (2880, 4800, 480)


# Without a plain weight and bias.
PARAMETERS = {
    "layer_scale",
    "class_token",
    "position_embedding",
    "multihead_attention",
    "shifted_window_attention",
}


def test_every_op_has_a_row() -> None:
    """ROWS has every op."""
    assert {yaml.safe_load(row[1])["op"] for row in ROWS} == set(OPS) - PARAMETERS


def test_same_padding_is_that_of_tensorflow() -> None:
    """(size, kernel, stride) to (before, after), from TensorFlow 2.21."""
    assert same_padding(224, 11, 4) == (3, 4)
    assert same_padding(224, 3, 2) == (0, 1)
    assert same_padding(225, 3, 2) == (1, 1)
    assert same_padding(28, 11, 1) == (5, 5)
    assert same_padding(9, 4, 1) == (1, 2)
    assert same_padding(10, 2, 1, 3) == (1, 2)
    assert same_padding(5, 1, 2) == (0, 0)


@pytest.mark.frameworks
def test_conv_output_size_is_that_of_pytorch() -> None:
    """`conv_output_size` is torch.nn.MaxPool2d's for small sizes, kernels, strides, paddings and both roundings."""
    torch = pytest.importorskip("torch")
    for size in range(1, 10):
        for kernel in range(1, 5):
            for stride in range(1, 5):
                for pad in range(kernel // 2 + 1):
                    for ceil in (False, True):
                        expected = conv_output_size(size, kernel, stride, (pad, pad), ceil_mode=ceil)
                        pool = torch.nn.MaxPool2d(kernel, stride, pad, ceil_mode=ceil)
                        if expected < 1:
                            with pytest.raises(RuntimeError):
                                pool(torch.zeros(1, 1, size, size))
                        else:
                            assert pool(torch.zeros(1, 1, size, size)).shape[2:] == (expected, expected)


# Another value for every attribute of every op: neither its default nor that of its one-op spec.
OTHERS: dict[str, dict[str, Any]] = {
    "add": {},
    "batch_norm2d": {"eps": 0.1, "momentum": 0.2, "affine": True, "init": {"weight": "zeros"}},
    "channel_shuffle": {"groups": 2},
    "elu": {"alpha": 0.3},
    "gelu": {"approximate": "tanh"},
    "layer_norm": {"eps": 0.1, "elementwise_affine": False, "bias": False, "init": {"weight": "zeros"}},
    "layer_scale": {"init": {"weight": "zeros"}},
    "stochastic_depth": {"p": 0.25},
    "tokens": {},
    "conv_transpose2d": {
        "out_channels": 8,
        "kernel_size": 5,
        "stride": [3, 4],
        "padding": 0,
        "output_padding": [0, 1],
        "dilation": 2,
        "groups": 2,
        "bias": False,
        "init": {"weight": "ones"},
    },
    "upsample": {"scale_factor": 4, "mode": "bilinear", "align_corners": True},
    "space_to_depth": {"block_size": 1},
    "center_crop": {},
    "shifted_window_attention": {
        "num_heads": 2,
        "window_size": 3,
        "shift_size": 0,
        "bias": True,
        "init": {"weight": "zeros"},
    },
    "transpose": {},
    "maps": {"height": 10},
    "rescaling": {"scale": 3, "offset": 2},
    "dot_product_attention": {"num_heads": 1},
    "mean": {},
    "select": {"index": 2},
    "class_token": {"init": {"weight": "ones"}},
    "position_embedding": {"init": {"weight": "ones"}},
    "multihead_attention": {"num_heads": 2, "bias": True, "init": {"weight": "zeros"}},
    "hardsigmoid": {},
    "hardswish": {},
    "mish": {},
    "silu": {},
    "softplus": {},
    "group_norm": {"num_groups": 2, "eps": 0.1, "affine": False, "init": {"weight": "zeros"}},
    "leaky_relu": {"negative_slope": 0.3},
    "mul": {},
    "pad_channels": {"before": 1, "after": 2},
    "zero_pad2d": {"padding": {"top": 1, "right": 2}},
    "relu6": {},
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
    "max_pool2d": {"kernel_size": 5, "stride": [1, 2], "padding": [0, 1], "ceil_mode": True, "dilation": [1, 3]},
    "relu": {},
    "sigmoid": {},
    "softmax": {},
    "split": {"sections": 2, "sizes": [4, 2], "index": 0},
    "tanh": {},
}


def statements(text: str) -> str:
    """Return the statements of generated code, without docstrings and comments, which contain shapes and totals."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            del node.body[0]
    return ast.dump(tree)


COMPUTED = {name: op for name, op in OPS.items() if not op.is_opaque}
FIELDS = [(op, name) for op, model in COMPUTED.items() for name in model.model_fields if name not in Op.model_fields]


# The NumPy target initializes no parameters, and reads these attributes from the shapes of the weights.
FROM_WEIGHTS = {
    ("batch_norm2d", "init", "numpy"),
    ("batch_norm2d", "momentum", "numpy"),  # evaluation only
    ("group_norm", "init", "numpy"),
    ("layer_norm", "init", "numpy"),
    ("layer_scale", "init", "numpy"),
    ("class_token", "init", "numpy"),
    ("position_embedding", "init", "numpy"),
    ("multihead_attention", "init", "numpy"),
    ("shifted_window_attention", "init", "numpy"),
    ("conv_transpose2d", "init", "numpy"),
    ("conv_transpose2d", "kernel_size", "numpy"),
    ("conv_transpose2d", "out_channels", "numpy"),
    ("conv2d", "init", "numpy"),
    ("conv2d", "kernel_size", "numpy"),
    ("conv2d", "out_channels", "numpy"),
    ("linear", "init", "numpy"),
    ("linear", "out_features", "numpy"),
}


@pytest.mark.parametrize(
    ("op", "field", "target"),
    [(op, field, target) for op, field in FIELDS for target in TARGETS if (op, field, target) not in FROM_WEIGHTS],
)
def test_every_attribute_changes_the_code_of_every_target(op: str, field: str, target: str) -> None:
    """Two specs that differ in one attribute of one layer differ in the generated code."""
    text = (ROOT / "specs" / "ops" / f"{op}.yaml").read_text()
    data = yaml.safe_load(text)
    i = next(i for i, layer in enumerate(data["layers"]) if layer["op"] == op)
    data["layers"] = data["layers"][: i + 1]
    layer = data["layers"][i]
    if (op, field) == ("conv2d", "dilation"):
        layer["stride"] = 1  # Keras does not support both at once
    if (op, field) == ("batch_norm2d", "init"):
        layer["affine"] = True
    if (op, field) == ("split", "sizes"):
        del layer["sections"]
        layer["sizes"] = [1, 5]
    if (op, field) == ("conv2d", "init"):
        layer["bias"] = True
    if (op, field) == ("local_response_norm", "norm_region"):
        layer["groups"] = 1
    if (op, field) == ("upsample", "align_corners"):
        layer["mode"] = "bilinear"

    def generated(value: Any) -> str:
        layer[field] = value
        return statements(model_source(build(Source.parse(yaml.safe_dump(data))), TARGETS[target]))

    value = layer.get(field, OPS[op].model_fields[field].default if field != "init" else {})
    original = list(value) if isinstance(value, tuple) else value

    assert OTHERS[op][field] != original
    assert generated(original) != generated(OTHERS[op][field])


def test_every_attribute_has_another_value() -> None:
    """OTHERS has every op and every attribute."""
    assert {op: set(others) for op, others in OTHERS.items()} == {
        op: {field for o, field in FIELDS if o == op} for op in COMPUTED
    }


def test_every_op_has_its_files() -> None:
    """An op has language/ops/NAME.py, templates/ops/NAME.jinja and specs/ops/NAME.yaml, and its class is CamelCase.

    An opaque one has no code, so it has neither a template nor a spec to verify.
    """
    modules = {p.stem for p in (ROOT / "archspec" / "language" / "ops").glob("*.py")} - {"__init__", "base", "input"}
    inserted = {  # by model parallelism, not ops of the language
        model.model_fields["op"].annotation.__args__[0] for model in (Gather, ShardedLocalResponseNorm)
    }

    assert set(OPS) == modules
    assert set(OPS) - set(COMPUTED) == {"opaque"}
    assert set(COMPUTED) | inserted == {p.stem for p in (ROOT / "templates" / "ops").glob("*.jinja")}
    assert set(COMPUTED) == {p.stem for p in OP_SPECS}
    assert {name: model.__name__ for name, model in OPS.items()} == {
        name: "".join(word.capitalize() for word in name.split("_")) for name in OPS
    }


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("op", COMPUTED)
def test_every_target_implements_every_op(op: str, target: str) -> None:
    """An op's template has a macro for each target, and no macros that the model templates do not call."""
    text = (ROOT / "templates" / "ops" / f"{op}.jinja").read_text()
    macros = set(re.findall(r"macro ([a-z]\w+)\(", text))

    assert macros & {f"{target}_module", f"{target}_expression"}
    assert macros <= {f"{t}_{form}" for t in TARGETS for form in ("module", "expression", "pad", "call", "definition")}


@pytest.mark.parametrize("path", OP_SPECS, ids=lambda path: path.stem)
def test_a_one_op_spec_has_every_attribute_off_its_default(path: Path) -> None:
    """A one-op spec has every attribute at another value than its default, and no square input."""
    graph = archspec.load(path)
    layers = [node.op for node in graph.nodes if node.op.op == path.stem]
    model = OPS[path.stem]

    assert layers
    for field, info in model.model_fields.items():
        if not info.is_required() and field not in Op.model_fields:
            assert any(getattr(layer, field) != info.default for layer in layers), field
    height, width = graph.input.output_shape[1:]
    assert height != width


# --- initializers ----------------------------------------------------------------------------------------------------

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
def test_every_field_of_every_rule_changes_the_code_of_every_target(rule: str, field: str, target: str) -> None:
    """Two specs that differ in one field of one initializer differ in the generated code."""

    def generated(fields: dict[str, Any]) -> str:
        layer = "{name: conv, op: conv2d, out_channels: 4, kernel_size: 3, init: {weight: {%s: %s}}}"
        return statements(model_source(network(layer % (rule, str(fields).replace("'", ""))), TARGETS[target]))

    required = {name: 0.9 for name, info in RULES[rule].model_fields.items() if info.is_required()}
    slope = {"nonlinearity": "leaky_relu"} if field == "a" and "kaiming" in rule else {}
    assert generated({**required, **slope}) != generated({**required, **slope, field: RULE_VALUES[rule][field]})


def test_every_rule_has_values() -> None:
    """RULE_VALUES has every rule and field; a bias has the rules that need no fan-in."""
    assert {rule: set(values) for rule, values in RULE_VALUES.items()} == {
        rule: set(model.model_fields) - {"rule"} for rule, model in RULES.items()
    }
    assert set(BIAS_RULES) == {rule for rule in RULES if not rule.startswith(("kaiming", "xavier"))}
