"""The command as a process: what it prints, what it writes, how it exits, what it imports."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

ALEXNET = ROOT / "specs" / "alexnet.yaml"


def run(*words: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "archspec", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment})


def test_check_prints_the_papers_table() -> None:
    """Every row and total of AlexNet is on the screen, and the exit status is 0."""
    ran = run("check", "specs/alexnet.yaml")

    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    conv2 = next(line for line in ran.stdout.splitlines() if line.startswith("conv2 "))
    assert conv2.split("  ")[0] == "conv2"
    for word in ("256, 5 x 5, padding 2, groups 2", "96 x 27 x 27", "256 x 27 x 27", "307,200", "256", "307,456", "0.5%", "223,948,800"):  # fmt: skip
        assert word in conv2
    for total in ("60,965,224", "724,406,816", "1,448,813,632", "659,272", "2 x MACs", "without bias adds"):
        assert total in ran.stdout


def test_check_gives_the_same_facts_as_data() -> None:
    """The keys that the README promises are there, with shapes as lists."""
    ran = run("check", "--format", "json", "specs/alexnet.yaml", "specs/ops/concat.yaml")
    alexnet, concat = json.loads(ran.stdout)["specs"]

    assert ran.returncode == 0
    assert (alexnet["name"], alexnet["path"], alexnet["input_shape"]) == (
        "alexnet",
        "specs/alexnet.yaml",
        [3, 227, 227],
    )
    conv1, fc8 = alexnet["layers"][0], alexnet["layers"][-1]
    assert {k: conv1[k] for k in ("name", "op", "input_shapes", "output_shape", "params", "macs")} == {
        "name": "conv1",
        "op": "conv2d",
        "input_shapes": [[3, 227, 227]],
        "output_shape": [96, 55, 55],
        "params": 34_944,
        "macs": 105_415_200,
    }
    assert fc8["output_shape"] == [1000]
    assert alexnet["totals"] == {
        "params": 60_965_224,
        "macs": 724_406_816,
        "flops": 1_448_813_632,
        "neurons": 659_272,
        "param_bytes": 243_860_896,
        "activation_bytes": 7_700_896,
    }
    assert next(layer for layer in concat["layers"] if layer["name"] == "maps")["input_shapes"] == [
        [3, 5, 4],
        [6, 5, 4],
    ]


def test_check_takes_folders_and_goes_on_after_a_bad_spec(tmp_path: Path) -> None:
    """A folder means the specs in it; one that is at fault is told, the others are shown, and the status is 1."""
    shutil.copy(ALEXNET, tmp_path / "a.yaml")
    (tmp_path / "b.yml").write_text("archspec: 1\n")
    ran = run("check", tmp_path)

    assert ran.returncode == 1
    assert "60,965,224" in ran.stdout
    assert f"{tmp_path / 'b.yml'}:1:1: error[missing-key]: a spec needs name" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["check", "nowhere.yaml"],
        ["check", "tests/bad/nowhere"],
        ["check", "archspec/report"],  # a folder without a spec
        ["check"],
        ["check", "--format", "xml", "specs/alexnet.yaml"],
        ["generate", "specs/alexnet.yaml", "--target", "caffe"],
        ["verify", "specs/alexnet.yaml", "--targets", "torch"],
        ["verify", "specs/alexnet.yaml", "--targets", "torch,caffe"],
        ["teach"],
    ],
)
def test_a_fault_of_the_command_line_is_2(words: list[str]) -> None:
    """What is wrong with the command's words is said in a few of its own, never in a traceback."""
    ran = run(*words)

    assert ran.returncode == 2
    assert ran.stderr
    assert "Traceback" not in ran.stderr


def test_generate_writes_what_stands_in_this_repository() -> None:
    """`generated/` is the golden record: `make golden` writes it anew."""
    ran = run("generate", "--check")

    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_generate_check_shows_a_diff_and_writes_nothing(tmp_path: Path) -> None:
    """A line that was edited, and a file that is missing, are a diff and status 1."""
    run("generate", ALEXNET, "--out", tmp_path)
    edited, missing = tmp_path / "alexnet" / "torch_model.py", tmp_path / "alexnet" / "keras_model.py"
    edited.write_text(edited.read_text().replace("groups=2", "groups=1", 1))
    missing.unlink()
    before = edited.read_text()
    ran = run("generate", ALEXNET, "--out", tmp_path, "--check")

    assert ran.returncode == 1
    assert "-        self.conv2 = nn.Conv2d(96, 256, kernel_size=5, padding=2, groups=1)\n" in ran.stdout
    assert "+        self.conv2 = nn.Conv2d(96, 256, kernel_size=5, padding=2, groups=2)\n" in ran.stdout
    assert "+def AlexNet(num_classes: int = 1000) -> keras.Model:\n" in ran.stdout
    assert edited.read_text() == before
    assert not missing.exists()


