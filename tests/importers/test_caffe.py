"""Importing Caffe networks: V1 and V2 layers, phases, layers in place, pools that are rounded up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, archspec_command

import archspec
from archspec import importers
from archspec.importers.caffe_model import parse

# AlexNet as Caffe has it (bvlc_alexnet), in the words of 2014 and of 2015: what each layer is is a fact.
CONVS = [
    ("conv1", 96, 11, {"stride": 4}),
    ("conv2", 256, 5, {"pad": 2, "group": 2}),
    ("conv3", 384, 3, {"pad": 1}),
    ("conv4", 384, 3, {"pad": 1, "group": 2}),
    ("conv5", 256, 3, {"pad": 1, "group": 2}),
]
V1 = {"Convolution": "CONVOLUTION", "ReLU": "RELU", "LRN": "LRN", "Pooling": "POOLING", "InnerProduct": "INNER_PRODUCT", "Dropout": "DROPOUT", "Softmax": "SOFTMAX"}  # fmt: skip


def alexnet(*, old: bool) -> str:
    """Return AlexNet's prototxt, with V1's layers if it is `old`."""
    rows = []

    def layer(kind: str, name: str, bottom: str, top: str, parameters: str = "") -> None:
        word = f"layers {{ type: {V1[kind]}" if old else f'layer {{ type: "{kind}"'
        rows.append(f'{word} name: "{name}" bottom: "{bottom}" top: "{top}" {parameters} }}')

    last = "data"
    for name, outputs, size, others in CONVS:
        number = name[-1]
        more = " ".join(f"{key}: {value}" for key, value in others.items())
        layer(
            "Convolution", name, last, name, f"convolution_param {{ num_output: {outputs} kernel_size: {size} {more} }}"
        )
        layer("ReLU", f"relu{number}", name, name)
        last = name
        if number in "12":
            layer("LRN", f"norm{number}", last, f"norm{number}", "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }")
            last = f"norm{number}"
        if number in "125":
            layer(
                "Pooling",
                f"pool{number}",
                last,
                f"pool{number}",
                "pooling_param < pool: MAX; kernel_size: 3, stride: 2 >",
            )
            last = f"pool{number}"
    for name, outputs in (("fc6", 4096), ("fc7", 4096), ("fc8", 1000)):
        layer("InnerProduct", name, last, name, f"inner_product_param {{ num_output: {outputs} }}")
        last = name
        if name != "fc8":
            layer("ReLU", f"relu{name[-1]}", name, name)
            layer("Dropout", f"drop{name[-1]}", name, name, "dropout_param { dropout_ratio: 0.5 }")
    layer("Softmax", "prob", "fc8", "prob")
    size = "input_dim: 1 input_dim: 3 input_dim: 227 input_dim: 227" if old else "input_shape { dim: [1, 3, 227, 227] }"
    return f'name: "AlexNet"  # a comment\ninput: "data"\n{size}\n' + "\n".join(rows)


def imported(text: str, tmp_path: Path, **options: Any) -> Any:
    (tmp_path / "net.prototxt").write_text(text)
    return importers.import_model(str(tmp_path / "net.prototxt"), **options)


@pytest.mark.parametrize("old", [True, False], ids=["V1", "V2"])
def test_alexnet_is_the_spec_of_caffes_alexnet(old: bool, tmp_path: Path) -> None:
    """Its layers are those of specs/alexnet_caffe.yaml; 60,965,224 parameters, as its caffemodel has."""
    graph = imported(alexnet(old=old), tmp_path).graph
    known = archspec.load(ROOT / "specs" / "alexnet_caffe.yaml")

    assert archspec.check(graph).totals.params == 60_965_224
    skipped = {"name", "from_", "init", "allow", "ceil_mode"}
    ours, theirs = (
        [n.op.model_dump(exclude=skipped) for n in g.nodes if n.op.op not in ("flatten", "softmax")]
        for g in (graph, known)
    )
    assert ours == theirs


MODULES = """
name: "Net"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN } transform_param { crop_size: 40 } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST } transform_param { crop_size: 32 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 8 kernel_h: 3 kernel_w: 1 pad_h: 1 stride: 2 bias_term: false } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" batch_norm_param { eps: 1e-3 moving_average_fraction: 0.9 } }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" relu_param { negative_slope: 0.1 } }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "halves" type: "Slice" bottom: "pool" top: "left" top: "right" slice_param { slice_point: 2 } }
layer { name: "both" type: "Concat" bottom: "right" bottom: "left" top: "both" }
layer { name: "sum" type: "Eltwise" bottom: "both" bottom: "pool" top: "sum" eltwise_param { operation: SUM } }
layer { name: "aux" type: "InnerProduct" bottom: "sum" top: "aux" inner_product_param { num_output: 3 } }
layer { name: "aux_loss" type: "SoftmaxWithLoss" bottom: "aux" bottom: "label" top: "aux_loss" }
layer { name: "global" type: "Pooling" bottom: "sum" top: "global" pooling_param { pool: AVE global_pooling: true } }
layer { name: "fc" type: "InnerProduct" bottom: "global" top: "fc" inner_product_param { num_output: 5 } }
layer { name: "drop" type: "Dropout" bottom: "fc" top: "fc" include { phase: TRAIN } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "fc" bottom: "label" include { phase: TEST } }
"""


def test_caffes_semantics(tmp_path: Path) -> None:
    """Phases, layers in place, BatchNorm with Scale, ceil pooling, slices; an auxiliary head is left out and named."""
    text = imported(MODULES, tmp_path).text

    assert "input: {channels: 3, height: 32, width: 32}" in text
    assert (
        "{name: conv, op: conv2d, out_channels: 8, kernel_size: [3, 1], stride: 2, padding: [1, 0], bias: false}"
        in text
    )
    assert "{name: bn, op: batch_norm2d, eps: 0.001, momentum: 0.1}" in text
    assert "{name: relu, op: leaky_relu, negative_slope: 0.1}" in text
    assert "{name: pool, op: avg_pool2d, kernel_size: 3, stride: 2, ceil_mode: true}" in text  # 16 to 8, not 7
    assert "{name: right, op: split, sizes: [2, 6], index: 1, from: pool}" in text
    assert "from: [right, left]" in text
    assert "Left out, as the last layer does not depend on them: aux_flatten, aux." in text
    assert "op: dropout" not in text
    train = imported(MODULES, tmp_path, arguments={"phase": "TRAIN"})
    assert "height: 40" in train.text
    assert "op: dropout" in train.text


def test_modules_of_one_prefix_are_blocks(tmp_path: Path) -> None:
    """inception_3a/1x1 and inception_3b/1x1 are rows of one block."""
    rows, last = ['name: "G" input: "data" input_shape { dim: 1 dim: 8 dim: 9 dim: 9 }'], "data"
    for name in ("inception_3a", "inception_3b"):
        for branch in ("1x1", "3x3"):
            size = branch[0]
            rows.append(
                f'layer {{ type: "Convolution" name: "{name}/{branch}" bottom: "{last}" top: "{name}/{branch}" '
                f"convolution_param {{ num_output: 4 kernel_size: {size} pad: {int(size) // 2} }} }}"
            )
            rows.append(
                f'layer {{ type: "ReLU" name: "{name}/relu_{branch}" bottom: "{name}/{branch}" top: "{name}/{branch}" }}'
            )
        rows.append(
            f'layer {{ type: "Concat" name: "{name}/output" bottom: "{name}/1x1" bottom: "{name}/3x3" top: "{name}/output" }}'
        )
        rows.append(f'layer {{ type: "Dropout" name: "{name}/drop" bottom: "{name}/output" top: "{name}/output" }}')
        last = f"{name}/output"
    found = imported("\n".join(rows), tmp_path)

    assert "  inception:\n" in found.text
    assert "- {name: inception_3b, op: inception}" in found.text
    assert found.folded


def test_unsupported_layers_are_named_at_once_without_a_proof(tmp_path: Path) -> None:
    """The command ends with 1 for layers that no op is; else it says nothing of a proof."""
    bad = MODULES.replace('type: "Concat"', 'type: "Crop"').replace("operation: SUM", "operation: MAX")
    (tmp_path / "bad.prototxt").write_text(bad)
    (tmp_path / "net.prototxt").write_text(MODULES)
    run = archspec_command("import", tmp_path / "bad.prototxt")
    good = archspec_command("import", tmp_path / "net.prototxt")

    assert run.returncode == 1
    assert "Crop" in run.stderr
    assert good.returncode == 0, good.stderr
    assert "in float64" not in good.stderr
    assert "there is no proof" in good.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layer { name: ", "name has no value"),
        ("layer { name 3 }", "line 1: a colon or a brace was expected after name"),
        ('name: "net"\nlayer { type: "ReLU"', "the file ends before a }"),
        ("layer \x00", "is not expected in a prototxt"),
        ("a { " * 100 + "}" * 100, "more than 32 messages in one another"),
        ('layer { type: "ReLU" bottom: "x" top: "y" }', "no layers in this phase"),
        ('input: "x" layer { type: "ReLU" bottom: "x" top: "y" }', "give --input-shape"),
        ('input: "x" input_dim: [1, 3, 8, 8] layer { type: "Convolution" bottom: "x" top: "y" }', "has no kernel_size"),
        ('input: "x" input_dim: [1, 3, a, 8] layer { type: "ReLU" bottom: "x" top: "y" }', "is no network of Caffe"),
        ('name: { name: "unclosed }', "is not expected in a prototxt"),
    ],
)
def test_a_file_that_is_no_network_is_an_error(text: str, message: str, tmp_path: Path) -> None:
    """A message says what and where."""
    with pytest.raises((importers.ImportFailedError, importers.UnsupportedModelError)) as error:
        imported(text, tmp_path)
    found = getattr(error.value, "found", ())

    assert message in str(error.value) + "".join(one.why for one in found)


def test_the_text_format_of_protobuf() -> None:
    """Lists, angle brackets, separators, strings with escapes, and repeated fields."""
    assert parse('a: [1, 2] a: 3, b < c: "x\\"y"; d: -1e-3 > e: true f: MAX') == {
        "a": [1, 2, 3],
        "b": [{"c": ['x"y'], "d": [-1e-3]}],
        "e": [True],
        "f": ["MAX"],
    }
