"""The NumPy target, the reference of the others, against the definitions of the ops: PyTorch, SciPy, ONNX Runtime."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import REGRESSIONS, SPECS, network
from helpers.reduced import reduced
from numpy.typing import NDArray

import archspec
from archspec.language.names import class_name
from archspec.language.ops import OPS
from archspec.targets import TARGETS, model_source
from archspec.verification import canonical_weights

Array = NDArray[np.floating[Any]]
SIZE = "{channels: 6, height: 9, width: 7}"


def run(layers: str, x: Array) -> Array:
    """Return the output of the generated NumPy file for these layers."""
    graph = network(layers, SIZE)
    module: dict[str, Any] = {"__name__": "model"}
    exec(compile(model_source(graph, TARGETS["numpy"]), "model.py", "exec"), module)
    outputs: dict[str, Array] = module["Net"](x, canonical_weights.for_forward_check(graph, 1))
    return outputs[graph.output.name]


def params(layers: str) -> dict[str, Array]:
    """Return the weights that `run` uses, in float64."""
    weights = canonical_weights.for_forward_check(network(layers, SIZE), 1)
    return {name: value.astype(np.float64) for name, value in weights.items()}


@pytest.fixture
def x() -> Array:
    """Feature maps of both signs, all different, with no two dimensions equal."""
    return np.random.default_rng(5).normal(size=(2, 6, 9, 7))


def test_integers_are_computed_in_float32() -> None:
    """Pixels of uint8 give the scores of the same numbers in float32, not those of weights cast to integers: zeros."""
    pixels = np.random.default_rng(5).integers(0, 256, (2, 6, 9, 7), np.uint8)
    layers = "{name: flatten, op: flatten}\n{name: fc, op: linear, out_features: 3}"
    scores = run(layers, pixels)  # type: ignore[arg-type]

    assert scores.any()
    assert scores.dtype == np.float32
    assert np.array_equal(scores, run(layers, pixels.astype(np.float32)))


BLOCKS = [path for path in (*SPECS, *REGRESSIONS) if "\nblocks:" in path.read_text()]


@pytest.mark.parametrize("path", BLOCKS, ids=lambda path: path.stem)
def test_the_code_of_blocks_computes_what_the_layers_do(path: Path) -> None:
    """A network's functions of blocks give the outputs of its layers written one by one, bit for bit.

    Instances that share a function must not differ in more than its arguments: all targets would be wrong together.
    """
    graph = archspec.load(path)
    if graph.input.output_shape[1] > 32:
        size = {"unet": 188, "swin_t": 64, "inception_v3": 75, "xception": 75}.get(path.stem, 48)
        graph = reduced(path, size, **({"multiple": 48} if path.stem == "swin_t" else {}))
    weights = canonical_weights.for_forward_check(graph, 1)
    x = np.random.default_rng(5).normal(size=(2, *graph.input.output_shape)).astype(np.float32)
    outputs = []
    for form in (graph, replace(graph, root=None)):
        module: dict[str, Any] = {"__name__": "model"}
        exec(compile(model_source(form, TARGETS["numpy"]), "model.py", "exec"), module)
        with np.errstate(over="ignore"):  # without statistics of its own a deep network grows
            outputs.append(module[class_name(graph.name)](x, weights))

    assert set(outputs[0]) >= {node.name for node in graph.nodes}
    for node in graph.nodes:
        assert np.array_equal(outputs[0][node.name], outputs[1][node.name], equal_nan=True), node.name


CONVS = list(itertools.product([1, 2, 3], [(1, 1), (2, 3)], [(0, 0), (2, 1)], [(1, 1), (2, 1)], [(3, 2)]))


@pytest.mark.parametrize(("groups", "stride", "padding", "dilation", "kernel"), CONVS)
def test_conv2d_equals_pytorch_and_scipy(
    groups: int,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    kernel: tuple[int, int],
    x: Array,
) -> None:
    """torch.nn.functional.conv2d; and, without a stride or a dilation, scipy.signal.correlate summed over channels."""
    torch = pytest.importorskip("torch")
    signal = pytest.importorskip("scipy.signal")
    layer = (
        f"{{name: conv, op: conv2d, out_channels: 6, kernel_size: {list(kernel)}, stride: {list(stride)}, "
        f"padding: {list(padding)}, dilation: {list(dilation)}, groups: {groups}}}"
    )
    w = params(layer)
    output = run(layer, x)
    expected = torch.nn.functional.conv2d(
        *(torch.from_numpy(a) for a in (x, w["conv.weight"], w["conv.bias"])), stride, padding, dilation, groups
    )
    assert output == pytest.approx(expected.numpy(), abs=1e-12)
    if stride == dilation == (1, 1):
        padded = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))
        block = 6 // groups
        for n, o in itertools.product(range(2), range(6)):
            block_maps = padded[n, o // block * block : (o // block + 1) * block]
            summed = sum(signal.correlate(a, k, "valid") for a, k in zip(block_maps, w["conv.weight"][o], strict=True))
            assert output[n, o] == pytest.approx(summed + w["conv.bias"][o], abs=1e-12)


POOLS = list(
    itertools.product(
        ["max", "avg"], [(3, 2), (2, 2)], [(2, 3), (1, 1)], [(0, 0), (1, 1)], [True, False], [True, False]
    )
)


@pytest.mark.parametrize(("op", "kernel", "stride", "padding", "ceil", "count"), POOLS)
def test_pools_equal_pytorch_and_onnx(
    op: str,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    ceil: bool,
    count: bool,
    x: Array,
) -> None:
    """torch.nn.functional's pools, and ONNX Runtime's MaxPool and AveragePool."""
    torch = pytest.importorskip("torch")
    counts = f", count_include_pad: {str(count).lower()}" if op == "avg" else ""
    layer = (
        f"{{name: pool, op: {op}_pool2d, kernel_size: {list(kernel)}, stride: {list(stride)}, padding: {list(padding)}, "
        f"ceil_mode: {str(ceil).lower()}{counts}}}"
    )
    output = run(layer, x)
    functional = torch.nn.functional
    if op == "max":
        expected = functional.max_pool2d(torch.from_numpy(x), kernel, stride, padding, ceil_mode=ceil)
    else:
        expected = functional.avg_pool2d(torch.from_numpy(x), kernel, stride, padding, ceil, count)
    assert output == pytest.approx(expected.numpy(), abs=1e-12)
    pads = {"kernel_shape": kernel, "strides": stride, "pads": [*padding, *padding], "ceil_mode": int(ceil)}
    if op == "avg":
        pads["count_include_pad"] = int(count)
    assert output == pytest.approx(onnx({"max": "MaxPool", "avg": "AveragePool"}[op], x, **pads), abs=1e-5)


def onnx(op: str, x: Array, **attributes: Any) -> Array:
    """Return the output of a node in ONNX Runtime, in float32."""
    helper = pytest.importorskip("onnx.helper")
    runtime = pytest.importorskip("onnxruntime")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"], **attributes)], "one", [value("x", 1, x.shape)], [value("y", 1, None)]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x.astype(np.float32)})
    result: Array = y
    return result


@pytest.mark.parametrize(
    ("size", "alpha", "beta", "k"), [(5, 1e-4, 0.75, 2.0), (3, 0.5, 0.5, 1.0), (7, 2.0, 1.5, 0.5), (1, 1.0, 0.75, 1.0)]
)
def test_local_response_norm_equals_pytorch_and_onnx(size: int, alpha: float, beta: float, k: float, x: Array) -> None:
    """torch.nn.functional.local_response_norm and ONNX's LRN: alpha is divided by the size in both."""
    torch = pytest.importorskip("torch")
    output = run(f"{{name: norm, op: local_response_norm, size: {size}, alpha: {alpha}, beta: {beta}, k: {k}}}", 3 * x)
    expected = torch.nn.functional.local_response_norm(torch.from_numpy(3 * x), size, alpha, beta, k)

    assert output == pytest.approx(expected.numpy(), abs=1e-12)
    assert output == pytest.approx(onnx("LRN", 3 * x, size=size, alpha=alpha, beta=beta, bias=k), abs=1e-5)


