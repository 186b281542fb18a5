"""Evidence: tolerances and hints, statistics of random draws, certificates, and the command."""

from __future__ import annotations

import html.parser
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, archspec_command, network
from helpers.verification import NET, CachedWorkers, small_network, write_generated

import archspec
from archspec.language.initializers import Distribution
from archspec.report import evidence as report
from archspec.verification import CHECKS, Workers, certificate, verify
from archspec.verification.inputs import DROP_SEARCH, plan, rates
from archspec.verification.statistics import drawn_from, drops
from archspec.verification.tensors import looks_like

RELU = ROOT / "specs" / "ops" / "relu.yaml"

# --- judgements ------------------------------------------------------------------------------------------------------

A = np.random.default_rng(0).normal(size=(2, 5, 6, 7))
EDGE = np.zeros((6, 7))
EDGE[0] = EDGE[:, -1] = 1.0


@pytest.mark.parametrize(
    ("b", "hint"),
    [
        (1.5 * A, "scale: all values are 1.5 times"),
        (A[:, ::-1], "permutation"),
        (A.transpose(0, 1, 3, 2).reshape(A.shape), "permutation"),
        (A + np.arange(1, 6)[None, :, None, None], "offset: a constant for each channel"),
        (A + EDGE, "padding: only values at the edges"),
        (np.roll(A, 1, axis=3), "permutation"),
        (np.concatenate([A[:, :, 1:], A[:, :, :1] ** 2], axis=2), "padding: the feature maps are shifted vertically"),
        (np.maximum(A, 0), "missing: the output is the layer's input"),
        (0 * A, "missing: all zeros"),
        (np.where(A > 2, 0, A), "% of the values differ"),
        (A**3, ""),
    ],
)
def test_hint_at_the_cause_of_a_difference(b: np.ndarray, hint: str) -> None:
    """Scale, offset, permutation, padding, shift, missing; and nothing where it looks like none of them."""
    text = looks_like(A, b, np.maximum(A, 0))

    assert hint in text
    assert hint or not text


NORMAL = Distribution("normal", 0.5, 0.2)


@pytest.mark.parametrize(
    ("rule", "draw", "good"),
    [
        (NORMAL, lambda r: r.normal(0.5, 0.2, 4000), True),
        (NORMAL, lambda r: r.normal(0.53, 0.2, 4000), False),
        (NORMAL, lambda r: r.normal(0.5, 0.23, 4000), False),
        (NORMAL, lambda r: r.uniform(0.5 - 0.2 * 3**0.5, 0.5 + 0.2 * 3**0.5, 4000), False),  # its mean and deviation
        (NORMAL, lambda r: np.clip(r.normal(0.5, 0.2, 4000), 0.1, 0.9), False),
        (Distribution("uniform", -1, 2), lambda r: r.uniform(-1, 2, 4000), True),
        (Distribution("uniform", -1, 2), lambda r: r.uniform(-2, 1, 4000), False),
        (Distribution("constant", 0.1), lambda r: np.full(9, 0.1, np.float32), True),
        (Distribution("constant", 0.1), lambda r: np.append(np.full(9, 0.1, np.float32), np.float32(0.1000001)), False),
    ],
)  # fmt: skip
def test_sample_is_within_six_standard_errors_of_its_own_distribution_only(
    rule: Distribution, draw: Callable[[np.random.Generator], np.ndarray], good: bool
) -> None:
    """Another mean, deviation, shape or tail is beyond six."""
    values = draw(np.random.default_rng(3))

    assert (max(drawn_from(values, rule).values()) <= 6) is good


def test_dropout_of_another_rate_or_scale_is_rejected() -> None:
    """The right rate and scale; another rate; no scaling; one mask for all samples; zeros as input."""
    random = np.random.default_rng(1)
    x = random.uniform(1, 2, (4, 1000))
    keep = random.random(x.shape) >= 0.4

    assert drops(x, x * keep / 0.6, 0.4)[0] < 5
    assert drops(x, x * (random.random(x.shape) >= 0.5) / 0.6, 0.4)[0] > 6
    assert drops(x, x * keep, 0.4)[1] == "kept values are scaled by 1, not by 1.667"
    assert drops(x, x * keep[0] / 0.6, 0.4)[1] == "the same values are dropped in every sample"
    assert drops(0 * x, 0 * x, 0.4)[1].startswith("its input is zero everywhere")
    assert drops(x, x * keep, 0.0)[1] != ""


