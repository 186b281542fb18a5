"""A spec is untrusted text, and a command line is typed in haste: neither takes the machine down or ends in a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, spec
from test_cli import run

import archspec
from archspec import claims, report
from archspec.conventions import totals
from archspec.emit import TARGETS, emit
from archspec.source import Source

HEAD = "archspec: 1\nname: net\ninput: {channels: 3, height: 8, width: 8}\n"


def ends(task: object) -> object:
    """Return what `task` returns or the SpecError that it raises; fail if that takes half a minute.

    No benchmark: what each test guards against took minutes, or for ever.
    """
    start = time.perf_counter()
    try:
        result = task()  # type: ignore[operator]
    except archspec.SpecError as error:
        result = error
    assert time.perf_counter() - start < 30
    return result


def test_shapes_do_not_grow_without_bound() -> None:
    """A chain that doubles its channels ends in an error, not in a number of thousands of digits."""
    chain = "".join(
        f"  - {{name: a{i}, op: concat, from: [{f'a{i - 1}' if i else 'input'}, input]}}\n" for i in range(9)
    )
    doubling = "".join(
        f"  - {{name: b{i}, op: concat, from: [{f'b{i - 1}' if i else 'a8'}, {f'b{i - 1}' if i else 'a8'}]}}\n"
        for i in range(60)
    )
    error = ends(lambda: archspec.build(Source.parse(f"{HEAD}layers:\n{chain}{doubling}")))

    assert "error[too-large]" in str(error)


def test_a_spec_of_diamonds_is_emitted_in_a_moment() -> None:
    """Paths multiply where branches meet; the walk over readers goes by each once."""
    diamonds = "".join(
        f"{{name: r{i}, op: relu, from: a{i - 1}}}\n{{name: a{i}, op: add, from: [a{i - 1}, r{i}]}}\n"
        for i in range(1, 61)
    )
    graph = archspec.build(spec(f"{{name: a0, op: flatten}}\n{diamonds}{{name: fc, op: linear, out_features: 2}}"))
    for target in TARGETS:
        ends(lambda target=target: emit(graph, target))


def test_many_claims_and_many_faults_take_no_more_than_their_number() -> None:
    """Work is linear in the text: thousands of claims, of faults and of near misses."""
    relus = "".join(f"  - {{name: r{i}, op: relu}}\n" for i in range(20_000))
    graph = archspec.build(Source.parse(f"{HEAD}layers:\n{relus}claims:\n" + "  - {macs: 0}\n" * 20_000))
    found = ends(lambda: claims.verdicts(graph))
    assert len(found) == 20_000  # type: ignore[arg-type]
    faulty = "".join(f"  - {{name: r{i}, op: relu, slope: 1}}\n" for i in range(20_000))
    error = ends(lambda: archspec.build(Source.parse(f"{HEAD}layers:\n{faulty}")))
    assert str(error).count("error[unknown-key]") == 20_000
    near = "".join(f"  - {{name: alayer{i}, op: relu, from: alayr}}\n" for i in range(6_000))
    error = ends(lambda: archspec.build(Source.parse(f"{HEAD}layers:\n{near}")))
    assert str(error).count("error[unknown-layer]") == 6_000


def test_a_large_output_is_counted_and_not_looped_over() -> None:
    """Counting an adaptive pool takes no longer for a million windows: n + m - gcd(n, m) values along an axis."""
    graph = archspec.build(spec("{name: pool, op: adaptive_avg_pool2d, output_size: [2000003, 4]}"))
    (node,) = graph.nodes

    ends(lambda: (totals(graph), list(report.table(graph))))
    # 9 rows to 2,000,003: gcd 1; 7 columns to 4: [0, 2), [1, 4), [3, 6), [5, 7) read 2 + 3 + 3 + 2 = 10
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
def test_a_rule_that_nothing_can_be_drawn_by_is_refused(rule: str) -> None:
    """Limits of init rules are those of a float32, with room to be squared."""
    with pytest.raises(archspec.SpecError, match=r"error\[(out-of-range|wrong-value)\]"):
        archspec.build(spec(f"{{name: c, op: conv2d, out_channels: 2, kernel_size: 3, init: {{weight: {rule}}}}}"))


@pytest.mark.parametrize("name", ["Split", "LocalResponseNorm", "input_layer", "reset_parameters", "parameter_groups"])
def test_a_layer_is_not_called_as_the_generated_code_calls_its_own(name: str) -> None:
    """Classes of the templates, methods of theirs, and Keras' name of the input are reserved."""
    with pytest.raises(archspec.SpecError, match=r"error\[reserved-name\]"):
        archspec.build(spec(f"{{name: {name}, op: relu}}"))


def test_what_is_shown_of_a_spec_has_no_escapes() -> None:
    """A tag with a line break and an escape sequence in it is spelled, not printed."""
    with pytest.raises(archspec.SpecError) as caught:
        Source.parse("name: !<tag:%0a%1b[31mfoo> x")

    assert "\x1b" not in str(caught.value)
    assert str(caught.value).count("\n") == 2


@pytest.mark.parametrize(
    "words",
    [
        ["check", "x" * 300],
        ["generate", "specs/lenet.yaml", "--out", "x" * 300],
        ["verify", "specs/lenet.yaml", "--batch", "1000000000000"],
        ["verify", "specs/lenet.yaml", "--timeout", "1e300"],
    ],
)
def test_a_silly_command_line_is_2(words: list[str]) -> None:
    """Names that no file can have, batches that no machine can hold."""
    ran = run(*words)

    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr


def test_a_legal_network_that_no_machine_holds_is_told(tmp_path: Path) -> None:
    """Counting it is fine; running it is not."""
    head = "archspec: 1\nname: net\ninput: {channels: 2147483647, height: 65536, width: 3}\n"
    (tmp_path / "net.yaml").write_text(f"{head}layers: [{{name: relu, op: relu}}]\n")

    assert run("check", tmp_path / "net.yaml").returncode == 0
    ran = run("verify", tmp_path / "net.yaml")
    assert ran.returncode == 2
    assert "GiB" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_standing_file_of_any_bytes_is_a_difference(tmp_path: Path) -> None:
    """What is not UTF-8 is not what would be written."""
    run("generate", ROOT / "specs" / "lenet.yaml", "--out", tmp_path)
    (tmp_path / "lenet" / "torch_model.py").write_bytes(b"\xff\xfe")
    ran = run("generate", ROOT / "specs" / "lenet.yaml", "--out", tmp_path, "--check")

    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr


def test_links_in_a_circle_are_told(tmp_path: Path) -> None:
    """An --out that leads back to itself is the command line's fault."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    ran = run("generate", ROOT / "specs" / "lenet.yaml", "--out", tmp_path / "loop")

    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr


def test_a_terminal_that_shows_no_ticks_is_given_their_names() -> None:
    """In an ASCII world a tick is \\u2713, and a full disk is a sentence."""
    ran = run("check", "specs/lenet.yaml", PYTHONIOENCODING="ascii")
    assert ran.returncode == 0, ran.stderr
    assert "\\u2713" in ran.stdout
    if Path("/dev/full").exists():
        with open("/dev/full", "w") as full:
            command = [sys.executable, "-m", "archspec", "check", "specs/lenet.yaml"]
            ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ)
        assert ended.returncode == 2
        assert "Traceback" not in ended.stderr