@pytest.mark.parametrize("groups", [2, 3])
def test_grouped_local_response_norm_equals_pytorch_on_each_block(groups: int, x: Array) -> None:
    """torch.nn.functional.local_response_norm on each block of channels."""
    torch = pytest.importorskip("torch")
    output = run(f"{{name: norm, op: local_response_norm, size: 5, alpha: 0.5, k: 2, groups: {groups}}}", x)
    blocks = torch.from_numpy(x).chunk(groups, dim=1)
    expected = torch.cat([torch.nn.functional.local_response_norm(b, 5, 0.5, 0.75, 2.0) for b in blocks], dim=1)

    assert output == pytest.approx(expected.numpy(), abs=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (4, 5), (9, 7)])
def test_adaptive_pooling_equals_pytorch(size: tuple[int, int], x: Array) -> None:
    """torch.nn.functional.adaptive_avg_pool2d, overlapping windows included."""
    torch = pytest.importorskip("torch")
    output = run(f"{{name: pool, op: adaptive_avg_pool2d, output_size: {list(size)}}}", x)

    assert output == pytest.approx(
        torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(x), size).numpy(), abs=1e-12
    )


def test_activations_equal_scipy(x: Array) -> None:
    """scipy.special's expit and softmax, NumPy's tanh, ReLU by hand; also far from 0."""
    special = pytest.importorskip("scipy.special")
    x = 40 * x

    assert run("{name: s, op: sigmoid}", x) == pytest.approx(special.expit(x), abs=1e-15)
    assert run("{name: s, op: softmax}", x) == pytest.approx(special.softmax(x, axis=1), abs=1e-15)
    assert run("{name: s, op: tanh}", x) == pytest.approx(np.tanh(x), abs=1e-15)
    assert (run("{name: s, op: relu}", x) == np.where(x > 0, x, 0)).all()