def test_plan_crosses_the_first_change_of_the_learning_rate() -> None:
    """Steps on both sides of it, with the recipe's rates; a change that is never reached is no endless loop."""
    training = archspec.load(NET).spec.training  # the rate drops to a tenth after two epochs
    assert training
    assert plan(training, 20) == [[0, 0.5], [10, 0.5], [10, 0.5]]
    assert rates(training, plan(training, 20)) == pytest.approx([0.01] * 10 + [0.001] * 10)
    far = training.model_copy(update={"schedule": training.schedule.model_copy(update={"step_size": 10**9})})
    assert len(plan(far, 20)) < DROP_SEARCH
    assert sum(steps for steps, _ in plan(far, 20)) == 20


@pytest.mark.slow
@pytest.mark.frameworks
@pytest.mark.xdist_group("workers")
def test_low_precision_in_float32_is_reported(cached_workers: CachedWorkers, tmp_path: Path) -> None:
    """All targets agree in float64; in float32 one rounds a layer to bfloat16: too far from its own float64."""
    old = "x = self.relu1(x)"
    new = "x = self.relu1(x).bfloat16().to(x.dtype) if x.dtype == torch.float32 else self.relu1(x)"
    small = small_network()
    write_generated(small, "torch", tmp_path, model=(old, new))
    evidence = verify(small, cached_workers, generated=tmp_path, checks=("forward",))

    assert evidence.first is not None
    assert (evidence.first.layer, evidence.first.target, evidence.first.dtype) == ("norm1", "torch", "float32")
    assert "from torch's own float64" in evidence.first.finding


@pytest.mark.slow
@pytest.mark.frameworks
@pytest.mark.xdist_group("workers")
def test_alterations_that_no_check_notices_are_listed(workers: Workers) -> None:
    """An LRN whose alpha is 0 divides by a constant: its size could be anything."""
    layers = """
        {name: conv1, op: conv2d, out_channels: 6, kernel_size: 3}
        {name: norm1, op: local_response_norm, size: 5, alpha: 0, beta: 0.5, k: 2}
        {name: relu1, op: relu}
    """
    evidence = verify(network(layers), workers, checks=("forward",), dtypes=("float64",), sensitive=True)
    moved = {(s.layer, s.change): s for s in evidence.sensitivity}

    assert evidence.agrees
    assert moved["norm1", "removed"].seen_by == "forward"
    assert moved["norm1", "removed"].moved == pytest.approx(2**0.5 - 1)  # without k ** beta = sqrt(2)
    assert moved["norm1", "size 5 -> 7"].seen_by == ""
    assert moved["conv1", "out_channels 6 -> 7"].seen_by == "structure"
    (line,) = report.blind_spots(evidence)
    assert line.startswith("this input cannot see norm1: size 5 -> 7")


@pytest.mark.slow
@pytest.mark.frameworks
@pytest.mark.parametrize(("backend", "name"), [("torch", "plain"), ("torch", "net"), ("jax", "plain"), ("jax", "net")])
def test_all_checks_pass_on_keras_other_backends(
    backend: str, name: str, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generated Keras files, model and training, on JAX and on PyTorch."""
    pytest.importorskip(backend)
    if cache := getattr(
        pytestconfig, "cache", None
    ):  # XLA compiles for half a minute: programs are kept for later runs
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(cache.mkdir("jax")))
        monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    with Workers(("torch", f"keras-{backend}")) as pair:
        dtypes = ("float64", "float32") if name == "plain" else ("float64",)
        evidence = verify(archspec.load(NET.with_stem(name)), pair, dtypes=dtypes)
        assert evidence.agrees, (evidence.first, evidence.failures)
        assert {"training", "init"} <= {c.check for c in evidence.comparisons}


@pytest.mark.gpu
@pytest.mark.frameworks
def test_all_checks_pass_on_a_gpu() -> None:
    """With TF32 off, the targets agree on a GPU within the same tolerances as on a CPU."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU here")
    with Workers(("torch", "keras"), device="cuda") as pair:
        evidence = verify(archspec.load(NET), pair)
    assert evidence.agrees, (evidence.first, evidence.failures)


# --- certificates and the command ------------------------------------------------------------------------------------


