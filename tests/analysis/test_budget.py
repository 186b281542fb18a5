"""Budgets: bounds, what they are compared with, files of budgets, and that they are no part of the network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import archspec_command, network

import archspec
from archspec.analysis.memory import memory
from archspec.language.budget import Bound, parse_bound
from archspec.language.source import Source
from archspec.targets.view import spec_hash

SPEC = """archspec: 1
name: net
input: {{channels: 3, height: 9, width: 7}}
layers:
  - {{name: c, op: conv2d, out_channels: 8, kernel_size: 3}}
  - {{name: r, op: relu}}
budget: {{{}}}
"""
# Of the convolution: weights 8 x 3 x 9 and 8 biases; 7 x 5 places; the ReLU's output is as large as its own.
PARAMS, MACS, ACTIVATIONS = 216 + 8, 216 * 35, 2 * 8 * 35


def test_bounds_are_read_with_unit_batch_and_dtype() -> None:
    """Units of 1000 and of 1024; one sample in float32 unless the bound says otherwise."""
    read = [
        parse_bound(text, size=True, batched=True)
        for text in ("<= 40 MiB", "<=1.5GB at batch 128", "<= 3  KiB in float16", "<= 7 at batch 2 in bfloat16")
    ]

    assert [(b.limit, b.batch, b.dtype) for b in read] == [
        (40 * 2**20, 1, "float32"),
        (1.5e9, 128, "float32"),
        (3072, 1, "float16"),
        (7, 2, "bfloat16"),
    ]
    assert read[2].text == "<= 3 KiB in float16"
    assert parse_bound("<= 5.4e6", size=False, batched=False) == Bound("<= 5.4e6", 5_400_000)


@pytest.mark.parametrize(
    ("subject", "computed", "suffix"),
    [
        ("params", PARAMS, ""),
        ("macs", MACS, ""),
        ("flops", 2 * MACS, ""),
        ("param_bytes", 4 * PARAMS, ""),
        ("param_bytes", 2 * PARAMS, " in float16"),
        ("activation_bytes", 4 * ACTIVATIONS, ""),
        ("activation_bytes", 5 * 8 * ACTIVATIONS, " at batch 5 in float64"),
    ],
)
def test_a_bound_is_kept_up_to_its_number(subject: str, computed: int, suffix: str) -> None:
    """A network that costs as much as the bound keeps it; one less is an error at the bound."""
    kept, exceeded = (
        archspec.check(archspec.loads(SPEC.format(f"{subject}: <= {limit}{suffix}"), "net.yaml"))
        for limit in (computed, computed - 1)
    )

    assert kept.ok
    assert kept.costs[0].computed == computed
    assert not exceeded.ok
    (error,) = exceeded.diagnostics
    assert (error.code, error.span.line, error.span.column) == ("over-budget", 6, len(f"budget: {{{subject}: "))


def test_the_peaks_are_those_of_the_report() -> None:
    """`memory` is the peak of training and `inference_memory` that of inference, with the recipe's optimizer."""
    head = "budget: {memory: <= 1 B at batch 4, inference_memory: <= 1 B at batch 3 in float16}"
    adam = "training: {optimizer: {adam: {lr: 0.1}}}"
    layers = "{name: c, op: conv2d, out_channels: 8, kernel_size: 9}\n{name: f, op: flatten}"
    plain, trained = (
        network(layers, head=head + more, size="{channels: 6, height: 9, width: 9}") for more in ("", f"\n{adam}")
    )

    found = [[cost.computed for cost in archspec.check(graph).costs] for graph in (plain, trained)]

    assert found[0] == [memory(plain, 4).peak_training, memory(plain, 3, "float16").peak_inference]
    assert found[1][0] == memory(trained, 4, recipe=trained.spec.training).peak_training
    assert found[1][0] - found[0][0] > 4 * (6 * 8 * 81 + 8)  # Adam's second state
    messages = [d.message for d in archspec.check(plain).diagnostics]
    assert "has most" not in "".join(messages)
    assert messages[0].startswith(f"memory is {found[0][0] / 1024:.1f} KiB, not <= 1 B at batch 4")


