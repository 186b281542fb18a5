"""Importing PyTorch models: specs that read well, proofs that hold, and proofs that altered imports do not pass."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, SPECS, archspec_command

import archspec
from archspec import importers
from archspec.graph import build
from archspec.importers import Imported
from archspec.importers.proof import prove
from archspec.language.source import Source
from archspec.targets import TARGETS
from archspec.workers import torch_import

pytestmark = [pytest.mark.frameworks, pytest.mark.xdist_group("importers")]
MODELS = ROOT / "tests" / "data" / "models" / "networks.py"
SHAPE = (3, 32, 32)


@pytest.fixture(autouse=True)
def _but_commands_in_process(request: pytest.FixtureRequest) -> None:
    """Answer requests in this process, where PyTorch is imported once; but those of a command."""
    pytest.importorskip("torch")
    if "command" not in request.node.name:
        request.getfixturevalue("in_process")


_known: dict[str, Imported] = {}


def imported(name: str) -> Imported:
    """Return an imported model of networks.py."""
    if name not in _known:
        _known[name] = importers.import_model(f"{MODELS}:{name}", input_shape=SHAPE)
    return _known[name]


@pytest.mark.parametrize("name", ["Convs", "Tokens", "Dense"])
def test_an_imported_model_is_proven(name: str) -> None:
    """Outputs and gradients in both modes, running statistics, MACs, dropouts and parameters are the model's."""
    found = imported(name)
    proof = prove(found)

    assert proof.failures == []
    assert set(proof.differences) >= {f"{w}, {m}" for w in ("outputs", "gradients") for m in ("evaluation", "training")}
    assert archspec.check(found.graph).totals.params == found.parameters
    assert found.folded


def test_rates_of_timms_stochastic_depth_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are in the spec, and the proof compares them with the model's."""
    found = imported("Dropping")

    assert [node.op.p for node in found.graph.nodes if node.op.op == "stochastic_depth"] == [0.125, 0.25]
    assert prove(found).failures == []
    text = found.text.replace("0.25", "0.2")
    assert text != found.text
    altered = replace(found, graph=build(Source.parse(text, "altered.yaml")))
    assert prove(altered).failures == ["dropouts: [0.125, 0.25] in the model, [0.125, 0.2] in the code"]


def test_the_spec_reads_as_written_by_a_person() -> None:
    """Modules that repeat are blocks, a sequence of them is one row, and what differs is an attribute."""
    text = imported("Convs").text

    assert "  residual:\n" in text
    assert "- {name: stage1, op: residual, repeat: 3}" in text or "{name: stage1, op: residual_2, repeat: 3}" in text
    assert "{name: pool, op: max_pool2d, kernel_size: 3, stride: 2, ceil_mode: true}" in text
    assert "{name: norm, op: group_norm, num_groups: 4, eps: 0.001}" in text
    assert "op: channel_shuffle, groups: 4" in text
    assert "{name: drop, op: dropout, p: 0.3}" in text
    dense = imported("Dense").text
    assert "{name: layers_1_concat, op: concat, from: [stem, layers_0]}" in dense
    assert "op: dense_layer" in dense
    assert dense.count("op: branch,") == 2
    tokens = imported("Tokens").text
    assert "{name: attention, op: multihead_attention, num_heads: 4}" in tokens
    assert "{name: blocks, op: block, repeat: 2}" in tokens
    assert "{name: places, op: position_embedding}" in tokens


