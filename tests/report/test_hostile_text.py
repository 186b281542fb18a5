"""Untrusted specs and wrong command lines end in an error in seconds, without a traceback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, archspec_command, archspec_process, network

import archspec
from archspec import report
from archspec.analysis import claims
from archspec.analysis.conventions import totals
from archspec.language.source import Source
from archspec.report.markup import as_markdown
from archspec.targets import TARGETS, model_source

HEAD = "archspec: 1\nname: net\ninput: {channels: 3, height: 8, width: 8}\n"


def in_time(task: Callable[[], Any]) -> Any:
    """Return the result of `task`, or the SpecError that it raises; fail if it takes 30 s.

    Not a benchmark: without the limits that the tests are about, each task takes minutes or does not end.
    """
    start = time.perf_counter()
    try:
        result = task()
    except archspec.SpecError as error:
        result = error
    assert time.perf_counter() - start < 30
    return result


def test_the_size_of_tensors_is_limited() -> None:
    """A chain of layers that doubles its channels is an error."""
    chain = "".join(
        f"  - {{name: a{i}, op: concat, from: [{f'a{i - 1}' if i else 'input'}, input]}}\n" for i in range(9)
    )
    doubling = "".join(
        f"  - {{name: b{i}, op: concat, from: [{f'b{i - 1}' if i else 'a8'}, {f'b{i - 1}' if i else 'a8'}]}}\n"
        for i in range(60)
    )
    error = in_time(lambda: archspec.loads(f"{HEAD}layers:\n{chain}{doubling}"))

    assert "error[too-large]" in str(error)


def test_code_for_many_diamonds_is_generated_in_linear_time() -> None:
    """Layers are visited once, however many paths lead to them."""
    diamonds = "".join(
        f"{{name: r{i}, op: relu, from: a{i - 1}}}\n{{name: a{i}, op: add, from: [a{i - 1}, r{i}]}}\n"
        for i in range(1, 61)
    )
    graph = network(f"{{name: a0, op: flatten}}\n{diamonds}{{name: fc, op: linear, out_features: 2}}")
    for target in TARGETS.values():
        assert isinstance(in_time(lambda target=target: model_source(graph, target)), str)


def test_many_claims_and_errors_take_linear_time() -> None:
    """Thousands of claims, of errors and of suggestions for misspelled names end in time."""
    relus = "".join(f"  - {{name: r{i}, op: relu}}\n" for i in range(20_000))
    graph = archspec.loads(f"{HEAD}layers:\n{relus}claims:\n" + "  - {macs: 0}\n" * 10_000)
    assert len(in_time(lambda: claims.verdicts(graph))) == 10_000
    faulty = "".join(f"  - {{name: r{i}, op: relu, slope: 1}}\n" for i in range(20_000))
    error = in_time(lambda: archspec.loads(f"{HEAD}layers:\n{faulty}"))
    assert str(error).count("error[unknown-key]") == 1000
    near = "".join(f"  - {{name: alayer{i}, op: relu, from: alayr}}\n" for i in range(6_000))
    error = in_time(lambda: archspec.loads(f"{HEAD}layers:\n{near}"))
    assert str(error).count("error[unknown-layer]") == 1000


def test_the_counts_of_a_large_pool_are_computed_without_a_loop() -> None:
    """An adaptive pool of 2e6 windows is counted by n + m - gcd(n, m) elements along an axis."""
    graph = network("{name: pool, op: adaptive_avg_pool2d, output_size: [2000003, 4]}")
    (node,) = graph.nodes

    in_time(lambda: (totals(graph), list(report.network_lines(graph))))
    # 9 rows to 2,000,003: gcd 1; 7 columns to 4: [0, 2), [1, 4), [3, 6), [5, 7) cover 2 + 3 + 3 + 2 = 10
    assert node.op.counts(*node.input_shapes)["add"] == 6 * (9 + 2_000_003 - 1) * 10 - 6 * 2_000_003 * 4


@pytest.mark.parametrize(
    "rule",
    [
        "{uniform: {a: 1, b: 0}}",
        "{constant: 1e39}",
        "{truncated_normal: {mean: 1e308, std: 1e308}}",
        "{kaiming_normal: {a: 1e200}}",
        "{xavier_normal: {gain: 1e200}}",
        "{xavier_normal: {gain: 1e-200}}",
        "{normal: {rule: zeros, std: 2}}",
        "{normal: {std: 0}}",
    ],
)
def test_initializers_outside_float32_are_rejected(rule: str) -> None:
    """The numbers of an initializer and their squares must be finite float32 numbers."""
    with pytest.raises(archspec.SpecError, match=r"error\[(out-of-range|wrong-value)\]"):
        network(f"{{name: c, op: conv2d, out_channels: 2, kernel_size: 3, init: {{weight: {rule}}}}}")


def speaks_to_a_runner(text: str) -> list[str]:
    """Return the lines of a text that a terminal or a CI runner would not only show.

    GitHub's runner (actions/runner, ActionCommand.cs) takes a line for a command if it starts with `::` after blanks,
    or has `##[command]` anywhere; Azure's likewise takes `##vso[command]`.
    """
    unprintable = re.compile(r"^\s*::|##\w*\[|[^\t -~\u2713\u2717]")
    return [line for line in text.split("\n") if unprintable.search(line)]


RUNNER = '"::add-mask::parameters ##[add-mask]layers ##vso[task.complete]"'
SPOKEN = f"""archspec: 1
name: net
source: {RUNNER}
input: {{channels: 3, height: 8, width: 8}}
layers: [{{name: relu, op: relu}}]
claims:
  - {{params: 0, says: {RUNNER}, where: {RUNNER}}}
  - {{params: 1, says: {RUNNER}, where: {RUNNER}, disputed: {RUNNER}}}
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "FILE"],
        ["check", "FILE", "--format", "json"],
        *(["report", "FILE", "--format", name] for name in ("table", "markdown", "csv", "json", "latex", "html")),
        ["compare", "FILE", "FILE"],
        ["generate", "FILE", "--target", "numpy"],
        ["generate", "FILE", "--target", "numpy", "--diff"],
        ["generate", "FILE", "--target", "numpy", "--check"],
        ["draw", "FILE", "-o", "FILE"],
        ["report", "FILE", "-o", "FILE"],
        ["check", "nowhere-FILE"],
        ["check", "FILE/FILE"],
        ["check", "FAULTY"],
        ["verify", "FILE", "--check"],
    ],
    ids=" ".join,
)
def test_a_spec_does_not_speak_to_a_ci_runner(arguments: list[str], tmp_path: Path) -> None:
    """Neither texts, values, file names nor the files of a certificate end up as a command of a CI runner."""
    name = "::error:: ##[error]\n::error::\x1b[31m.yaml"
    (tmp_path / name).write_text(SPOKEN)
    (tmp_path / "FAULTY").write_text(f"::stop-commands::x:\n  ##[debug] : 1\n{RUNNER}: 3\n")
    verify = {"spec": {"sha256": ""}, "agrees": True, "targets": {"a": {"files": {"x\n::error::pwned": "0"}}}}
    (tmp_path / "generated" / "net").mkdir(parents=True)
    (tmp_path / "generated" / "net" / "verify.json").write_text(json.dumps(verify))
    run = archspec_command(*(word.replace("FILE", name) for word in arguments), cwd=tmp_path)

    assert run.stdout + run.stderr
    assert speaks_to_a_runner(run.stdout + run.stderr) == []


