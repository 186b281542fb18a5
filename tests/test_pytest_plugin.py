"""The pytest plugin: what it collects, how a failure reads, and the fixture; run by pytest's own pytester."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from importlib.util import find_spec

import pytest
from helpers import ROOT

import archspec

pytest_plugins = ["pytester"]
LRN = """archspec: 1
name: lrn
input: {channels: 3, height: 8, width: 8}
layers:
  - {name: conv1, op: conv2d, out_channels: 8, kernel_size: 3}
  - {name: relu1, op: relu}
  - {name: norm1, op: local_response_norm, size: 5, alpha: 1e-4, beta: 0.75, k: 2}
  - {name: flatten, op: flatten}
  - {name: fc, op: linear, out_features: 5}
"""
CLAIMS = "claims: [{params: 1669}]\nbudget: {params: <= 1669}\n"  # 8 x 28 + 5 x 289
FALSE = CLAIMS.replace("1669}]", "1668}]").replace("<= 1669", "<= 1e3")
BROKEN = LRN.replace("kernel_size: 3", "kernel_size: 30")


def run(pytester: pytest.Pytester, *words: object, process: bool = False) -> pytest.RunResult:
    """Run pytest with the plugin, whether it is installed or not."""
    installed = any(point.value == "archspec.pytest_plugin" for point in entry_points(group="pytest11"))
    plugin = () if installed else ("-p", "archspec.pytest_plugin")
    runner = pytester.runpytest_subprocess if process else pytester.runpytest_inprocess
    return runner(*plugin, "-p", "no:cacheprovider", *map(str, words))


def require(package: str) -> None:
    """Skip a test without a package, which is not imported: pytester would import it twice."""
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def test_the_entry_point_names_the_plugin() -> None:
    """pyproject.toml has it for an installed archspec; the plugin has at most 250 lines and four options."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "archspec" / "pytest_plugin.py").read_text()

    assert project["entry-points"]["pytest11"] == {"archspec": "archspec.pytest_plugin"}
    assert text.count("\n") <= 250
    assert text.count("addoption(") == 1 + 4


def test_the_import_takes_20_ms_and_no_framework() -> None:
    """Besides pytest itself, in CPU time; neither pydantic nor any part of archspec is imported."""
    program = (
        "import pytest, sys, time; before = set(sys.modules); start = time.process_time()\n"
        "import archspec.pytest_plugin\n"
        "print(time.process_time() - start, *sorted(set(sys.modules) - before))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.split() for _ in range(3)
    ]

    assert min(float(words[0]) for words in runs) < 0.020
    names = set(runs[0][1:])
    assert {"archspec", "archspec.pytest_plugin"} <= names
    assert not [name for name in names if name.startswith("archspec.") and name != "archspec.pytest_plugin"]
    assert not names & {"torch", "keras", "numpy", "pydantic", "yaml"}


def test_what_is_collected(pytester: pytest.Pytester) -> None:
    """Only what a spec has; files of claims are tested, those of budgets and other YAML files are no specs."""
    folder = pytester.mkdir("specs")
    (folder / "plain.yaml").write_text(LRN)
    (folder / "full.yaml").write_text(LRN.replace("name: lrn", "name: full") + CLAIMS)
    (folder / "full.claims.yaml").write_text("archspec: 1\nspec: full.yaml\nclaims: [{params: 1669}]\n")
    (folder / "broken.yaml").write_text(BROKEN)
    (folder / "edge.budget.yaml").write_text("archspec: 1\nbudget: {params: <= 1}\n")
    pytester.mkdir("generated")
    (pytester.path / "generated" / "full").mkdir()
    pytester.makefile(".yaml", other="on: push")
    pytester.makepyfile("def test_other(): pass")

    found = [line for line in run(pytester, "--archspec", "specs", "--collect-only", "-q").outlines if "::" in line]

    assert found == [
        "specs/broken.yaml::check",
        "specs/full.claims.yaml::check",
        "specs/full.claims.yaml::claims",
        "specs/full.yaml::check",
        "specs/full.yaml::claims",
        "specs/full.yaml::budget",
        "specs/full.yaml::generated",
        "specs/full.yaml::certificate",
        "specs/full.yaml::verify[keras]",
        "specs/plain.yaml::check",
        "specs/plain.yaml::verify[keras]",
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {"test_a.py::test_a", "a.yaml::check"}),  # of addopts: with all tests
        (["test_a.py"], {"test_a.py::test_a"}),  # but not with those that are named
        (["--archspec", "a.yaml"], {"a.yaml::check"}),
        (["--archspec=a.yaml", "test_a.py"], {"a.yaml::check", "test_a.py::test_a"}),
        (["-m", "archspec"], {"a.yaml::check"}),
        (["-m", "not archspec"], {"test_a.py::test_a"}),
    ],
)
def test_options_in_the_configuration(pytester: pytest.Pytester, words: list[str], expected: set[str]) -> None:
    """`addopts = "--archspec a.yaml"` adds specs to a whole run; the marker selects."""
    pytester.makefile(".yaml", a=LRN)
    pytester.makefile(".ini", pytest="[pytest]\naddopts = --archspec a.yaml -k 'not verify'\ntestpaths = test_a.py\n")
    pytester.makepyfile(test_a="def test_a(): pass")

    found = run(pytester, *words, "--collect-only", "-q").outlines

    assert {line for line in found if "::" in line} == expected