def test_an_error_names_the_row_that_has_most() -> None:
    """By parameters, multiply-accumulates, or bytes of activations; blocks are one row."""
    spec = """
archspec: 1
name: net
input: {channels: 4, height: 8, width: 8}
blocks:
  unit:
    layers:
      - {name: a, op: conv2d, out_channels: 4, kernel_size: 3, padding: 1, bias: false}
      - {name: b, op: relu}
layers:
  - {name: body, op: unit, repeat: 3}
  - {name: flatten, op: flatten}
  - {name: fc, op: linear, out_features: 3, bias: false}
budget: {params: <= 1, macs: <= 1, activation_bytes: <= 1}
"""
    # 3 x 144 weights used at 64 places; 768 weights used once.
    messages = {d.message.partition(" ")[0]: d.message for d in archspec.check(archspec.loads(spec)).diagnostics}

    assert messages["params"].endswith("; fc has most of it, 64%")
    assert messages["macs"].endswith("; body has most of it, 97%")
    assert messages["activation_bytes"].endswith("; body has most of it, 100%")


def test_a_budget_is_no_part_of_the_network() -> None:
    """Generated files and certificates stay valid when a budget changes; not when a layer does."""
    a, b = (Source.parse(SPEC.format(f"params: <= {limit}")) for limit in (1, 2))
    other = Source.parse(SPEC.format("params: <= 1").replace("out_channels: 8", "out_channels: 9"))

    assert spec_hash(a) == spec_hash(b)
    assert spec_hash(a) != spec_hash(other)


def test_check_holds_networks_to_the_budget_of_a_file(tmp_path: Path) -> None:
    """With the place in the file and the network's name; besides the spec's own budget; JSON has both."""
    (tmp_path / "net.yaml").write_text(SPEC.format(f"params: <= {PARAMS}"))
    (tmp_path / "tight.budget.yaml").write_text("archspec: 1\nbudget:\n  macs: <= 7e3\n  inference_memory: <= 1 GiB\n")

    run = archspec_command("check", ".", "--budget", "tight.budget.yaml", cwd=tmp_path)
    data = json.loads(
        archspec_command("check", ".", "--budget", "tight.budget.yaml", "--format", "json", cwd=tmp_path).stdout
    )

    assert run.returncode == 1
    assert "tight.budget.yaml:3:9: error[over-budget]: net: macs is 7,560, not <= 7e3 (8.00% over)" in run.stderr
    assert "1 error, 0 warnings" in run.stderr  # the file with the budget is no spec of the folder
    ticks = [line.split()[:2] for line in run.stdout.splitlines() if line[:1] in "\u2713\u2717" and line]
    assert ticks == [["\u2713", "params"], ["\u2717", "macs"], ["\u2713", "inference_memory"]]
    assert [(one["subject"], one["fits"], one["path"]) for one in data["specs"][0]["budget"]] == [
        ("params", True, "net.yaml"),
        ("macs", False, "tight.budget.yaml"),
        ("inference_memory", True, "tight.budget.yaml"),
    ]


def test_a_file_with_a_bad_budget_is_reported_once(tmp_path: Path) -> None:
    """However many specs are held to it; a file that is missing is a usage error."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(SPEC.format("params: <= 300"))
    (tmp_path / "bad.budget.yaml").write_text("archspec: 1\nbudget: {}\nmacs: <= 3\n")

    bad = archspec_command("check", ".", "--budget", "bad.budget.yaml", cwd=tmp_path)
    missing = archspec_command("check", ".", "--budget", "no.budget.yaml", cwd=tmp_path)

    assert (bad.returncode, bad.stdout) == (1, "")
    assert bad.stderr.startswith("bad.budget.yaml:3:1: error[unknown-key]: a spec has no key 'macs'")
    assert bad.stderr.count("error[") == 1
    assert (missing.returncode, missing.stderr) == (
        2,
        "archspec: cannot read no.budget.yaml: No such file or directory\n",
    )