def test_flatten_and_linear_equal_pytorch(x: Array) -> None:
    """torch.flatten and torch.nn.functional.linear."""
    torch = pytest.importorskip("torch")
    layers = "{name: flatten, op: flatten}\n{name: fc, op: linear, out_features: 5}"
    w = params(layers)
    flat = torch.flatten(torch.from_numpy(x), 1)
    expected = torch.nn.functional.linear(flat, torch.from_numpy(w["fc.weight"]), torch.from_numpy(w["fc.bias"]))

    assert run(layers, x) == pytest.approx(expected.numpy(), abs=1e-11)


def test_split_concat_and_add_equal_numpy(x: Array) -> None:
    """np.split, np.concatenate and a sum."""
    layers = """
        {name: first, op: split, sections: 3, index: 0}
        {name: last, op: split, sections: 3, index: 2, from: input}
        {name: sum, op: add, from: [first, last]}
        {name: all, op: concat, from: [last, sum]}
    """
    first, _, last = np.split(x, 3, axis=1)

    assert (run(layers, x) == np.concatenate([last, first + last], axis=1)).all()


def swin(x: Any, w: Any, heads: int, window: list[int], shift: list[int]) -> Any:
    """Return the output of torchvision's module with the weights of layer `a`."""
    torchvision = pytest.importorskip("torchvision.models.swin_transformer")
    module = torchvision.ShiftedWindowAttention(6, window, shift, heads).double()
    state = {f"{name}.{kind}": w[f"a.{name}_{kind}"] for name in ("qkv", "proj") for kind in ("weight", "bias")}
    state["relative_position_bias_table"] = w["a.relative_position_bias_table"]
    module.load_state_dict(state, strict=False)
    return module(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).detach()