class Links(html.parser.HTMLParser):
    """The URLs that a page loads or links to."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.urls += [str(value) for name, value in attributes if name in ("src", "href")]


@pytest.mark.slow
@pytest.mark.frameworks
def test_certificate_is_valid_until_something_changes(tmp_path: Path) -> None:
    """Written if all targets agree; not valid for another network, another file, or a file that is missing."""
    net, out = tmp_path / "net.yaml", tmp_path / "out"
    shutil.copy(NET, net)
    assert archspec_command("generate", net, "--out", out).returncode == 0
    ran = archspec_command("verify", net, "--out", out, "--certify", "-o", tmp_path / "page.html")

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "net: torch and keras agree: forward float64 within" in ran.stdout
    path = out / "net" / "verify.json"
    content = json.loads(path.read_text())
    assert content["agrees"] is True
    assert content["checks"] == [check for check in CHECKS if check != "training-mode"]
    assert {"keras/model.py", "keras/recipe.py", "keras/train.py", "keras/engine/optim.py"} <= set(
        content["targets"]["keras"]["files"]
    )
    assert {c["check"] for c in content["comparisons"]} == set(content["checks"])

    def check() -> tuple[int, str]:
        ran = archspec_command("verify", net, "--out", out, "--check")
        return ran.returncode, ran.stdout

    assert check() == (0, f"net: {path} is up to date\n")

    page = (tmp_path / "page.html").read_text()
    links = Links()
    links.feed(page)
    assert links.urls == []  # the page is self-contained
    assert content["spec"]["sha256"] in page
    for layer in ("conv1", "norm1", "fc7"):
        assert f"<td>{layer}</td>" in page

    # Comments, blank lines and quotes are no part of the network; a kernel size is.
    spec = net.read_text()
    for same in (f"# a comment\n{spec}", spec.replace("name: net\n", 'name: "net"  # quoted\n\n')):
        assert same != spec
        net.write_text(same)
        assert check() == (0, f"net: {path} is up to date\n")
    for old, new in (("out_channels: 8, kernel_size: 5", "out_channels: 8, kernel_size: 3"), ("p: 0.4", "p: 0.5")):
        assert old in spec
        net.write_text(spec.replace(old, new))
        assert check() == (1, f"net: {path} was made from another version of {net}\n")
    net.write_text(spec)

    # Every file that took part: the model, the recipe, the program and its engine.
    for name, old, new in (
        ("pytorch/model.py", "nn.Dropout(p=0.4)", "nn.Dropout(p=0.5)"),
        ("pytorch/engine/optim.py", "dampening=1 + group", "dampening=group"),
        ("keras/train.py", "run.add(", "run.add (  "),
    ):
        file = out / "net" / name
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))
        assert check() == (1, f"net: {file} has changed since it was verified\n")
        file.write_text(text)
    assert check()[0] == 0
    file.unlink()
    assert check() == (1, f"net: {file} does not exist\n")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"spec": 3}', '{"agrees": true, "spec": {"sha256": ""}, "targets": {}}', "[" * 10_000]
)
def test_other_files_are_no_certificates(content: str, tmp_path: Path) -> None:
    """An empty file, other JSON, one without files: each has a reason, and none is a traceback."""
    (tmp_path / "verify.json").write_text(content)

    assert certificate.stale_reasons(archspec.load(NET), tmp_path)
    missing = tmp_path / "nowhere"
    assert certificate.stale_reasons(archspec.load(NET), missing) == [f"{missing / 'verify.json'} does not exist"]


@pytest.mark.slow
@pytest.mark.frameworks
def test_target_under_another_interpreter(tmp_path: Path) -> None:
    """`--python` runs a target there; one that cannot run is reported, and the other target's results are kept."""
    link = tmp_path / "python"
    link.write_text(f'#!/bin/sh\necho used >> {tmp_path}/used\nexec {sys.executable} "$@"\n')
    link.chmod(0o755)
    words = ("verify", RELU, "--quick", "--target", "numpy", "--target", "torch")
    good = archspec_command(*words, "--python", f"torch={link}")
    assert good.returncode == 0, good.stdout + good.stderr
    assert (tmp_path / "used").read_text() == "used\n"

    bad = archspec_command(*words, "--target", "keras", "--python", f"torch={tmp_path}/none", "--format", "json")
    assert bad.returncode == 1
    content = json.loads(bad.stdout)
    assert content["failures"] == [f"torch: cannot run {tmp_path}/none: No such file or directory"]
    assert {c["target"] for c in content["comparisons"]} == {"keras"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--python", "torch"], "--python must be TARGET=PATH"),
        (["--python", "jax=/usr/bin/python3"], "--python must be TARGET=PATH"),
        (["--quick", "--certify"], "--certify needs all checks"),
        (["--quick", "--target", "torch", "--target", "torch"], "verify compares two or more different targets"),
        (["--quick", "--target", "torch"], "verify compares two or more different targets"),
        (["--target", "jax"], "no target 'jax'"),
        (["--device", "tpu"], "tpu"),
    ],
)
def test_usage_error_has_status_2(words: list[str], message: str) -> None:
    """With a sentence, before anything runs."""
    ran = archspec_command("verify", NET, *words)

    assert ran.returncode == 2
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr
