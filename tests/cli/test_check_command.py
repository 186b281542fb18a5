"""`archspec check`: the table, JSON, diagnostics, the summary, and the exit status."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from helpers import ROOT, archspec_command

ALEXNET = ROOT / "specs" / "alexnet.yaml"
# A pool whose windows cover 7 of 8 rows: a warning.
WARNING = """archspec: 1
name: net
input: {channels: 3, height: 8, width: 8}
layers:
  - {name: p, op: max_pool2d, kernel_size: 3, stride: 2}
"""
ERROR = WARNING.replace("kernel_size: 3", "kernel_size: 30")
CLEAN = WARNING.replace("height: 8, width: 8", "height: 9, width: 9")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three specs: clean.yaml, warning.yaml and error.yaml."""
    for name, text in (("clean", CLEAN), ("warning", WARNING), ("error", ERROR)):
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def test_check_prints_the_table_of_the_paper() -> None:
    """`check` prints every layer and total of AlexNet, with exit status 0."""
    run = archspec_command("check", "specs/alexnet.yaml")

    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    conv2 = next(line for line in run.stdout.splitlines() if line.startswith("conv2 "))
    assert conv2.split("  ")[0] == "conv2"
    for word in ("256, 5 x 5, padding 2, groups 2", "96 x 27 x 27", "256 x 27 x 27", "307,200", "256", "307,456", "0.5%", "223,948,800"):  # fmt: skip
        assert word in conv2
    for total in ("60,965,224", "724,406,816", "1,448,813,632", "659,272", "2 x MACs", "without bias adds"):
        assert total in run.stdout


def test_check_prints_json() -> None:
    """`--format json` prints layers, totals and shapes as data."""
    run = archspec_command("check", "--format", "json", "specs/alexnet.yaml", "specs/ops/concat.yaml")
    alexnet, concat = json.loads(run.stdout)["specs"]

    assert run.returncode == 0
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


def test_check_continues_after_a_spec_with_errors(tmp_path: Path) -> None:
    """`check` of a folder prints the specs in it, the errors of the others, and a summary, with exit status 1."""
    shutil.copy(ALEXNET, tmp_path / "a.yaml")
    (tmp_path / "b.yml").write_text("archspec: 1\n")
    run = archspec_command("check", tmp_path)

    assert run.returncode == 1
    assert "60,965,224" in run.stdout
    assert f"{tmp_path / 'b.yml'}:1:1: error[missing-key]: a spec needs name" in run.stderr
    assert run.stderr.splitlines()[-1] == "2 specs: 3 errors, 0 warnings"


def test_a_warning_has_exit_status_0(folder: Path) -> None:
    """A warning is on standard error with its line and the command that explains it; the exit status is 0."""
    run = archspec_command("check", "warning.yaml", cwd=folder)
    first, excerpt, caret, last = run.stderr.splitlines()

    assert run.returncode == 0
    assert first == (
        "warning.yaml:5:55: warning[uncovered-rows]: p: no window covers 1 row and 1 column of its 8 x 8 input"
    )
    assert excerpt == "  5 |   - {name: p, op: max_pool2d, kernel_size: 3, stride: 2}"
    assert caret == "    | " + " " * 54 + "^"
    assert last == "0 errors, 1 warning: uncovered-rows; run `archspec explain uncovered-rows` for its meaning"


@pytest.mark.parametrize("command", [["check"], ["generate", "--target", "numpy"]], ids=" ".join)
@pytest.mark.parametrize(("name", "status"), [("clean", 0), ("warning", 1), ("error", 1)])
def test_error_on_warning(command: list[str], name: str, status: int, folder: Path) -> None:
    """With --error-on-warning a warning has exit status 1, as an error has; `generate` then writes nothing."""
    run = archspec_command(*command, f"{name}.yaml", "--error-on-warning", cwd=folder)

    assert run.returncode == status
    assert ("[uncovered-rows]" in run.stderr) == (name == "warning")
    assert (folder / "generated").exists() == (command[0] == "generate" and status == 0)


def test_error_on_warning_allows_what_a_spec_allows(folder: Path) -> None:
    """A warning that the spec allows is no error."""
    text = WARNING.replace("stride: 2", "stride: 2, allow: {uncovered-rows: as in the paper}")
    (folder / "warning.yaml").write_text(text)
    run = archspec_command("check", "--error-on-warning", "warning.yaml", cwd=folder)

    assert (run.returncode, run.stderr) == (0, "")


