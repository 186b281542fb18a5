"""Evidence: how it is judged, what it says, its certificate, and its command line."""

from __future__ import annotations

import html.parser
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, spec
from test_cli import run
from test_verify import SMALL

import archspec
from archspec.emit import emit
from archspec.files import write
from archspec.graph import Graph
from archspec.inits import Distribution
from archspec.verify import CHECKS, Workers, certificate, kind, show, verify
from archspec.verify.arrays import looks_like
from archspec.verify.data import DROP_SEARCH, plan, rates
from archspec.verify.statistics import drawn_from, drops

NET = ROOT / "tests" / "mutants" / "nets" / "net.yaml"


@pytest.fixture(scope="module")
def small() -> Graph:
    return archspec.build(spec(SMALL, "{channels: 3, height: 22, width: 27}"))


# --- judgements ------------------------------------------------------------------------------------------------------

A = np.random.default_rng(0).normal(size=(2, 5, 6, 7))
EDGE = np.zeros((6, 7))
EDGE[0] = EDGE[:, -1] = 1.0


@pytest.mark.parametrize(
    ("b", "word"),
    [
        (1.5 * A, "scale: all values are 1.5 times"),
        (A[:, ::-1], "permutation"),
        (A.transpose(0, 1, 3, 2).reshape(A.shape), "permutation"),
        (A + np.arange(1, 6)[None, :, None, None], "offset: a constant a channel"),
        (A + EDGE, "padding: only values at the edges"),
        (np.roll(A, 1, axis=3), "permutation"),
        (np.concatenate([A[:, :, 1:], A[:, :, :1] ** 2], axis=2), "padding: the maps are shifted vertically"),
        (np.maximum(A, 0), "missing: the layer gives what it reads"),
        (0 * A, "missing: all zeros"),
        (np.where(A > 2, 0, A), "% of the values differ"),
        (A**3, ""),
    ],
)
def test_a_difference_is_told_for_what_it_looks_like(b: np.ndarray, word: str) -> None:
    """Scale, offset, permutation, padding, shift, missing; and nothing where it looks like none of them."""
    said = looks_like(A, b, np.maximum(A, 0))

    assert word in said
    assert word or not said


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
def test_a_draw_is_told_from_another_law(rule: Distribution, draw: object, good: bool) -> None:
    """Within six standard errors of its own rule, beyond them of another mean, spread, shape or tail."""
    values = draw(np.random.default_rng(3))  # type: ignore[operator]

    assert (max(drawn_from(values, rule).values()) <= 6) is good


def test_a_dropout_is_told_from_another() -> None:
    """The right rate and scale; another rate; no scaling; one mask for all samples; nothing that could be seen."""
    random = np.random.default_rng(1)
    x = random.uniform(1, 2, (4, 1000))
    keep = random.random(x.shape) >= 0.4

    assert drops(x, x * keep / 0.6, 0.4)[0] < 5
    assert drops(x, x * (random.random(x.shape) >= 0.5) / 0.6, 0.4)[0] > 6
    assert drops(x, x * keep, 0.4)[1] == "scales what it keeps by 1, not by 1.667"
    assert drops(x, x * keep[0] / 0.6, 0.4)[1] == "drops the same values of every sample"
    assert drops(0 * x, 0 * x, 0.4)[1].startswith("reads zeros only")
    assert drops(x, x * keep, 0.0)[1] != ""


def test_a_plan_crosses_the_first_drop() -> None:
    """Steps on both sides of it, and the rates that the recipe means; a drop that is never reached is no endless loop."""
    training = archspec.load(NET).spec.training  # the rate drops to a tenth after two epochs
    assert training
    assert plan(training, 20) == [[0, 0.5], [10, 0.5], [10, 0.5]]
    assert rates(training, plan(training, 20)) == pytest.approx([0.01] * 10 + [0.001] * 10)
    far = training.model_copy(update={"schedule": training.schedule.model_copy(update={"step_size": 10**9})})
    assert len(plan(far, 20)) < DROP_SEARCH
    assert sum(steps for steps, _ in plan(far, 20)) == 20


@pytest.mark.frameworks
def test_a_target_that_is_coarse_in_float32_is_told(small: Graph, workers: Workers, tmp_path: Path) -> None:
    """All agree in float64; in float32 one rounds a layer to bfloat16, which is too far from its own float64."""
    old = "x = self.relu1(x)"
    new = "x = self.relu1(x).bfloat16().to(x.dtype) if x.dtype == torch.float32 else self.relu1(x)"
    text = emit(small, "torch")
    assert old in text
    write([(tmp_path / "net" / "torch_model.py", text.replace(old, new))], tmp_path)
    evidence = verify(small, workers, generated=tmp_path, checks=("forward",))

    assert evidence.first is not None
    assert (evidence.first.layer, evidence.first.target, evidence.first.dtype) == ("norm1", "torch", "float32")
    assert "from torch's own in float64" in evidence.first.fault


@pytest.mark.frameworks
def test_what_an_input_cannot_see_is_said(workers: Workers) -> None:
    """An LRN whose alpha is 0 divides by a constant: its window could be anything, and that is told."""
    layers = """
        {name: conv1, op: conv2d, out_channels: 6, kernel_size: 3}
        {name: norm1, op: local_response_norm, size: 5, alpha: 0, beta: 0.5, k: 2}
        {name: relu1, op: relu}
    """
    evidence = verify(archspec.build(spec(layers)), workers, checks=("forward",), dtypes=("float64",), sensitive=True)
    moved = {(s.layer, s.change): s for s in evidence.sensitivity}

    assert evidence.agrees
    assert moved["norm1", "removed"].seen_by == "forward"
    assert moved["norm1", "removed"].moved == pytest.approx(2**0.5 - 1)  # without k ** beta = sqrt(2)
    assert moved["norm1", "size 5 -> 7"].seen_by == ""
    assert moved["conv1", "out_channels 6 -> 7"].seen_by == "structure"
    (line,) = show.blind_spots(evidence)
    assert line.startswith("this input cannot see norm1: size 5 -> 7")


