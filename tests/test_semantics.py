"""The NumPy target, the reference of the others, held against those who define the ops: PyTorch, SciPy, ONNX Runtime."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import spec
from numpy.typing import NDArray

import archspec
from archspec import weights
from archspec.emit import emit

Array = NDArray[np.floating[Any]]
SIZE = "{channels: 6, height: 9, width: 7}"


def run(layer: str, x: Array, drawn: weights.Weights | None = None) -> Array:
    """Return what the generated NumPy file gives for one layer."""
    graph = archspec.build(spec(layer, SIZE))
    made: dict[str, Any] = {}
    exec(compile(emit(graph, "numpy"), "numpy_model.py", "exec"), made)
    outputs: dict[str, Array] = made["Net"](x, drawn or weights.loud(graph, 1))
    return outputs[graph.output.name]


def drawn(layer: str) -> dict[str, Array]:
    return {k: v.astype(np.float64) for k, v in weights.loud(archspec.build(spec(layer, SIZE)), 1).items()}


@pytest.fixture
def x() -> Array:
    """Signed maps, no two alike, with all dimensions different."""
    return np.random.default_rng(5).normal(size=(2, 6, 9, 7))


CONVS = list(itertools.product([1, 2, 3], [(1, 1), (2, 3)], [(0, 0), (2, 1)], [(1, 1), (2, 1)], [(3, 2)]))


@pytest.mark.parametrize(("groups", "stride", "padding", "dilation", "kernel"), CONVS)
def test_conv2d_is_pytorchs_and_scipys(
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
    w = drawn(layer)
    ours = run(layer, x)
    theirs = torch.nn.functional.conv2d(
        *(torch.from_numpy(a) for a in (x, w["conv.weight"], w["conv.bias"])), stride, padding, dilation, groups
    )
    assert ours == pytest.approx(theirs.numpy(), abs=1e-12)
    if stride == dilation == (1, 1):
        padded = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))
        block = 6 // groups
        for n, o in itertools.product(range(2), range(6)):
            read = padded[n, o // block * block : (o // block + 1) * block]
            summed = sum(signal.correlate(a, k, "valid") for a, k in zip(read, w["conv.weight"][o], strict=True))
            assert ours[n, o] == pytest.approx(summed + w["conv.bias"][o], abs=1e-12)


POOLS = list(
    itertools.product(
        ["max", "avg"], [(3, 2), (2, 2)], [(2, 3), (1, 1)], [(0, 0), (1, 1)], [True, False], [True, False]
    )
)


@pytest.mark.parametrize(("op", "kernel", "stride", "padding", "ceil", "count"), POOLS)
def test_pools_are_pytorchs_and_onnxs(
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
    count_word = f", count_include_pad: {str(count).lower()}" if op == "avg" else ""
    layer = (
        f"{{name: pool, op: {op}_pool2d, kernel_size: {list(kernel)}, stride: {list(stride)}, padding: {list(padding)}, "
        f"ceil_mode: {str(ceil).lower()}{count_word}}}"
    )
    ours = run(layer, x)
    functional = torch.nn.functional
    if op == "max":
        theirs = functional.max_pool2d(torch.from_numpy(x), kernel, stride, padding, ceil_mode=ceil)
    else:
        theirs = functional.avg_pool2d(torch.from_numpy(x), kernel, stride, padding, ceil, count)
    assert ours == pytest.approx(theirs.numpy(), abs=1e-12)
    pads = {"kernel_shape": kernel, "strides": stride, "pads": [*padding, *padding], "ceil_mode": int(ceil)}
    if op == "avg":
        pads["count_include_pad"] = int(count)
    assert ours == pytest.approx(onnx({"max": "MaxPool", "avg": "AveragePool"}[op], x, **pads), abs=1e-5)


def onnx(op: str, x: Array, **attributes: Any) -> Array:
    """Return what ONNX Runtime gives for a node, in float32."""
    helper = pytest.importorskip("onnx.helper")
    runtime = pytest.importorskip("onnxruntime")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"], **attributes)], "one", [value("x", 1, x.shape)], [value("y", 1, None)]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x.astype(np.float32)})
    found: Array = y
    return found


@pytest.mark.parametrize(
    ("size", "alpha", "beta", "k"), [(5, 1e-4, 0.75, 2.0), (3, 0.5, 0.5, 1.0), (7, 2.0, 1.5, 0.5), (1, 1.0, 0.75, 1.0)]
)
def test_local_response_norm_is_pytorchs_and_onnxs(size: int, alpha: float, beta: float, k: float, x: Array) -> None:
    """torch.nn.functional.local_response_norm and ONNX's LRN: alpha is divided by the size in both."""
    torch = pytest.importorskip("torch")
    ours = run(f"{{name: norm, op: local_response_norm, size: {size}, alpha: {alpha}, beta: {beta}, k: {k}}}", 3 * x)
    theirs = torch.nn.functional.local_response_norm(torch.from_numpy(3 * x), size, alpha, beta, k)

    assert ours == pytest.approx(theirs.numpy(), abs=1e-12)
    assert ours == pytest.approx(onnx("LRN", 3 * x, size=size, alpha=alpha, beta=beta, bias=k), abs=1e-5)