def test_quiet_prints_diagnostics_and_the_summary_only(folder: Path) -> None:
    """`check -q` prints no table; of several specs it prints a summary, of one clean spec nothing."""
    for option in ("-q", "--quiet"):
        run = archspec_command("check", option, "clean.yaml", "warning.yaml", cwd=folder)
        assert (run.returncode, run.stdout) == (0, "")
        assert "warning[uncovered-rows]" in run.stderr
        assert run.stderr.splitlines()[-1] == "2 specs: 0 errors, 1 warning"
        run = archspec_command("check", option, ".", cwd=folder)
        assert (run.returncode, run.stdout) == (1, "")
        assert run.stderr.splitlines()[-1] == "3 specs: 1 error, 1 warning"
        run = archspec_command("check", option, "clean.yaml", cwd=folder)
        assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_a_spec_is_read_from_standard_input() -> None:
    """`-` reads the spec from standard input; its diagnostics are at <stdin>."""
    run = archspec_command("check", "-", stdin=CLEAN)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("net  (<stdin>)\n")
    run = archspec_command("check", "-", stdin=ERROR)
    assert run.returncode == 1
    assert run.stderr.startswith("<stdin>:5:44: error[window]: p: a window of 30 x 30 does not fit")
    run = archspec_command("report", "-", "--columns", "name,op", stdin=CLEAN)
    assert run.returncode == 0
    assert "p      max_pool2d" in run.stdout


@pytest.mark.parametrize("content", [b"name: \xff\n", b"\xff\xfea\x00"])
def test_standard_input_that_is_not_utf8_is_an_error(content: bytes) -> None:
    """Bytes that are not UTF-8 are a diagnostic on standard input as in a file."""
    run = archspec_command("check", "-", stdin=content)

    assert run.returncode == 1
    assert run.stderr.startswith("<stdin>:1:1: error[encoding]: byte 0xff is not UTF-8\n")


@pytest.mark.parametrize("command", [["check"], ["generate", "--target", "numpy"]], ids=" ".join)
def test_diagnostics_as_data_are_the_only_output(command: list[str], folder: Path) -> None:
    """With --diagnostics json, sarif or github standard output has diagnostics only, for specs with errors and without."""
    for name, status in (("warning.yaml", 0), ("error.yaml", 1)):
        run = archspec_command(*command, name, "--diagnostics", "json", cwd=folder)
        diagnostics = json.loads(run.stdout)["diagnostics"]
        expected = [("window", "error", 5)] if status else [("uncovered-rows", "warning", 5)]

        assert (run.returncode, run.stderr) == (status, "")
        assert [(d["code"], d["severity"], d["line"]) for d in diagnostics] == expected
        sarif = archspec_command(*command, name, "--diagnostics", "sarif", cwd=folder)
        assert json.loads(sarif.stdout)["version"] == "2.1.0"
    github = archspec_command(*command, "error.yaml", "--diagnostics", "github", cwd=folder)
    assert github.stdout.startswith("::error file=error.yaml,line=5,col=")


def test_paths_that_are_not_utf8_are_escaped(tmp_path: Path) -> None:
    """Diagnostics of a path that is not UTF-8 have its bytes escaped: percent-encoded in SARIF, as \\x.. in text."""
    path = os.fsencode(tmp_path) + b"/\xff.yaml"
    Path(os.fsdecode(path)).write_text(ERROR)
    sarif = archspec_command("check", os.fsdecode(path), "--diagnostics", "sarif")
    (result,) = json.loads(sarif.stdout)["runs"][0]["results"]

    assert sarif.returncode == 1
    uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert uri == f"{tmp_path}/%FF.yaml"
    data = archspec_command("check", os.fsdecode(path), "--diagnostics", "json")
    assert [d["path"] for d in json.loads(data.stdout)["diagnostics"]] == [os.fsdecode(path)]
    assert f"{tmp_path}/\\xdcff.yaml:5:44: error[window]" in archspec_command("check", os.fsdecode(path)).stderr
    Path(os.fsdecode(path)).write_text(CLEAN)
    report = archspec_command("report", os.fsdecode(path), "-o", tmp_path / "a.html")
    assert report.returncode == 0
    assert f"{tmp_path}/\\xdcff.yaml" in (tmp_path / "a.html").read_text()
