"""Importing ONNX models: read as data, proven beside onnxruntime, and proofs that altered imports do not pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import archspec
from archspec import importers
from archspec.graph import build
from archspec.importers import Imported, process
from archspec.importers.proof import RUNTIME, prove
from archspec.language.source import Source
from archspec.workers import onnx_import, torch_import

onnx = pytest.importorskip("onnx")
np = pytest.importorskip("numpy")
helper = onnx.helper
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"

pytestmark = [pytest.mark.xdist_group("importers")]


@pytest.fixture(autouse=True)
def _in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run onnxruntime and generated code in this process, where they are imported once."""
    jobs = {"disturb": onnx_import.disturb, "reference": onnx_import.reference, "run": torch_import.run}
    monkeypatch.setattr(process, "ask", lambda worker, request, folder: jobs[request["job"]](request))


# Parameters and MACs by other tools: of AlexNet, ResNet-50 and SqueezeNet torchvision's (1.1 for SqueezeNet), DenseNet's
# and GoogLeNet's as in tests/targets/test_zoo.py, VGG-19's 143,667,240.
KNOWN = {
    "bvlc_alexnet": (60_965_224, None),
    "densenet121": (7_978_856, 2_834_161_664),
    "inception_v1": (6_998_552, None),
    "inception_v2": (None, None),
    "resnet50": (25_557_032, 4_089_184_256),
    "shufflenet": (None, None),
    "squeezenet": (1_235_496, 349_151_936),
    "vgg19": (143_667_240, 19_632_062_464),
    "zfnet512": (None, None),
}


@pytest.mark.parametrize("name", KNOWN)
def test_models_of_the_onnx_package_are_imported(name: str) -> None:
    """All nine, with the parameters and MACs that are known of them."""
    totals = archspec.check(importers.import_model(str(LIGHT / f"light_{name}.onnx")).graph).totals
    params, macs = KNOWN[name]

    assert params is None or totals.params == params
    assert macs is None or totals.macs == macs
    assert totals.params > 1_000_000