NEW_OPS = {
    "{name: a, op: batch_norm2d, eps: 0.01}": lambda f, x, w: f.batch_norm(
        x, w["a.running_mean"] + 0, w["a.running_var"] + 0, w["a.weight"], w["a.bias"], eps=0.01
    ),
    "{name: a, op: group_norm, num_groups: 3, eps: 0.01}": lambda f, x, w: f.group_norm(
        x, 3, w["a.weight"], w["a.bias"], eps=0.01
    ),
    "{name: a, op: relu6}": lambda f, x, w: f.relu6(x),
    "{name: a, op: leaky_relu, negative_slope: 0.25}": lambda f, x, w: f.leaky_relu(x, 0.25),
    "{name: a, op: elu, alpha: 0.5}": lambda f, x, w: f.elu(x, 0.5),
    "{name: a, op: silu}": lambda f, x, w: f.silu(x),
    "{name: a, op: hardswish}": lambda f, x, w: f.hardswish(x),
    "{name: a, op: hardsigmoid}": lambda f, x, w: f.hardsigmoid(x),
    "{name: a, op: mish}": lambda f, x, w: f.mish(x),
    "{name: a, op: softplus}": lambda f, x, w: f.softplus(x, threshold=100),
    "{name: a, op: gelu}": lambda f, x, w: f.gelu(x),
    "{name: a, op: gelu, approximate: tanh}": lambda f, x, w: f.gelu(x, approximate="tanh"),
    "{name: a, op: layer_norm, eps: 0.01}": lambda f, x, w: f.layer_norm(
        x.permute(0, 2, 3, 1), (6,), w["a.weight"], w["a.bias"], 0.01
    ).permute(0, 3, 1, 2),
    "{name: a, op: layer_norm, bias: false}": lambda f, x, w: f.layer_norm(
        x.permute(0, 2, 3, 1), (6,), w["a.weight"]
    ).permute(0, 3, 1, 2),
    "{name: a, op: layer_scale}": lambda f, x, w: x * w["a.weight"][:, None, None],
    "{name: t, op: tokens}\n{name: a, op: multihead_attention, num_heads: 3}": lambda f, x, w: f.multi_head_attention_forward(
        *[x.flatten(2).permute(2, 0, 1)] * 3, 6, 3, w["a.in_proj_weight"], w["a.in_proj_bias"], None, None, False, 0.0,
        w["a.out_proj.weight"], w["a.out_proj.bias"], need_weights=False,
    )[0].transpose(0, 1),
    "{name: t, op: tokens}\n{name: a, op: class_token}": lambda f, x, w: f.pad(x.flatten(2), (1, 0)).transpose(1, 2)
    + f.pad(w["a.weight"], (0, 0, 0, 63)),
    "{name: t, op: tokens}\n{name: a, op: position_embedding}": lambda f, x, w: x.flatten(2).transpose(1, 2) + w["a.weight"],
    "{name: t, op: tokens}\n{name: a, op: select, index: 62}": lambda f, x, w: x[:, :, 8, 6],
    "{name: t, op: tokens}\n{name: a, op: mean}": lambda f, x, w: x.mean(dim=(2, 3)),
    "{name: t, op: tokens}\n{name: a, op: transpose}": lambda f, x, w: x.flatten(2),
    "{name: t, op: tokens}\n{name: a, op: layer_norm}": lambda f, x, w: f.layer_norm(
        x.flatten(2).transpose(1, 2), (6,), w["a.weight"], w["a.bias"]
    ),
    "{name: t, op: tokens}\n{name: a, op: layer_scale}": lambda f, x, w: x.flatten(2).transpose(1, 2) * w["a.weight"],
    "{name: t, op: tokens}\n{name: a, op: softmax}": lambda f, x, w: f.softmax(x.flatten(2), dim=1).transpose(1, 2),
    "{name: t, op: tokens}\n{name: a, op: linear, out_features: 5}": lambda f, x, w: f.linear(
        x.flatten(2).transpose(1, 2), w["a.weight"], w["a.bias"]
    ),
    "{name: t, op: tokens}\n{name: a, op: split, sizes: [1, 3, 2], index: 1}": lambda f, x, w: x.flatten(2).transpose(1, 2)[
        :, :, 1:4
    ],
    "{name: a, op: conv_transpose2d, out_channels: 4, kernel_size: [3, 2], stride: [2, 3], padding: 1, output_padding: 1}": lambda f, x, w: (
        f.conv_transpose2d(x, w["a.weight"], w["a.bias"], (2, 3), 1, 1)
    ),
    "{name: a, op: conv_transpose2d, out_channels: 6, kernel_size: [2, 3], dilation: [3, 2], groups: 3, bias: false}": lambda f, x, w: (
        f.conv_transpose2d(x, w["a.weight"], groups=3, dilation=(3, 2))
    ),
    "{name: a, op: upsample, scale_factor: [2, 3]}": lambda f, x, w: f.interpolate(x, scale_factor=(2, 3)),
    "{name: a, op: upsample, scale_factor: [2, 3], mode: bilinear}": lambda f, x, w: f.interpolate(
        x, scale_factor=(2, 3), mode="bilinear"
    ),
    "{name: a, op: upsample, scale_factor: [2, 3], mode: bilinear, align_corners: true}": lambda f, x, w: f.interpolate(
        x, scale_factor=(2, 3), mode="bilinear", align_corners=True
    ),
    "{name: s, op: max_pool2d, kernel_size: [4, 3], stride: 1}\n{name: a, op: center_crop, from: [input, s]}": lambda f, x, w: x[
        :, :, 1:7, 1:6
    ],
    "{name: s, op: max_pool2d, kernel_size: [2, 2], stride: 1}\n{name: a, op: space_to_depth, block_size: 2}": lambda f, x, w: (
        lambda y: y.new_tensor(0) + __import__("torch").cat((y[:, :, ::2, ::2], y[:, :, 1::2, ::2], y[:, :, ::2, 1::2], y[:, :, 1::2, 1::2]), dim=1)
    )(f.max_pool2d(x, 2, 1)),
    "{name: a, op: shifted_window_attention, num_heads: 3, window_size: [4, 3], shift_size: [2, 1]}": lambda f, x, w: swin(x, w, 3, [4, 3], [2, 1]),
    "{name: a, op: shifted_window_attention, num_heads: 2, window_size: [3, 7], shift_size: [1, 3]}": lambda f, x, w: swin(x, w, 2, [3, 7], [1, 3]),
    "{name: t, op: tokens}\n{name: a, op: maps, height: 7}": lambda f, x, w: x.flatten(2).unflatten(2, (7, -1)),
    "{name: a, op: rescaling, scale: -2.0, offset: 0.5}": lambda f, x, w: 0.5 - 2 * x,
    "{name: g, op: split, sizes: [1, 5], index: 0}\n{name: a, op: mul, from: [input, g]}": lambda f, x, w: x * x[:, :1],
    "{name: t, op: tokens}\n{name: s, op: max_pool2d, kernel_size: 3, from: input}\n{name: u, op: tokens}\n"
    "{name: a, op: dot_product_attention, num_heads: 3, from: [t, u, u]}": lambda f, x, w: (
        lambda q, k: f.scaled_dot_product_attention(*(y.unflatten(1, (3, 2)).flatten(3).transpose(2, 3) for y in (q, k, k)))
        .transpose(1, 2).flatten(2)
    )(x, f.max_pool2d(x, 3)),
    "{name: a, op: channel_shuffle, groups: 3}": lambda f, x, w: f.channel_shuffle(x, 3),
    "{name: a, op: pad_channels, before: 2, after: 1}": lambda f, x, w: f.pad(x, (0, 0, 0, 0, 2, 1)),
    "{name: a, op: zero_pad2d, padding: {top: 1, left: 2, right: 3}}": lambda f, x, w: f.pad(x, (2, 3, 1, 0)),
    "{name: a, op: split, sizes: [1, 3, 2], index: 1}": lambda f, x, w: x.split([1, 3, 2], dim=1)[1],
    "{name: a, op: max_pool2d, kernel_size: [3, 2], stride: [2, 1], padding: 1, dilation: [2, 3]}": lambda f, x, w: f.max_pool2d(
        x, (3, 2), (2, 1), 1, (2, 3)
    ),
}  # fmt: skip


