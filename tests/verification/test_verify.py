"""A verification from end to end: real networks agree, and failures and faults are reported where they are."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import FRAMEWORKS, OP_SPECS, REGRESSIONS, ROOT, SPECS, archspec_process, network
from helpers.verification import CachedWorkers, small_network, write_generated

import archspec
from archspec.cli.evidence import print_evidence
from archspec.files import write, write_tensors
from archspec.graph import Graph
from archspec.report import evidence as report
from archspec.verification import BOUNDS, CHECKS, QUICK, Evidence, Workers, canonical_weights, certificate, verify

pytestmark = [pytest.mark.frameworks, pytest.mark.xdist_group("workers")]

CERTIFIED = {"alexnet"}  # specs whose certificate is committed


@pytest.fixture(scope="module")
def alexnet() -> Graph:
    return archspec.load(ROOT / "specs" / "alexnet.yaml")


@pytest.fixture(scope="module")
def alexnet_evidence(alexnet: Graph, workers: Workers) -> Evidence:
    return verify(alexnet, workers, generated=ROOT / "generated", checks=QUICK, dtypes=("float64",))


@pytest.fixture(scope="module")
def small() -> Graph:
    return small_network()


@pytest.mark.slow
def test_alexnet_agrees_in_all_targets(alexnet_evidence: Evidence) -> None:
    """Outputs agree to 1e-10 and gradients to 1e-9 in float64, of the committed files."""
    assert BOUNDS == {
        "forward": 1e-10,
        "gradients": 1e-9,
        "training-mode": 1e-9,
        "training": 1e-8,
        "dropout": 1e-9,
        "transforms": 1e-9,
    }
    assert alexnet_evidence.agrees, alexnet_evidence.first
    assert alexnet_evidence.stale == ()
    outputs = [c for c in alexnet_evidence.comparisons if c.check == "forward"]
    assert [(c.layer, c.target) for c in outputs] == [
        (n.name, t) for t in FRAMEWORKS for n in alexnet_evidence.graph.nodes
    ]
    gradients = [
        c for c in alexnet_evidence.comparisons if c.what.endswith("gradient") or c.what == "central difference"
    ]
    # weights and biases of eight layers, the input, and a central difference for each framework
    assert len(gradients) == 16 + 1 + 2
    folder = ROOT / "generated" / "alexnet"
    assert alexnet_evidence.folders == {
        "numpy": folder / "numpy",
        "torch": folder / "pytorch",
        "keras": folder / "keras",
    }
    assert {"pytorch/model.py", "pytorch/recipe.py", "pytorch/train.py"} <= set(alexnet_evidence.files["torch"])
    worst = max(c.value for c in (*outputs, *gradients) if c.what != "central difference")
    assert 0 < worst < 1e-13  # rounding: no tensor was compared with itself


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_committed_certificate_is_valid(path: Path) -> None:
    """A verify.json beside generated files is of these files, of all checks, and records an agreement."""
    folder = ROOT / "generated" / path.stem
    if not (folder / "verify.json").is_file():
        assert path.stem not in CERTIFIED
        pytest.skip("has no certificate")
    content = json.loads((folder / "verify.json").read_text())

    assert certificate.stale_reasons(archspec.load(path), folder) == []
    assert {*content["checks"], *content["skipped"]} == set(CHECKS)
    assert content["steps"] >= 20


@pytest.mark.parametrize(
    "path",
    [*OP_SPECS, *(pytest.param(path, marks=pytest.mark.slow) for path in REGRESSIONS)],
    ids=lambda path: path.stem,
)
def test_each_op_agrees_in_all_targets(path: Path, workers: Workers) -> None:
    """Outputs and gradients: signed inputs, every attribute off its default, H and W different."""
    evidence = verify(archspec.load(path), workers, batch=3, checks=("forward", "gradients"))

    assert evidence.agrees, (evidence.first, evidence.failures)


@pytest.mark.slow
@pytest.mark.parametrize("path", [*OP_SPECS, *REGRESSIONS], ids=lambda path: path.stem)
def test_each_op_trains_alike_in_all_targets(path: Path, workers: Workers) -> None:
    """The other checks, in float64; training in float32 is in the tests of the mutants' networks."""
    others = tuple(check for check in CHECKS if check not in ("forward", "gradients"))
    evidence = verify(archspec.load(path), workers, batch=3, checks=others, dtypes=("float64",))

    assert evidence.agrees, (evidence.first, evidence.failures)
    trains = any(node.trainable for node in evidence.graph.nodes)
    batches = any(node.op.op == "batch_norm2d" for node in evidence.graph.nodes)
    drops = any(node.op.random for node in evidence.graph.nodes)
    assert set(evidence.skipped) == (set() if trains else {"training", "init"}) | (set() if drops else {"dropout"}) | (
        set() if batches else {"training-mode"}
    ) | (set() if evidence.graph.spec.training else {"images"})