def test_failures_say_what_is_wrong_and_how_to_see_it_again(pytester: pytest.Pytester) -> None:
    """With the place in the spec; the last line is the command."""
    pytester.makefile(".yaml", false=LRN + FALSE, broken=BROKEN)
    pytester.makefile(".budget.yaml", edge="archspec: 1\nbudget: {macs: <= 1}\n")

    result = run(pytester, "--archspec", "false.yaml", "--archspec", "broken.yaml", "--archspec-budget", "edge.budget.yaml", "-k", "not verify")  # fmt: skip

    result.assert_outcomes(passed=1, failed=3)
    result.stdout.fnmatch_lines(
        [
            "*false.yaml::claims*",
            "*false.yaml:10:*: error[[]false-claim]: params is 1,669, not 1,668",
            "reproduce: archspec check false.yaml --budget edge.budget.yaml",
            "*false.yaml::budget*",
            "*false.yaml:11:*: error[[]over-budget]: params is 1,669, not <= 1e3 *",
            "*edge.budget.yaml:2:*: error[[]over-budget]: lrn: macs is *",
            "reproduce: archspec check false.yaml --budget edge.budget.yaml",
            "*broken.yaml::check*",
            "*broken.yaml:5:*: error[[]window]: conv1: *",
            "reproduce: archspec check broken.yaml --budget edge.budget.yaml",
        ]
    )


def test_generated_files_and_certificates(pytester: pytest.Pytester) -> None:
    """Files that are up to date pass, whichever there are; edited ones fail, as does a missing certificate."""
    pytester.makefile(".yaml", lrn=LRN)
    (path,) = archspec.generate(pytester.path / "lrn.yaml", "numpy", out=pytester.path / "code")
    words = ("--archspec", "lrn.yaml", "--archspec-generated", "code", "-k", "generated or certificate")

    fresh = run(pytester, *words)
    path.write_text(path.read_text().replace("0.75", "0.76"))
    edited = run(pytester, *words)
    (pytester.path / "lrn.yaml").write_text(LRN.replace("name: lrn", "name: other"))
    none = run(pytester, *words)

    fresh.assert_outcomes(passed=1, failed=1)
    fresh.stdout.fnmatch_lines(["*code/lrn/verify.json does not exist", "reproduce: archspec verify lrn.yaml --check --out code"])  # fmt: skip
    edited.assert_outcomes(failed=2)
    edited.stdout.fnmatch_lines(["code/lrn/numpy/model.py: edited by hand", "reproduce: archspec generate lrn.yaml --check --out code"])  # fmt: skip
    none.assert_outcomes(failed=2)
    none.stdout.fnmatch_lines(["there are no generated files"])


def test_options_that_make_no_sense(pytester: pytest.Pytester) -> None:
    """An unknown target, a single one, and a folder that does not exist are usage errors; a bad budget fails."""
    pytester.makefile(".yaml", lrn=LRN)
    pytester.makefile(".budget.yaml", edge="archspec: 1\nbudget: {}\n")
    targets = [("torch",), ("torch", "pytroch")]

    for names in targets:
        result = run(pytester, "--archspec", "lrn.yaml", *(f"--archspec-target={name}" for name in names))
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["ERROR: --archspec-target: name two or more of torch, *"])
    assert run(pytester, "--archspec", "nope").ret == pytest.ExitCode.USAGE_ERROR
    bad = run(pytester, "--archspec", "lrn.yaml", "--archspec-budget", "edge.budget.yaml")
    bad.assert_outcomes(failed=1)
    bad.stdout.fnmatch_lines(["*edge.budget.yaml:2:1: error[[]missing-key]: a budget needs one of *"])


def test_a_missing_framework_is_a_skip_with_its_name(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch is not there for the process of the target."""
    require("scipy")
    pytester.makefile(".yaml", lrn=LRN)
    stub = pytester.mkdir("stub")
    (stub / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    monkeypatch.setenv("PYTHONPATH", f"{stub}:{ROOT}")

    result = run(
        pytester, "--archspec", "lrn.yaml", "--archspec-target=numpy", "--archspec-target=torch", "-rs", process=True
    )

    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED * torch: No module named 'torch': *"])


@pytest.mark.slow
@pytest.mark.frameworks
def test_targets_are_verified(pytester: pytest.Pytester) -> None:
    """A generated file that was altered fails at its layer; what the data could not have shown is named."""
    require("torch")
    pytester.makefile(".yaml", lrn=LRN, dead=LRN.replace("name: lrn", "name: dead").replace("alpha: 1e-4", "alpha: 0"))
    (path,) = archspec.generate(pytester.path / "dead.yaml", "numpy", out=pytester.path / "generated")
    path.write_text(path.read_text().replace("np.maximum(", "np.minimum("))
    words = ("--archspec", ".", "--archspec-target=torch", "--archspec-target=numpy", "-k", "verify")

    result = run(pytester, *words, process=True)

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "dead: numpy differs from torch at relu1.output (relu): *",
            "this input cannot see norm1: *",
            "reproduce: archspec verify dead.yaml --target torch --target numpy --quick --out generated",
        ]
    )


MODULES = """
import pytest
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, alpha=1e-4, beta=0.75, out=5):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3)
        self.lrn = nn.LocalResponseNorm(5, alpha, beta, 2.0)
        self.b = nn.Linear(8 * 36, out)

    def forward(self, x):
        return self.b(torch.flatten(self.lrn(self.a(x).relu()), 1))