@pytest.mark.parametrize("text", ["a\u3164b", "\u115f", "a \u2800 b", "a\u034fb", "a\ufe0fb", "a" + "\u0301" * 5])
def test_invisible_letters_are_rejected(text: str) -> None:
    """Letters that are not seen, and stacks of combining marks, are no text to be read."""
    with pytest.raises(archspec.SpecError, match=r"error\[wrong-value\]: source must be text without invisible"):
        archspec.loads(f"{HEAD}source: {json.dumps(text)}\nlayers: [{{name: r, op: relu}}]\n")
    for seen in ("caf\u00e9", "Vie\u0302\u0323t", "\u0e17\u0e35\u0e48", "\u5927\u7ea6"):
        archspec.loads(f"{HEAD}source: {seen}\nlayers: [{{name: r, op: relu}}]\n")


def test_markdown_has_no_links() -> None:
    """GitHub makes links of `www.` and of `://`."""
    source = "www.evil.example https://evil.example [a](b) <http://c>"
    text = as_markdown(report.Facts(archspec.loads(f"{HEAD}source: {source}\nlayers: [{{name: r, op: relu}}]\n")))

    assert "www\\.evil.example https:\\//evil" in text
    assert not re.search(r"www\.|://|(?<!\\)[\[<]", text)