# --- faults and failures ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_unaltered_small_network_agrees(small: Graph, cached_workers: CachedWorkers) -> None:
    """Without a fault the network of the tests below passes, so that they fail because of their faults."""
    assert verify(small, cached_workers).agrees


def test_a_job_on_changed_files_is_not_repeated_from_memory(
    small: Graph, cached_workers: CachedWorkers, tmp_path: Path
) -> None:
    """The cache of these tests: equal files and inputs need no job; another file, seed or input does."""

    def jobs(**options: object) -> int:
        before = cached_workers.done
        verify(small, cached_workers, checks=("forward",), dtypes=("float64",), **options)  # type: ignore[arg-type]
        return cached_workers.done - before

    jobs()
    assert jobs() == 0
    assert jobs(seed=3) == 3
    assert jobs(inputs=np.ones((2, *small.input.output_shape), np.float32)) == 3
    write_generated(small, "torch", tmp_path, model=("nn.ReLU()\n        self.norm1", "nn.GELU()\n        self.norm1"))
    assert jobs(generated=tmp_path) == 1


@pytest.mark.slow
def test_alexnet_without_lrn_is_rejected(alexnet: Graph, workers: Workers, tmp_path: Path) -> None:
    """With N(0, 1) inputs and the paper's weights, removing LRN moves AlexNet's float32 logits by less than rounding.

    Here it is noticed at norm1, and in the logits as well: by more than 1e-2, where others differ by 1e-6 at most.
    """
    lrn = "(self.k + self.alpha * self.mean_of_squares(y)) ** self.beta"
    write_generated(alexnet, "keras", tmp_path, model=(lrn, "self.k**self.beta"))
    evidence = verify(alexnet, workers, generated=tmp_path, checks=("structure", "forward"))
    logits = [c for c in evidence.comparisons if c.check == "forward" and c.layer == "fc8"]

    assert evidence.first is not None
    assert (evidence.first.layer, evidence.first.target) == ("norm1", "keras")
    assert [c.value > 1e-2 for c in logits] == [c.target == "keras" for c in logits]
    assert len(logits) == 4


def test_missing_layer_is_named(small: Graph, cached_workers: CachedWorkers, tmp_path: Path) -> None:
    """A layer that a target lacks is a difference at that layer."""
    write_generated(small, "torch", tmp_path, model=("        x = self.relu6(x)  # (N, 16)\n", ""))
    evidence = verify(small, cached_workers, generated=tmp_path)

    assert evidence.first is not None
    assert (evidence.first.layer, evidence.first.problem) == ("relu6", "is missing")


def test_zeros_and_nan_do_not_agree(small: Graph, cached_workers: CachedWorkers) -> None:
    """Outputs that are zero everywhere, or nan, in every target are no agreement."""
    zeros = {name: 0 * value for name, value in canonical_weights.for_forward_check(small, 0).items()}
    evidence = verify(small, cached_workers, weights=zeros, checks=("forward",))
    assert evidence.first is not None
    assert evidence.first.layer == small.output.name
    assert evidence.first.problem == "is zero everywhere: nothing was compared"
    assert all(c.all_zero for c in evidence.comparisons if c.layer != small.output.name)
    assert "zero everywhere in every target" in report.blind_spots(evidence)[0]

    nan = np.full((1, *small.input.output_shape), np.nan, np.float32)
    evidence = verify(small, cached_workers, inputs=nan, checks=("forward",))
    assert evidence.first is not None
    assert evidence.first.problem == "is not finite"