@pytest.mark.parametrize("groups", [2, 3])
def test_local_response_norm_in_groups_is_that_of_each_block(groups: int, x: Array) -> None:
    """Of each block of channels, torch's own."""
    torch = pytest.importorskip("torch")
    ours = run(f"{{name: norm, op: local_response_norm, size: 5, alpha: 0.5, k: 2, groups: {groups}}}", x)
    blocks = torch.from_numpy(x).chunk(groups, dim=1)
    theirs = torch.cat([torch.nn.functional.local_response_norm(b, 5, 0.5, 0.75, 2.0) for b in blocks], dim=1)

    assert ours == pytest.approx(theirs.numpy(), abs=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (4, 5), (9, 7)])
def test_adaptive_pooling_is_pytorchs(size: tuple[int, int], x: Array) -> None:
    """torch.nn.functional.adaptive_avg_pool2d, overlapping windows included."""
    torch = pytest.importorskip("torch")
    ours = run(f"{{name: pool, op: adaptive_avg_pool2d, output_size: {list(size)}}}", x)

    assert ours == pytest.approx(torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(x), size).numpy(), abs=1e-12)


def test_activations_are_scipys(x: Array) -> None:
    """scipy.special's expit and softmax, NumPy's own tanh; a relu by hand; far from 0 too."""
    special = pytest.importorskip("scipy.special")
    x = 40 * x

    assert run("{name: s, op: sigmoid}", x) == pytest.approx(special.expit(x), abs=1e-15)
    assert run("{name: s, op: softmax}", x) == pytest.approx(special.softmax(x, axis=1), abs=1e-15)
    assert run("{name: s, op: tanh}", x) == pytest.approx(np.tanh(x), abs=1e-15)
    assert (run("{name: s, op: relu}", x) == np.where(x > 0, x, 0)).all()


def test_a_linear_layer_reads_maps_in_the_order_of_pytorch(x: Array) -> None:
    """torch.flatten and torch.nn.functional.linear."""
    torch = pytest.importorskip("torch")
    layers = "{name: flatten, op: flatten}\n{name: fc, op: linear, out_features: 5}"
    w = drawn(layers)
    flat = torch.flatten(torch.from_numpy(x), 1)
    theirs = torch.nn.functional.linear(flat, torch.from_numpy(w["fc.weight"]), torch.from_numpy(w["fc.bias"]))

    assert run(layers, x) == pytest.approx(theirs.numpy(), abs=1e-11)


def test_split_concat_and_add_are_numpys(x: Array) -> None:
    """np.split, np.concatenate and a sum."""
    layers = """
        {name: first, op: split, sections: 3, index: 0}
        {name: last, op: split, sections: 3, index: 2, from: input}
        {name: sum, op: add, from: [first, last]}
        {name: all, op: concat, from: [last, sum]}
    """
    first, _, last = np.split(x, 3, axis=1)

    assert (run(layers, x) == np.concatenate([last, first + last], axis=1)).all()


def test_this_file_names_every_op() -> None:
    """A new op is held against somebody's definition of it here, or said to have none."""
    from test_ops import OPS

    text = Path(__file__).read_text()
    spelled = {op for op in OPS if f"op: {op}" in text} | {"max_pool2d", "avg_pool2d"}
    assert set(OPS) - spelled == {"dropout"}  # in evaluation it does nothing
