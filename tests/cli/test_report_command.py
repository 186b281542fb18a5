"""`archspec report`: its columns, and the transfers of model parallelism."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import ROOT, archspec_command, network

from archspec.report import COLUMNS

ALEXNET = ROOT / "specs" / "alexnet.yaml"


def test_list_columns() -> None:
    """`--list-columns` prints every column with a description, and needs no spec."""
    run = archspec_command("report", "--list-columns")
    lines = dict(line.split(maxsplit=1) for line in run.stdout.splitlines())

    assert run.returncode == 0, run.stderr
    assert list(lines) == list(COLUMNS)
    assert lines["flops"] == "2 x MACs"


def test_columns_are_given_by_key_or_by_header() -> None:
    """`--columns` takes the key of a column, or its header as the table prints it."""
    keys, headers = (
        archspec_command("report", ALEXNET, "--columns", columns)
        for columns in ("name,output_shape,receptive_field,params", "layer, output ,receptive field,parameters")
    )

    assert keys.returncode == headers.returncode == 0, headers.stderr
    assert keys.stdout == headers.stdout
    assert keys.stdout.splitlines()[3].split("  ")[0] == "layer"
    assert "11 x 11" in keys.stdout


def test_every_header_is_accepted() -> None:
    """Every header names its own column."""
    for key, column in COLUMNS.items():
        run = archspec_command("report", ALEXNET, "--columns", column.head, "--format", "json")
        assert list(json.loads(run.stdout)["specs"][0]["layers"][0]) == [key]


@pytest.mark.parametrize(("name", "suggestion"), [("recptive field", "receptive field"), ("parms", "params")])
def test_an_unknown_column_is_a_usage_error(name: str, suggestion: str) -> None:
    """A misspelled key or header has exit status 2 and a suggestion."""
    run = archspec_command("report", ALEXNET, "--columns", name)

    assert run.returncode == 2
    assert f"no column {name!r}; did you mean '{suggestion}'?" in run.stderr


# --- model parallelism -----------------------------------------------------------------------------------------------


def test_report_prints_transfers() -> None:
    """`--placement model-parallel` prints the transfers between the ranks."""
    run = archspec_command("report", ALEXNET, "--placement", "model-parallel", "--batch", "128")

    assert run.returncode == 0, run.stderr
    assert "Transfers between two ranks, batch 128 in float32" in run.stdout
    data = archspec_command("report", ALEXNET, "--placement", "model-parallel", "--format", "json")
    layers = [transfer["layer"] for transfer in json.loads(data.stdout)["specs"][0]["transfers"]]
    assert layers[-1] == "all"
    assert "conv3" in layers


# Networks without two halves, and the layer at fault.
CONV = "{name: conv, op: conv2d, out_channels: 4, kernel_size: 3}"
WHOLE = {
    "no parameters": ("{name: relu, op: relu}", "relu has no layer with parameters before it to split"),
    "pools": (
        "{name: a, op: max_pool2d, kernel_size: 3, stride: 2}\n{name: b, op: avg_pool2d, kernel_size: [2, 3]}",
        "b has no layer with parameters before it to split",
    ),
    "adaptive pool": (
        "{name: pool, op: adaptive_avg_pool2d, output_size: 1}",
        "pool has no layer with parameters before it to split",
    ),
    "one layer": (CONV, "conv has no layer with parameters before it to split"),
    "one layer and a relu": (
        f"{CONV}\n{{name: relu, op: relu}}",
        "conv has no layer with parameters before it to split",
    ),
    "one linear layer": (
        "{name: flat, op: flatten}\n{name: fc, op: linear, out_features: 3}",
        "fc has no layer with parameters before it to split",
    ),
    "sum of the input": (
        "{name: both, op: add, from: [input, input]}",
        "both has no layer with parameters before it to split",
    ),
    "odd channels": (
        f"{CONV.replace('4', '5')}\n{{name: last, op: conv2d, out_channels: 2, kernel_size: 1}}",
        "conv has out_channels=5, which is not even",
    ),
    "concat": (
        f"{CONV}\n{{name: both, op: concat, from: [conv, conv]}}\n{{name: last, op: conv2d, out_channels: 2, kernel_size: 1}}",
        "both is a concat, which cannot be split by channels",
    ),
}


@pytest.mark.parametrize("command", ["report", "generate"])
@pytest.mark.parametrize(("layers", "message"), WHOLE.values(), ids=WHOLE.keys())
def test_a_network_without_two_halves_is_an_error(command: str, layers: str, message: str, tmp_path: Path) -> None:
    """`--placement model-parallel` of a network without two halves is an error at a layer, with exit status 1."""
    path = tmp_path / "net.yaml"
    path.write_text(network(layers).source.text)
    options = ["--target", "torch", "--out", tmp_path / "out"] if command == "generate" else []
    run = archspec_command(command, path, "--placement", "model-parallel", *options)

    assert run.returncode == 1
    first = run.stderr.splitlines()[0]
    assert first.startswith(f"{path}:")
    assert first.endswith(f"error[unsupported-by-target]: {message}")
    assert not (tmp_path / "out").exists()