@pytest.mark.zoo
@pytest.mark.parametrize(
    "name",
    [
        *("alexnet", "vgg11_bn", "squeezenet1_1", "resnet18", "resnet50", "resnext50_32x4d", "densenet121"),
        *("googlenet", "inception_v3", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x1_0", "mnasnet1_0"),
        *("regnet_x_400mf", "regnet_y_400mf", "efficientnet_b0", "efficientnet_v2_s", "convnext_tiny", "vit_b_16"),
    ],
)
def test_torchvisions_models_are_proven(name: str) -> None:
    """Each becomes blocks; parameters and MACs are equal, outputs and gradients to rounding."""
    pytest.importorskip("torchvision")
    size = 299 if name == "inception_v3" else 224
    found = importers.import_model(f"torchvision:{name}", input_shape=(3, size, size))

    assert prove(found).failures == []
    assert archspec.check(found.graph).totals.params == found.parameters
    assert found.folded


def test_weights_move_to_every_target(tmp_path: Path) -> None:
    """The canonical weights load into the generated code of NumPy, which gives the model's outputs."""
    import numpy as np
    import torch

    found = imported("Tokens")
    names: dict[str, Any] = {"__name__": "model"}
    exec(compile(archspec.targets.model_source(found.graph, TARGETS["numpy"]), "model.py", "exec"), names)
    model = torch_import.make({**found.source}).eval()
    state = {name: torch.from_numpy(value.copy()) for name, value in found.weights.items()}
    model.load_state_dict(state)
    images = torch.randn(2, *SHAPE, dtype=torch.float64)
    with torch.no_grad():
        expected = model.double()(images).numpy()
    outputs = names["Tokens"](images.numpy(), {k: v.astype(float) for k, v in found.canonical_weights().items()})

    np.testing.assert_allclose(outputs[found.graph.output.name], expected, rtol=1e-10, atol=1e-12)


# Text of the spec, and what stands there after a mistake of an importer.
MUTANTS = {
    "stride lost": ("Convs", "kernel_size: 5, stride: 2, padding: 2", "kernel_size: 5, padding: 2"),
    "ceil_mode lost": ("Convs", ", ceil_mode: true", ""),
    "leaky slope": ("Convs", "negative_slope: 0.2", "negative_slope: 0.01"),
    "leaky to relu": ("Convs", "op: leaky_relu, negative_slope: 0.2", "op: relu"),
    "momentum inverted": ("Convs", "momentum: 0.2", "momentum: 0.8"),
    "eps of PyTorch's default": ("Convs", "{name: bn1, op: batch_norm2d, eps: 0.001,", "{name: bn1, op: batch_norm2d,"),
    "momentum lost": ("Convs", ", momentum: 0.2}", "}"),
    "groups interleaved": ("Convs", "op: channel_shuffle, groups: 4", "op: channel_shuffle, groups: 8"),
    "branches swapped": ("Convs", "op: split, sections: 2, index: 0", "op: split, sections: 2, index: 1"),
    "norm's groups": ("Convs", "num_groups: 4", "num_groups: 8"),
    "norm's eps": ("Convs", "num_groups: 4, eps: 0.001", "num_groups: 4"),
    "dilation lost": ("Convs", "padding: 2, dilation: 2", "padding: 1"),
    "padding on the other axis": (
        "Convs",
        "kernel_size: [1, 3], padding: [0, 1]",
        "kernel_size: [3, 1], padding: [1, 0]",
    ),
    "padding counted": ("Convs", ", count_include_pad: false", ""),
    "elu's alpha": ("Convs", "op: elu, alpha: 0.5", "op: elu"),
    "hardswish to silu": ("Convs", "op: hardswish", "op: silu"),
    "relu6 to relu": ("Convs", "op: relu6", "op: relu"),
    "sigmoid to hardsigmoid": ("Convs", "op: sigmoid", "op: hardsigmoid"),
    "tanh to sigmoid": ("Convs", "op: tanh", "op: sigmoid"),
    "dropout's rate": ("Convs", "op: dropout, p: 0.3", "op: dropout, p: 0.5"),
    "output padding of Keras": ("Convs", "padding: 1, output_padding: 1", "padding: 0"),
    "heads": ("Tokens", "num_heads: 4", "num_heads: 2"),
    "token's place": ("Tokens", "op: select, index: 0", "op: select, index: 1"),
    "gelu's approximation": ("Tokens", "op: gelu", "op: gelu, approximate: tanh"),
    "layer norm's eps": (
        "Tokens",
        "{name: norm1, op: layer_norm, eps: 1e-6",
        "{name: norm1, op: layer_norm, eps: 1e-3",
    ),
    "a residual from the wrong layer": ("Tokens", "from: [input, drop]", "from: [norm1, drop]"),
    "a mean for the class token": ("Tokens", "op: select, index: 0", "op: mean"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_an_altered_import_is_rejected(mutant: str) -> None:
    """The proof of a spec in which one thing is otherwise fails, or it cannot be made."""
    name, old, new = MUTANTS[mutant]
    found = imported(name)
    assert old in found.text, found.text
    graph = build(Source.parse(found.text.replace(old, new), "altered.yaml"))

    assert _rejected(replace(found, graph=graph))


def _rejected(altered: Imported) -> bool:
    try:
        proof = prove(altered)
    except (importers.ImportFailedError, RuntimeError):
        return True
    return bool(proof.failures)


@pytest.mark.parametrize("kind", ["weights of two norms", "statistics of two norms", "two kernels", "q and k"])
def test_weights_of_another_layer_are_rejected(kind: str) -> None:
    """The proof with two weights of one shape exchanged fails."""
    found = imported("Tokens" if kind == "q and k" else "Convs")
    origins = dict(found.origins)
    pairs = {
        "weights of two norms": ("stage1.0.bn1.weight", "stage1.1.bn1.weight"),
        "statistics of two norms": ("stage1.0.bn1.running_mean", "stage1.2.bn2.running_mean"),
        "two kernels": ("stage1.0.conv1.weight", "stage1.1.conv1.weight"),
        "q and k": ("blocks.0.attention.in_proj_weight", "blocks.1.attention.in_proj_weight"),
    }
    a, b = pairs[kind]
    origins[a], origins[b] = origins[b], origins[a]

    assert _rejected(replace(found, origins=origins))


def test_what_is_not_finite_is_not_equal() -> None:
    """NaN, which is neither above nor below a bound, and a gradient that one side lacks."""
    import torch

    nothing = torch.tensor([1.0, float("nan")])
    assert torch_import.protocol.apart(nothing, nothing) == float("inf")
    assert torch_import.protocol.apart(torch.zeros(2), torch.ones(2), 0.5) == 2


QUICK = ("lenet", "cifar_resnet20", "cifar_cnn", "alexnet_tiny")


NOT_BACK = {
    "alexnet_2012_code": "LRN in groups, unflattened",
    "swin_t": "attention in windows, written out",
    "unet": "a center crop, which is slices",
}


def _marks(name: str) -> list[pytest.MarkDecorator]:
    """Return the marks of a spec: most are of the zoo, and some are not imported yet."""
    zoo = [] if name in QUICK else [pytest.mark.zoo]
    known = [pytest.mark.xfail(reason=NOT_BACK[name], strict=True)] if name in NOT_BACK else []
    return zoo + known


@pytest.mark.parametrize("path", [pytest.param(path, marks=_marks(path.stem), id=path.stem) for path in SPECS])
def test_a_spec_comes_back_from_its_generated_code(path: Path, tmp_path: Path) -> None:
    """The import of the code that a spec generates has the same layers: ops, attributes, shapes and readers."""
    graph = archspec.load(path)
    (tmp_path / "net.py").write_text(archspec.targets.model_source(graph, TARGETS["torch"]))
    name = archspec.language.names.class_name(graph.name)
    back = importers.import_model(f"{tmp_path}/net.py:{name}", input_shape=graph.input.output_shape).graph

    assert _all_facts(back) == _all_facts(graph)


def _all_facts(graph: archspec.Graph) -> list[Any]:
    """Return what there is to say of each layer; a stochastic depth of rate 0 is nothing."""
    return [_facts(node) for node in graph.nodes if not (node.op.op == "stochastic_depth" and not node.op.p)]


def _facts(node: Any) -> Any:
    fields = {k: v for k, v in node.op.model_dump().items() if k not in ("name", "from_", "init", "allow")}
    if "padding" in fields and node.op.windowed:  # `same` in a spec is numbers in the code
        fields["padding"] = node.op.explicit_padding(node.input_shapes[0])
    return (
        fields,
        node.output_shape,
        [read.output_shape for read in node.inputs],
        {k: p.shape for k, p in node.params.items()},
    )


def test_all_unsupported_operators_are_named_at_once() -> None:
    """Each with its module and the line of the user's own source; what reads them is not counted again."""
    with pytest.raises(importers.UnsupportedModelError) as error:
        imported("Unsupported")

    assert [one.target for one in error.value.found] == ["cumsum", "cumsum", "sin"]
    assert all(one.line.startswith("networks.py:") for one in error.value.found)
    assert "torch.cumsum(self.stem(x), 2)" in error.value.found[0].line


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (f"{MODELS}:Conv", "has no 'Conv'"),
        (f"{MODELS}:not_a_model", "is no torch.nn.Module"),
        ("torchvision:resnet5", "torchvision has no model 'resnet5'"),
        ("nothing.py:Net", "there is no file nothing.py"),
        ("alexnet", "is no source of a model"),
    ],
)
def test_a_source_that_is_no_model_is_an_error(source: str, message: str) -> None:
    """The message says what was found."""
    with pytest.raises(importers.ImportFailedError, match=re.escape(message)):
        importers.import_model(source, input_shape=SHAPE)


@pytest.mark.slow
@pytest.mark.xdist_group("importer commands")
def test_the_command_writes_a_spec_and_weights(tmp_path: Path) -> None:
    """`archspec import` writes both, and says how far the code is from the model."""
    from safetensors.numpy import load_file

    out, weights = tmp_path / "tokens.yaml", tmp_path / "tokens.safetensors"
    run = archspec_command(
        *("import", f"{MODELS}:Tokens", "--input-shape", "3,32,32", "-o", out, "--weights-out", weights)
    )

    assert run.returncode == 0, run.stderr
    assert "outputs, evaluation" in run.stderr
    graph = archspec.load(out)
    assert {name: list(value.shape) for name, value in load_file(weights).items()} == (
        archspec.verification.canonical_weights.shapes(graph)
    )


@pytest.mark.slow
@pytest.mark.xdist_group("importer commands")
def test_a_class_with_a_name_of_the_code_is_an_error_of_the_command(tmp_path: Path) -> None:
    """A block called as what generated code imports has a diagnostic, no traceback."""
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\nclass Tensor(nn.Sequential):\n    pass\n\n\n"
        "def net():\n    return nn.Sequential(*(Tensor(nn.Conv2d(3, 3, 1), nn.ReLU()) for _ in range(3)))\n"
    )
    run = archspec_command("import", f"{tmp_path / 'net.py'}:net", "--input-shape", "3,8,8")

    assert run.returncode == 1
    assert "error[reserved-name]" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.xdist_group("importer commands")