def test_no_comparisons_are_no_agreement(small: Graph, cached_workers: CachedWorkers) -> None:
    evidence = verify(small, cached_workers, checks=("forward",), dtypes=("float64",))

    assert evidence.agrees
    assert not dataclasses.replace(evidence, comparisons=()).agrees


def test_error_in_a_generated_file_is_reported(small: Graph, cached_workers: CachedWorkers, tmp_path: Path) -> None:
    """With its message; the other targets' results are kept, and the worker serves the next job."""
    write([(tmp_path / "net" / "pytorch" / "model.py", "raise RuntimeError('not today')\n")], tmp_path)
    evidence = verify(small, cached_workers, generated=tmp_path)

    assert not evidence.agrees
    assert "torch: RuntimeError: not today" in str(evidence.failures[0])
    assert evidence.outputs["keras"].shape == (2, 10)
    assert verify(small, cached_workers).agrees


@pytest.mark.parametrize(
    ("file", "run"),
    [
        ("model", set()),
        ("recipe", {"structure", "forward"}),
    ],
)
def test_checks_without_a_result_are_not_shown_as_agreements(
    file: str,
    run: set[str],
    small: Graph,
    cached_workers: CachedWorkers,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A Keras file that raises when it is imported: `not run` in the checks without a result, the verdict twice."""
    write([(tmp_path / "net" / "keras" / f"{file}.py", "raise ImportError('of this file')\n")], tmp_path)
    evidence = verify(small, cached_workers, generated=tmp_path)
    print_evidence(evidence)
    lines = capsys.readouterr().out.splitlines()

    assert not evidence.agrees
    assert "keras: ImportError: of this file" in str(evidence.failures[0])
    assert evidence.incomplete == {
        (check, "keras") for check in CHECKS if check not in (*run, "training-mode", "images")
    }
    verdict = "net: not verified: keras failed"
    assert lines[0] == lines[-1] == report.verdict(evidence) == verdict
    assert "net: numpy and torch and keras agree" not in "\n".join(lines)

    columns = list(evidence.columns())
    texts: dict[str, set[str]] = {check: set() for check in CHECKS}
    for _, cells in report.rows(evidence):
        for (check, _), (text, kind) in zip(columns, cells, strict=True):
            texts[check].add(text)
            assert (kind == "agrees") <= (check in run), (check, text)
    for check in CHECKS:
        if check in run:
            assert "not run" not in texts[check]
            assert len(texts[check]) > 1 or texts[check] == {"same"}
        else:
            assert texts[check] <= {"", "not run"}, check
    assert "not run" in texts["gradients"] & texts["init"]  # torch has results there
    # The same in print, and on the page.
    table = "\n".join(lines[lines.index("", 1) :])
    assert "not run" in table
    assert ("same" in table) is ("structure" in run)
    page = report.page(evidence)
    assert page.count(verdict) >= 1
    assert (">same<" in page) is ("structure" in run)


def test_death_of_a_worker_is_reported(small: Graph, workers: Workers, tmp_path: Path) -> None:
    """With its exit status; the other targets' results are kept, and the next job gets a new process."""
    write([(tmp_path / "net" / "pytorch" / "model.py", "import os\nos._exit(7)\n")], tmp_path)
    evidence = verify(small, workers, generated=tmp_path, checks=QUICK)

    assert str(evidence.failures[0]).startswith("torch: the worker died (exit status 7)")
    assert {c.target for c in evidence.comparisons} == {"keras"}
    assert evidence.outputs["keras"].shape == (2, 10)
    assert verify(small, workers, checks=("structure", "forward")).agrees


def test_timeout_of_a_worker_is_reported(small: Graph, tmp_path: Path) -> None:
    """A job that takes too long ends its process."""
    write([(tmp_path / "net" / "numpy" / "model.py", "import time\ntime.sleep(60)\n")], tmp_path)
    with Workers(("numpy",), timeout=5) as fresh:
        evidence = verify(small, fresh, generated=tmp_path)

    assert [str(failure) for failure in evidence.failures] == ["numpy: no answer in 5 s"]


def test_missing_framework_is_reported(tmp_path: Path) -> None:
    """`verify` without Keras prints how to install it, and exits 2."""
    (tmp_path / "keras.py").write_text("raise ModuleNotFoundError('no keras here', name='keras')")
    ran = archspec_process("verify", ROOT / "specs" / "ops" / "relu.yaml", "--quick", PYTHONPATH=str(tmp_path))

    assert ran.returncode == 2
    assert "pip install 'archspec-nn[keras]'" in ran.stdout
    assert "Traceback" not in ran.stdout + ran.stderr


# --- generated files by themselves -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "lines"), [
    ("pytorch", ["conv1           (1, 96, 55, 55)                 34,944", "60,965,224", "output (1, 1000), "]),
    pytest.param("keras", ["conv1 (Conv2D)", "34,944", "60,965,224", "output (1, 1000), "], marks=pytest.mark.slow),
])  # fmt: skip
def test_generated_model_runs_by_itself(target: str, lines: list[str], tmp_path: Path) -> None:
    """It prints its layer table and a forward pass, from another folder and without archspec."""
    script = ROOT / "generated" / "alexnet" / target / "model.py"
    ran = subprocess.run([sys.executable, "-I", str(script)], capture_output=True, text=True, cwd=tmp_path)

    assert ran.returncode == 0, ran.stderr
    for line in lines:
        assert line in ran.stdout