@pytest.mark.frameworks
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_all_checks_pass_on_keras_other_backends(backend: str) -> None:
    """The generated Keras files, model and training, on JAX and on PyTorch."""
    pytest.importorskip(backend)
    with Workers(("torch", f"keras-{backend}")) as pair:
        for name in ("net", "plain"):
            evidence = verify(archspec.load(NET.with_stem(name)), pair)
            assert evidence.agrees, (name, evidence.first, evidence.failures)
            assert {"training", "init"} <= {c.check for c in evidence.comparisons}


@pytest.mark.gpu
@pytest.mark.frameworks
def test_all_checks_pass_on_a_gpu() -> None:
    """With TF32 off, a GPU's float64 and float32 agree with one another's as a CPU's do."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU here")
    with Workers(("torch", "keras"), device="cuda") as pair:
        evidence = verify(archspec.load(NET), pair)
    assert evidence.agrees, (evidence.first, evidence.failures)


# --- certificates and the command ------------------------------------------------------------------------------------


class Links(html.parser.HTMLParser):
    """What a page asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [str(value) for name, value in attributes if name in ("src", "href")]


@pytest.mark.frameworks
def test_a_certificate_stands_until_something_changes(tmp_path: Path) -> None:
    """Written if all agree; then it stands; not with another spec, another file, or a file that is gone."""
    net, out = tmp_path / "net.yaml", tmp_path / "out"
    shutil.copy(NET, net)
    assert run("generate", net, "--out", out).returncode == 0
    ran = run("verify", net, "--out", out, "--certify", "-o", tmp_path / "page.html")

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "net: torch and keras agree: forward float64 within" in ran.stdout
    content = json.loads((out / "net" / "verify.json").read_text())
    assert content["agrees"] is True
    assert content["checks"] == list(CHECKS)
    assert set(content["targets"]["keras"]["files"]) == {"keras_model.py", "keras_train.py"}
    assert {c["check"] for c in content["comparisons"]} == set(CHECKS)
    assert run("verify", net, "--out", out, "--check").returncode == 0

    page = (tmp_path / "page.html").read_text()
    links = Links()
    links.feed(page)
    assert links.found == []  # it asks for nothing
    assert content["spec"]["sha256"] in page
    for layer in ("conv1", "norm1", "fc7"):
        assert f"<td>{layer}</td>" in page

    model = out / "net" / "torch_model.py"
    text = model.read_text()
    model.write_text(text.replace("nn.Dropout(0.4)", "nn.Dropout(0.5)"))
    changed = run("verify", net, "--out", out, "--check")
    assert changed.returncode == 1
    assert f"{model} is not the file that was verified" in changed.stdout
    model.write_text(text)
    net.write_text(net.read_text().replace("p: 0.4", "p: 0.5"))
    assert "is of another text" in run("verify", net, "--out", out, "--check").stdout
    model.unlink()
    assert f"{model} is not there" in run("verify", net, "--out", out, "--check").stdout


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"spec": 3}', '{"agrees": true, "spec": {"sha256": ""}, "targets": {}}', "[" * 10_000]
)
def test_what_is_no_certificate_does_not_stand(content: str, tmp_path: Path) -> None:
    """An empty file, other JSON, one of no files: each is told, and none is a traceback."""
    (tmp_path / "verify.json").write_text(content)

    assert certificate.stands(archspec.load(NET), tmp_path)
    assert certificate.stands(archspec.load(NET), tmp_path / "nowhere") == [
        f"there is no {tmp_path / 'nowhere' / 'verify.json'}"
    ]


@pytest.mark.frameworks
def test_a_target_under_another_interpreter(tmp_path: Path) -> None:
    """`--python` runs a target there; what cannot be run is told, with the other's results kept."""
    link = tmp_path / "python"
    link.write_text(f'#!/bin/sh\necho used >> {tmp_path}/used\nexec {sys.executable} "$@"\n')
    link.chmod(0o755)
    good = run("verify", ROOT / "specs" / "ops" / "relu.yaml", "--quick", "--python", f"torch={link}")
    assert good.returncode == 0, good.stdout + good.stderr
    assert (tmp_path / "used").read_text() == "used\n"

    bad = run(
        "verify",
        ROOT / "specs" / "ops" / "relu.yaml",
        "--quick",
        "--python",
        f"torch={tmp_path}/none",
        "--format",
        "json",
    )
    assert bad.returncode == 1
    content = json.loads(bad.stdout)
    assert content["failures"] == [f"torch: cannot run {tmp_path}/none: No such file or directory"]
    assert {c["target"] for c in content["comparisons"]} == {"keras"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--python", "torch"], "--python is TARGET=PATH"),
        (["--python", "jax=/usr/bin/python3"], "--python is TARGET=PATH"),
        (["--quick", "--certify"], "--certify wants the whole verification"),
        (["-o", "out.txt", "--quick", "--targets", "torch,torch"], "--targets takes two different targets"),
        (["--device", "tpu"], "tpu"),
    ],
)
def test_a_command_line_at_fault_is_2(words: list[str], told: str) -> None:
    """Told in a sentence, before anything is run."""
    ran = run("verify", NET, *words)

    assert ran.returncode == 2
    assert told in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_verifiers_words_for_targets() -> None:
    """A Keras target names its backend after a dash."""
    assert [kind(t) for t in ("torch", "keras", "keras-jax")] == ["torch", "keras", "keras"]