def test_generate_writes_the_targets_asked_for(tmp_path: Path) -> None:
    """One target, or several, or all where none is named."""
    run("generate", ALEXNET, "--out", tmp_path / "one", "--target", "keras")
    run("generate", ALEXNET, "--out", tmp_path / "two", "--target", "keras", "--target", "torch")

    assert {p.name for p in (tmp_path / "one" / "alexnet").iterdir()} == {"keras_model.py", "keras_train.py"}
    assert len(list((tmp_path / "two" / "alexnet").iterdir())) == 4
    run("generate", ALEXNET, "--out", tmp_path / "all")
    assert len(list((tmp_path / "all" / "alexnet").iterdir())) == 5


def test_generate_leaves_what_stands_when_a_spec_is_at_fault(tmp_path: Path) -> None:
    """One bad spec among several: nothing is written, and what was there stays."""
    bad = tmp_path / "bad.yaml"
    bad.write_text(ALEXNET.read_text().replace("groups: 2", "groups: 7", 1))
    out = tmp_path / "out"
    (out / "alexnet").mkdir(parents=True)
    (out / "alexnet" / "torch_model.py").write_text("as it was")
    ran = run("generate", ALEXNET, bad, "--out", out)

    assert ran.returncode == 1
    assert "error[groups]: conv2: groups=7 must divide its 96 input and 256 output channels" in ran.stderr
    assert (out / "alexnet" / "torch_model.py").read_text() == "as it was"
    assert ran.stdout == ""


def test_generate_in_a_folder_without_specs_says_so(tmp_path: Path) -> None:
    """Without a spec and without specs/ there is nothing to do, which is the command line's fault."""
    ran = run("generate", cwd=tmp_path)

    assert ran.returncode == 2
    assert "specs/" in ran.stderr


@pytest.mark.parametrize(
    "words", [["check", ALEXNET], ["check", "--format", "json", ALEXNET], ["check", "tests/bad/groups.yaml"]]
)
def test_check_imports_no_framework_and_no_jinja(words: list[object]) -> None:
    """An editor runs `check` on every save: it imports neither a framework, nor numpy, nor Jinja2, nor rich's tables."""
    script = (
        "import sys; from archspec.cli import app\n"
        f"try: app({[str(w) for w in words]!r})\n"
        "except SystemExit: pass\n"
        "print(sorted(sys.modules), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    modules = set(ran.stderr.splitlines()[-1].replace("'", "").strip("[]").split(", "))

    assert "archspec.graph" in modules
    assert not modules & {"numpy", "jinja2", "torch", "keras", "tensorflow", "jax", "rich.table", "safetensors"}
    assert "importlib.metadata" not in modules  # the stand-in for pydantic's plugin loader is still in its place


def test_generate_imports_no_framework(tmp_path: Path) -> None:
    """Frameworks are for the workers alone."""
    script = (
        "import sys; from archspec.cli import app\n"
        f"try: app(['generate', {str(ALEXNET)!r}, '--out', {str(tmp_path)!r}])\n"
        "except SystemExit: pass\n"
        "print(sorted(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert "jinja2" in ran.stdout
    assert not {"'numpy'", "'torch'", "'keras'", "'tensorflow'"} & set(ran.stdout.strip().strip("[]").split(", "))


def test_a_reader_may_stop_reading() -> None:
    """`archspec check | head -1` ends in silence."""
    ran = subprocess.run(
        f"{sys.executable} -m archspec check {ALEXNET} {ALEXNET} | head -1", shell=True, capture_output=True, text=True
    )

    assert ran.stdout.startswith("alexnet")
    assert ran.stderr == ""


def test_an_installed_wheel_generates_in_an_empty_folder(tmp_path: Path) -> None:
    """The wheel carries the templates, and needs nothing of this checkout."""
    wheels, site, empty = tmp_path / "wheels", tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    built = subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", wheels, ROOT], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (wheel,) = wheels.glob("archspec_nn-*.whl")
    installed = subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], capture_output=True, text=True)
    assert installed.returncode == 0, installed.stderr
    shutil.copy(ALEXNET, empty / "spec.yaml")

    where = [sys.executable, "-c", "import archspec; print(archspec.__file__)"]
    found = subprocess.run(
        where, cwd=empty, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True
    )
    ran = run("generate", "spec.yaml", cwd=empty, PYTHONPATH=str(site))

    assert found.stdout.startswith(str(site))
    assert ran.returncode == 0, ran.stderr
    assert run("explain", "window", cwd=empty, PYTHONPATH=str(site)).stdout.startswith("# window")
    assert run("report", "spec.yaml", "-o", "a.html", cwd=empty, PYTHONPATH=str(site)).returncode == 0
    for name in ("torch_model.py", "keras_model.py", "numpy_model.py"):
        made = (empty / "generated" / "alexnet" / name).read_text()
        assert made == (ROOT / "generated" / "alexnet" / name).read_text()