@pytest.mark.slow
def test_load_torch_weights_rejects_other_weights(small: Graph, tmp_path: Path) -> None:
    """A file without a layer's weights, or with other shapes, is an error."""
    folder = write_generated(small, "keras", tmp_path)
    good = canonical_weights.for_forward_check(small, 0)
    write_tensors(tmp_path / "good.safetensors", good)
    write_tensors(tmp_path / "missing.safetensors", {k: v for k, v in good.items() if k != "fc7.bias"})
    write_tensors(tmp_path / "shape.safetensors", {**good, "conv1.weight": good["conv1.weight"][:, :, :3]})
    script = f"""
import sys; sys.path.insert(0, {str(folder)!r})
import model
for name in ("good", "missing", "shape"):
    try: model.load_torch_weights(model.Net(), f"{tmp_path}/{{name}}.safetensors"); print(name, "loaded")
    except (KeyError, ValueError) as error: print(name, type(error).__name__)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert ran.stdout.splitlines() == ["good loaded", "missing KeyError", "shape ValueError"], ran.stderr


# --- initial weights -------------------------------------------------------------------------------------------------

# Rules of a (240, 16 / 2, 3, 3) weight and its bias: fan-in 8 * 9 = 72, fan-out 240 * 9 = 2160 (torch.nn.init and Keras
# alike). The mean, the standard deviation, and the range.
INITS = [
    ("{normal: {mean: 0.5, std: 0.2}}", 0.5, 0.2, None),
    # truncated at two deviations: sqrt(1 - 4 phi(2) / (2 Phi(2) - 1)) = sqrt(0.7737) = 0.8796 of a normal's deviation
    ("{truncated_normal: {mean: 0.5, std: 0.2}}", 0.5, 0.2 * 0.8796, (0.1, 0.9)),
    ("{uniform: {a: -0.2, b: 0.6}}", 0.2, 0.8 / 12**0.5, (-0.2, 0.6)),
    ("{xavier_uniform: {gain: 2}}", 0, 2 * (2 / 2232) ** 0.5, (-2 * (6 / 2232) ** 0.5, 2 * (6 / 2232) ** 0.5)),
    ("xavier_uniform", 0, (2 / 2232) ** 0.5, (-((6 / 2232) ** 0.5), (6 / 2232) ** 0.5)),
    ("{xavier_normal: {gain: 2}}", 0, 2 * (2 / 2232) ** 0.5, None),
    ("kaiming_uniform", 0, (2 / 72) ** 0.5, (-((6 / 72) ** 0.5), (6 / 72) ** 0.5)),
    ("{kaiming_uniform: {mode: fan_out, nonlinearity: tanh}}", 0, 5 / 3 / 2160**0.5, None),
    ("{kaiming_normal: {nonlinearity: relu}}", 0, (2 / 72) ** 0.5, None),
    ("{kaiming_normal: {a: 2}}", 0, (2 / 5 / 72) ** 0.5, None),
    ("torch_default", 0, (1 / 3 / 72) ** 0.5, (-(72**-0.5), 72**-0.5)),
    ("{constant: 0.25}", 0.25, 0, (0.25, 0.25)),
    ("ones", 1, 0, (1, 1)),
]


@pytest.fixture
def initial_weights(workers: Workers, tmp_path: Path) -> Callable[[Graph, str], dict[str, np.ndarray]]:
    """A function of a network and a target: the weights that its generated model starts with."""

    def initialize(graph: Graph, target: str) -> dict[str, np.ndarray]:
        folder, output = write_generated(graph, target, tmp_path), tmp_path / f"{target}.npz"
        parameters = canonical_weights.shapes(graph)
        job = {"folder": str(folder), "name": "Net", "seed": 3, "draws": 1, "output": str(output)}
        workers.ask(target, "initial", **job, parameters=parameters)
        return {name: values[0] for name, values in np.load(output).items()}

    return initialize


@pytest.mark.parametrize(("rule", "mean", "std", "ends"), INITS, ids=[row[0] for row in INITS])
def test_initial_weights_follow_the_rule(
    rule: str,
    mean: float,
    std: float,
    ends: tuple[float, float] | None,
    initial_weights: Callable[[Graph, str], dict[str, np.ndarray]],
) -> None:
    """Both frameworks' initializers, and the canonical sample, have the rule's mean, deviation and range."""
    bias = rule if not rule.strip("{").startswith(("xavier", "kaiming")) else "{constant: 0.7}"
    layers = f"{{name: conv, op: conv2d, out_channels: 240, kernel_size: 3, groups: 2, init: {{weight: {rule}, bias: {bias}}}}}"
    graph = network(layers, "{channels: 16, height: 5, width: 4}")
    samples = {"canonical": canonical_weights.from_spec(graph, 1)}
    samples.update({target: initial_weights(graph, target) for target in FRAMEWORKS})

    for origin, weights in samples.items():
        assert set(weights) == {"conv.weight", "conv.bias"}
        for name, array in weights.items():
            center, spread = (mean, std) if name == "conv.weight" or bias == rule else (0.7, 0)
            error = 5 * spread / array.size**0.5 + 1e-6  # five standard errors
            assert abs(array.mean() - center) <= error, (origin, name)
            assert abs(array.std() - spread) <= error, (origin, name)
            if ends and (name == "conv.weight" or bias == rule):
                assert ends[0] - 1e-6 <= array.min(), (origin, name)
                assert array.max() <= ends[1] + 1e-6, (origin, name)
                if name == "conv.weight" and spread:
                    assert array.max() - array.min() > 0.97 * (ends[1] - ends[0]), (origin, name)


def test_layers_of_one_rule_start_from_different_numbers(
    initial_weights: Callable[[Graph, str], dict[str, np.ndarray]],
) -> None:
    """Two layers of one shape and rule do not start as copies of each other."""
    layers = """
        {name: a, op: conv2d, out_channels: 6, kernel_size: 3}
        {name: b, op: conv2d, out_channels: 6, kernel_size: 3}
    """
    graph = network(layers, head="init: {weight: {normal: {std: 0.1}}, bias: {uniform: {a: 0, b: 1}}}")
    for target in FRAMEWORKS:
        weights = initial_weights(graph, target)
        assert abs(weights["a.weight"] - weights["b.weight"]).min() > 0
        assert abs(weights["a.bias"] - weights["b.bias"]).min() > 0