def test_good(archspec):
    net = Net()
    weight, state = net.a.weight.clone(), torch.get_rng_state()
    with torch.no_grad():
        archspec("lrn.yaml").equals(net)
    archspec("lrn.yaml").counts(net)
    assert torch.equal(net.a.weight, weight) and net.a.weight.dtype == torch.float32 and net.training
    assert torch.equal(torch.get_rng_state(), state)
    assert nn.functional.dropout.__module__ == "torch.nn.functional"

def test_alpha(archspec):
    archspec("lrn.yaml").equals(Net(alpha=5e-4))

def test_counts(archspec):
    archspec("lrn.yaml").counts(Net(out=6))

def test_no_model(archspec):
    archspec("lrn.yaml").equals(len)
"""


@pytest.mark.slow
@pytest.mark.frameworks
def test_modules_are_compared_with_a_spec(pytester: pytest.Pytester) -> None:
    """A module whose LRN has 5 times the alpha is rejected at that layer, with the alteration; it is left as it was."""
    require("torch")
    pytester.makefile(".yaml", lrn=LRN)
    pytester.makepyfile(test_net=MODULES)

    result = run(pytester, process=True)

    result.assert_outcomes(passed=1, failed=3)
    result.stdout.fnmatch_lines(
        [
            "E*Net is not the network of lrn",
            "E*error: the first layer that parts is norm1 (lrn)",
            "E*norm1 with alpha 0.0001 -> 0.0005 gives what the model computes",
            "E*alterations of layers and attributes were tried: outputs would show each",
            "E*reproduce: pytest test_net.py::test_alpha",
            "E*parameters: 1,669 in the spec, 1,958 in the model",
            "E*MACs: 9,216 in the spec, 9,504 in the model",
            "E*only in the spec: fc.weight 5 x 288",
            "E*only in the model: b.weight 6 x 288",
            "E*reproduce: pytest test_net.py::test_counts",
            "E*a builtin_function_or_method is no torch.nn.Module and no keras.Model",
        ]
    )


KERAS = """
import os
import keras
from keras import layers

@keras.saving.register_keras_serializable()
class Scale(layers.Layer):
    def __init__(self, factor=1.0, **options):
        super().__init__(**options)
        self.factor = factor

    def call(self, x):
        return x * self.factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}

def net(factor=1.0):
    x = keras.Input((8, 8, 3))
    y = layers.Activation("relu")(layers.Conv2D(8, 3)(x))
    return keras.Model(x, layers.Dense(5)(layers.Flatten()(Scale(factor)(y))), name="net")

def test_good(archspec):
    model = net()
    state = keras.config.floatx(), keras.config.dtype_policy().name, model.get_weights()[0].copy()
    archspec("plain.yaml").equals(model)
    archspec("plain.yaml").counts(model)
    assert keras.config.floatx() == state[0] and keras.config.dtype_policy().name == state[1]
    assert (model.get_weights()[0] == state[2]).all()
    assert os.environ["KERAS_BACKEND"] == keras.config.backend()
    assert "float32" in str(keras.ops.convert_to_tensor([1.0]).dtype)

def test_bad(archspec):
    archspec("plain.yaml").equals(net(2.0))
"""


@pytest.mark.slow
@pytest.mark.frameworks
@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
def test_keras_models_are_compared_with_a_spec(
    pytester: pytest.Pytester, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With layers of the user's own, on either backend; the flattened order of Keras is found; Keras' state stays."""
    require(backend)
    pytester.makefile(".yaml", plain=LRN.replace("name: lrn", "name: plain").replace("  - {name: norm1, op: local_response_norm, size: 5, alpha: 1e-4, beta: 0.75, k: 2}\n", ""))  # fmt: skip
    pytester.makepyfile(test_net=KERAS)
    monkeypatch.setenv("KERAS_BACKEND", backend)

    result = run(pytester, "-p", "no:warnings", process=True)

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*net is not the network of plain",
            "E*reads maps flattened as (H, W, C): its weights were put in that order",
            "E*error: the first layer that parts is *",
            "E*reproduce: pytest test_net.py::test_bad",
        ]
    )