BAD = "archspec: 1\nname: net\ninput: {channels: 3, height: 8, width: 8}\nlayers:\n  - {name: p, op: max_pool2d, kernel_size: 3, stride: 2}\n"


@pytest.mark.parametrize("command", ["check", "generate"])
def test_diagnostics_are_all_that_is_given(command: str, tmp_path: Path) -> None:
    """Asked for as data they are standard output, whole, for good specs and bad; the exit status is as ever."""
    (tmp_path / "good.yaml").write_text(BAD)
    (tmp_path / "bad.yaml").write_text(BAD.replace("kernel_size: 3", "kernel_size: 30"))
    for name, status in (("good.yaml", 0), ("bad.yaml", 1)):
        ran = run(command, name, "--diagnostics", "json", cwd=tmp_path)
        told = json.loads(ran.stdout)["diagnostics"]
        expected = [("window", "error", 5)] if status else [("uncovered-rows", "warning", 5)]

        assert (ran.returncode, ran.stderr) == (status, "")
        assert [(d["code"], d["severity"], d["line"]) for d in told] == expected
        assert json.loads(run(command, name, "--diagnostics", "sarif", cwd=tmp_path).stdout)["version"] == "2.1.0"
    assert run(command, "bad.yaml", "--diagnostics", "github", cwd=tmp_path).stdout.startswith(
        "::error file=bad.yaml,line=5,col="
    )


def test_a_warning_is_told_and_no_fault(tmp_path: Path) -> None:
    """It stands on standard error with its line and where to read on, and the exit status is 0."""
    (tmp_path / "net.yaml").write_text(BAD)
    ran = run("check", "net.yaml", cwd=tmp_path)

    assert ran.returncode == 0
    assert ran.stderr.startswith(
        "net.yaml:5:55: warning[uncovered-rows]: p: no window reads 1 row and 1 column of its 8 x 8 input\n"
    )
    assert ran.stderr.endswith("archspec explain uncovered-rows\n")


def test_explain_says_what_a_code_means() -> None:
    """A page for a code, all codes without one, the nearest for a slip."""
    page, every, slip = run("explain", "window"), run("explain"), run("explain", "unknwn-key")

    assert page.stdout.startswith("# window\n")
    assert "unknown-key" in every.stdout.split()
    assert (slip.returncode, slip.stdout) == (2, "")
    assert "did you mean 'unknown-key'?" in slip.stderr


def test_schema_is_written_whole(tmp_path: Path) -> None:
    """To a file as to the terminal."""
    assert run("schema", "-o", tmp_path / "s.json").returncode == 0
    assert (tmp_path / "s.json").read_text() == run("schema").stdout == (ROOT / "specs" / "schema.json").read_text()


def test_the_hooks_for_users_are_valid() -> None:
    """By pre-commit's own check, and each entry is a command that there is."""
    ran = subprocess.run(
        [sys.executable, "-m", "pre_commit", "validate-manifest", ".pre-commit-hooks.yaml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert ran.returncode == 0, ran.stdout
    assert run("check", "specs/lenet.yaml").returncode == 0
    assert run("generate", "--check").returncode == 0


def test_train_generates_and_runs_the_program(tmp_path: Path) -> None:
    """What follows the spec is the program's own; a target without a program, and a spec without a recipe, are told."""
    pytest.importorskip("torch")
    ran = run("train", ALEXNET, "--out", tmp_path, "--data", tmp_path / "nowhere", "--output", tmp_path / "run")

    assert (tmp_path / "alexnet" / "torch_train.py").read_text() == (
        ROOT / "generated" / "alexnet" / "torch_train.py"
    ).read_text()
    assert (ran.returncode, ran.stderr.strip()) == (
        1,
        f"{tmp_path / 'nowhere'} holds neither train/ and val/, nor MNIST's or CIFAR-10's files",
    )
    for words in (["specs/alexnet_keras_mnist.yaml"], ["specs/alexnet.yaml", "--target", "numpy"], ["specs"]):
        assert run("train", *words, "--out", tmp_path).returncode == 2