def test_a_pipe_is_no_spec(tmp_path: Path) -> None:
    """A pipe without a writer is an error, as a spec and as a neighbour; the command does not wait for it."""
    os.mkfifo(tmp_path / "pipe.yaml")
    spec = f"{HEAD}layers: [{{name: r, op: relu}}]\nclaims: [{{params: 1, times: pipe.yaml}}]\n"
    (tmp_path / "net.yaml").write_text(spec)
    run = archspec_process("check", "pipe.yaml", cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert (run.returncode, run.stderr) == (2, "archspec: cannot read pipe.yaml: not a regular file\n")
    run = archspec_process("check", "net.yaml", cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert run.returncode == 1
    assert "error[unknown-spec]: cannot read pipe.yaml: not a regular file" in run.stderr


def test_links_out_of_the_folder_are_not_read(tmp_path: Path) -> None:
    """No line of a file that a link names is shown; links in the folder, and a folder that is a link, are read."""
    (tmp_path / "secret").write_text("root:secret\n")
    folder = tmp_path / "specs"
    folder.mkdir()
    (folder / "link.yaml").symlink_to("../secret")
    for name, other in (("net", "link"), ("good", "linked")):
        text = f"{HEAD}layers: [{{name: r, op: relu}}]\nclaims: [{{activation_bytes: 1, times: {other}.yaml}}]\n"
        (folder / f"{name}.yaml").write_text(text)
    run = archspec_command("check", folder / "net.yaml")
    assert run.returncode == 1
    assert "cannot read link.yaml: a link out of its folder" in run.stderr
    run = archspec_command("check", folder)
    assert (run.returncode, run.stderr) == (
        2,
        f"archspec: cannot read {folder / 'link.yaml'}: a link out of its folder\n",
    )
    (folder / "link.yaml").unlink()
    (folder / "linked.yaml").symlink_to("good.yaml")
    (tmp_path / "folder").symlink_to("specs")
    assert archspec_command("check", tmp_path / "folder" / "good.yaml").returncode == 0


def test_control_characters_of_a_spec_are_escaped() -> None:
    """A tag with a line break and an escape sequence in it is printed as text."""
    with pytest.raises(archspec.SpecError) as caught:
        Source.parse("name: !<tag:%0a%1b[31mfoo> x")

    assert "\x1b" not in str(caught.value)
    assert str(caught.value).count("\n") == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "x" * 300],
        ["generate", "specs/lenet.yaml", "--out", "x" * 300],
        ["verify", "specs/lenet.yaml", "--batch", "1000000000000"],
        ["verify", "specs/lenet.yaml", "--timeout", "1e300"],
    ],
)
def test_impossible_arguments_are_usage_errors(arguments: list[str]) -> None:
    """Names that no file can have and batches that no machine can hold have exit status 2."""
    run = archspec_command(*arguments)

    assert run.returncode == 2
    assert run.stderr


def test_verify_of_a_network_larger_than_memory_is_an_error(tmp_path: Path) -> None:
    """`check` counts it; `verify` prints the memory that it needs."""
    head = "archspec: 1\nname: net\ninput: {channels: 2147483647, height: 65536, width: 3}\n"
    (tmp_path / "net.yaml").write_text(f"{head}layers: [{{name: relu, op: relu}}]\n")

    assert archspec_command("check", tmp_path / "net.yaml").returncode == 0
    run = archspec_command("verify", tmp_path / "net.yaml")
    assert run.returncode == 2
    assert "GiB" in run.stderr


def test_existing_files_that_are_not_utf8_were_edited(tmp_path: Path) -> None:
    """`generate --check` reports a file that is not UTF-8, and `--diff` prints it."""
    path = tmp_path / "lenet" / "pytorch" / "model.py"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff\xfe")
    arguments = ["generate", "specs/lenet.yaml", "--target", "torch", "--out", tmp_path, "--check", "--diff"]
    run = archspec_command(*arguments)

    assert run.returncode == 1
    assert f"{path}: edited by hand\n" in run.stdout
    assert "+class LeNet" in run.stdout


def test_a_circular_link_is_a_usage_error(tmp_path: Path) -> None:
    """An --out that is a link to itself has exit status 2."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    run = archspec_command("generate", "specs/lenet.yaml", "--target", "numpy", "--out", tmp_path / "loop")

    assert run.returncode == 2
    assert "cannot write below" in run.stderr


def test_characters_that_the_output_cannot_encode_are_escaped() -> None:
    """With ASCII output a tick is \\u2713; a full disk is an error message."""
    run = archspec_process("check", "specs/lenet.yaml", PYTHONIOENCODING="ascii")
    assert run.returncode == 0, run.stderr
    assert "\\u2713" in run.stdout
    if Path("/dev/full").exists():
        with open("/dev/full", "w") as full:
            command = [sys.executable, "-m", "archspec", "check", "specs/lenet.yaml"]
            ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ)
        assert ended.returncode == 2
        assert "Traceback" not in ended.stderr