def test_the_command_says_which_package_is_missing(tmp_path: Path) -> None:
    """Exit status 2: with how to install it, if it is the source's own; not if a user's file imports it."""
    (tmp_path / "net.py").write_text("import no_such_package\n\n\ndef net():\n    return None\n")
    run = archspec_command("import", f"{tmp_path / 'net.py'}:net")

    assert run.returncode == 2
    assert run.stderr == "archspec: no_such_package is not installed\n"
    try:
        import timm  # noqa: F401
    except ImportError:
        run = archspec_command("import", "timm:resnet18")
        assert (run.returncode, run.stderr) == (2, "archspec: timm is not installed: pip install timm\n")


@pytest.mark.slow
@pytest.mark.xdist_group("importer commands")
def test_the_command_reports_what_it_cannot_import(tmp_path: Path) -> None:
    """Exit status 1, the coverage, and nothing written; an exception in the user's code is a message."""
    out = tmp_path / "net.yaml"
    run = archspec_command("import", f"{MODELS}:Unsupported", "--input-shape", "3,32,32", "-o", out)
    failed = archspec_command("import", f"{MODELS}:fails", "-o", out)

    assert run.returncode == failed.returncode == 1
    assert "cumsum" in run.stderr
    assert "(" in run.stderr.splitlines()[0]
    assert "nothing was written" in run.stderr
    assert "RuntimeError: no such file" in failed.stderr
    assert "Traceback" not in run.stderr + failed.stderr
    assert not out.exists()