@pytest.mark.parametrize(("layer", "expected"), NEW_OPS.items(), ids=NEW_OPS.keys())
def test_an_op_equals_pytorchs_function(layer: str, expected: Any, x: Array) -> None:
    """torch.nn.functional's, in float64, with activations beyond 6."""
    torch = pytest.importorskip("torch")
    weights = {name: torch.from_numpy(value) for name, value in params(layer).items()}

    found = expected(torch.nn.functional, torch.from_numpy(5 * x), weights)

    np.testing.assert_allclose(run(layer, 5 * x), found.numpy(), rtol=1e-13, atol=1e-13)


def test_mul_is_a_product_in_which_one_value_a_channel_holds_for_every_place(x: Array) -> None:
    """(C, H, W) times (C, 1, 1)."""
    layers = """{name: mean, op: adaptive_avg_pool2d, output_size: 1}
        {name: product, op: mul, from: [input, mean]}
    """

    np.testing.assert_allclose(run(layers, x), x * x.mean(axis=(2, 3), keepdims=True), rtol=1e-14)


def test_every_op_is_tested_here() -> None:
    """A new op is compared with another definition of it in this file."""
    text = Path(__file__).read_text()
    tested = {op for op in OPS if f"op: {op}" in text} | {"max_pool2d", "avg_pool2d"}
    assert set(OPS) - tested == {
        "dropout",
        "stochastic_depth",
        "opaque",
    }  # the identity in evaluation mode; not computed