@pytest.mark.frameworks
@pytest.mark.parametrize(
    "name",
    [
        "shufflenet",
        "squeezenet",
        *(pytest.param(name, marks=pytest.mark.zoo) for name in ("bvlc_alexnet", "densenet121", "inception_v2")),
        *(pytest.param(name, marks=pytest.mark.zoo) for name in ("resnet50", "vgg19", "zfnet512")),
    ],
)
def test_a_model_of_the_onnx_package_is_proven(name: str) -> None:
    """Outputs are onnxruntime's to float32's rounding, with random weights where the file's are all one value."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    proof = prove(importers.import_model(str(LIGHT / f"light_{name}.onnx")))

    assert proof.failures == []
    assert 0 < proof.differences[RUNTIME] < 1e-5


def small(opset: int = 17) -> Any:
    """Return a model with most operators, none of them at PyTorch's defaults."""
    random = np.random.default_rng(0)
    weights: dict[str, Any] = {}
    nodes = []

    def weight(name: str, *shape: int) -> str:
        weights[name] = (random.standard_normal(shape) * (2 / max(1, np.prod(shape[1:]))) ** 0.5).astype(np.float32)
        return name

    def node(kind: str, inputs: list[str], output: str, **fields: Any) -> None:
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **fields))

    node("Pad", ["images", "pads"], "padded")
    weights["pads"] = np.array([0, 0, 1, 0, 0, 0, 0, 2], np.int64)
    node(
        "Conv",
        ["padded", weight("conv.weight", 8, 3, 3, 3), weight("conv.bias", 8)],
        "conv",
        strides=[2, 2],
        pads=[1, 0, 1, 1],
    )
    for name in ("scale", "shift", "mean"):
        weight(f"norm.{name}", 8)
    weights["norm.var"] = random.uniform(0.5, 1.5, 8).astype(np.float32)
    node(
        "BatchNormalization",
        ["conv", "norm.scale", "norm.shift", "norm.mean", "norm.var"],
        "norm",
        epsilon=1e-3,
        momentum=0.8,
    )
    weights["zero"], weights["six"] = np.float32(0).reshape(()), np.float32(6).reshape(())
    node("Clip", ["norm", "zero", "six"], "relu6")
    node("Conv", ["relu6", weight("deep.weight", 8, 1, 3, 3)], "deep", group=8, auto_pad="SAME_UPPER")
    node("HardSwish", ["deep"], "swish")
    node("Sigmoid", ["swish"], "gate")
    node("Mul", ["swish", "gate"], "gated")
    node("AveragePool", ["gated"], "mean", kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    node("MaxPool", ["gated"], "most", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    node("ConvTranspose", ["most", weight("up.weight", 8, 6, 2, 2), weight("up.bias", 6)], "up", strides=[2, 2])
    node("LRN", ["up"], "lrn", size=3, alpha=0.3, beta=0.6, bias=1.5)
    weights["halves"] = np.array([3, 3], np.int64)
    nodes.append(helper.make_node("Split", ["lrn", "halves"], ["left", "right"], axis=1))
    node("LeakyRelu", ["right"], "leaky", alpha=0.2)
    node("Concat", ["leaky", "left", "mean"], "both", axis=1)
    weights["scales"] = np.array([1, 1, 2, 2], np.float32)
    node("Resize", ["both", "", "scales"], "large", mode="linear", coordinate_transformation_mode="half_pixel")
    node("Elu", ["large"], "elu", alpha=0.7)
    node("ReduceMean", ["elu"], "pooled", axes=[2, 3], keepdims=0)
    node("MatMul", ["pooled", weight("fc1.kernel", 14, 12)], "product")
    node("Add", ["product", weight("fc1.offset", 12)], "fc1")
    node("Tanh", ["fc1"], "tanh")
    node("Gemm", ["tanh", weight("fc2.weight", 5, 12), weight("fc2.bias", 5)], "scores", transB=1)
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", 1, ["batch", 3, 15, 14])],
        [helper.make_tensor_value_info("scores", 1, ["batch", 5])],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    return model


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    """The import of `small`."""
    path = tmp_path_factory.mktemp("onnx") / "small.onnx"
    onnx.save(small(), path)
    return importers.import_model(str(path))


@pytest.mark.frameworks
def test_most_operators_are_proven(imported: Imported) -> None:
    """Outputs are onnxruntime's; the weights of the file come out with canonical names."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")

    assert prove(imported).failures == []
    assert imported.canonical_weights()[
        "fc1.weight" if "fc1.weight" in imported.origins else "product.weight"
    ].shape == (12, 14)


MUTANTS = {
    "a pad on the other side": ("{top: 1, right: 2}", "{top: 1, left: 2}"),
    "a convolution's pads": ("padding: {top: 1, bottom: 1, right: 1}", "padding: {top: 1, bottom: 1, left: 1}"),
    "PyTorch's eps": ("eps: 0.001, momentum", "momentum"),
    "relu6 to relu": ("op: relu6", "op: relu"),
    "hardswish to silu": ("op: hardswish", "op: silu"),
    "padding counted": (", count_include_pad: false", ""),
    "ceil_mode lost": (", ceil_mode: true", ""),
    "slope of leaky_relu": ("negative_slope: 0.2", "negative_slope: 0.01"),
    "LRN's alpha": ("alpha: 0.3", "alpha: 0.1"),
    "LRN's k": ("k: 1.5", "k: 1.0"),
    "branches exchanged": ("from: [leaky, left, mean]", "from: [left, leaky, mean]"),
    "the other half": ("sections: 2, index: 1", "sections: 2, index: 0"),
    "nearest for bilinear": (", mode: bilinear", ""),
    "elu's alpha": ("alpha: 0.7", "alpha: 1.0"),
}


@pytest.mark.frameworks
@pytest.mark.parametrize("mutant", MUTANTS)
def test_an_altered_import_is_rejected(mutant: str, imported: Imported) -> None:
    """The proof of a spec in which one thing is otherwise fails, or it cannot be made."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    old, new = MUTANTS[mutant]
    assert old in imported.text, imported.text
    try:
        altered = build(Source.parse(imported.text.replace(old, new), "altered.yaml"))
        failures = prove(replace(imported, graph=altered)).failures
    except (archspec.SpecError, RuntimeError, torch_import.SourceError):
        return
    assert failures


def test_momentum_is_pytorchs(imported: Imported) -> None:
    """onnxruntime computes no running statistics, so the proof cannot see it: 1 - 0.8."""
    assert "op: batch_norm2d, eps: 0.001, momentum: 0.2}" in imported.text


def saved(tmp_path: Path, nodes: list[Any], outputs: list[str], weights: dict[str, Any] | None = None) -> str:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, [1, 3, 8, 8])],
        [helper.make_tensor_value_info(name, 1, None) for name in outputs],
        [onnx.numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return str(path)


def test_unsupported_operators_are_named_at_once(tmp_path: Path) -> None:
    """Each with its node; what reads them is not counted again."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Erf", ["a"], ["b"], name="erf"),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Clip", ["a", "", "one"], ["d"], name="cut"),
        helper.make_node("Add", ["c", "d"], ["y"]),
    ]
    path = saved(tmp_path, nodes, ["y"], {"one": np.float32(1).reshape(())})
    with pytest.raises(importers.UnsupportedModelError) as error:
        importers.import_model(path)

    assert [(one.target, one.path) for one in error.value.found] == [("Erf", "erf"), ("Clip", "cut")]


def test_a_constant_too_large_is_not_computed(tmp_path: Path) -> None:
    """A ConstantOfShape of 2^40 values is an error, and takes no memory."""
    nodes = [helper.make_node("ConstantOfShape", ["n"], ["w"]), helper.make_node("Add", ["x", "w"], ["y"])]
    path = saved(tmp_path, nodes, ["y"], {"n": np.array([2**20, 2**20], np.int64)})
    with pytest.raises(importers.ImportFailedError, match="would have 1,099,511,627,776 values"):
        importers.import_model(path)


def test_weights_of_another_folder_are_refused(tmp_path: Path) -> None:
    """External data is read from beside the model only."""
    path = saved(tmp_path, [helper.make_node("Gemm", ["x", "w"], ["y"])], ["y"], {"w": np.zeros((3, 3), np.float32)})
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    onnx.save(model, path)
    with pytest.raises(importers.ImportFailedError, match="in a file of another folder"):
        importers.import_model(path)


def test_a_file_that_is_no_model_is_an_error(tmp_path: Path) -> None:
    """Of other bytes, and of a model without a graph."""
    for content in (b"hello", b""):
        (tmp_path / "net.onnx").write_bytes(content)
        with pytest.raises((importers.ImportFailedError, importers.UnsupportedModelError)):
            importers.import_model(str(tmp_path / "net.onnx"))
