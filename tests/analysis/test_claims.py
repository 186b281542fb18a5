"""Claims: verdicts, tolerances, and the claims of the specs here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import CLAIMS, ROOT, SPECS, archspec_command, network

import archspec
from archspec.analysis import claims
from archspec.analysis.claims import tolerance, verdicts


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_claim_of_the_specs_here_holds(path: Path) -> None:
    """Every claim is true, and every disputed claim is false."""
    graph = archspec.load(path)

    assert list(claims.errors(graph, verdicts(graph))) == []


@pytest.mark.parametrize("path", CLAIMS, ids=lambda path: path.stem)
def test_every_claim_of_the_files_of_claims_holds(path: Path) -> None:
    """The claims of a file of their own are tested like those of the spec that they are about."""
    checked = archspec.check(path)

    assert checked.ok, checked.diagnostics
    assert len(checked.claims) > 20


def test_a_file_of_claims_is_checked_with_its_own_places(tmp_path: Path) -> None:
    """A false claim, an unknown layer and a missing spec are errors at their places in the file of claims.

    The convolution has 8 x (3 x 9 + 1) = 224 parameters.
    """
    head = "archspec: 1\nname: net\ninput: {channels: 3, height: 9, width: 9}\n"
    (tmp_path / "net.yaml").write_text(head + "layers: [{name: c, op: conv2d, out_channels: 8, kernel_size: 3}]\n")
    path = tmp_path / "net.claims.yaml"

    def check(text: str) -> str:
        path.write_text(f"archspec: 1\n{text}\n")
        return archspec_command("check", path).stderr

    assert "net.claims.yaml" not in check("spec: net.yaml\nclaims: [{params: 224}]")
    assert "net.claims.yaml:3:19: error[false-claim]: params is 224, not 225" in check(
        "spec: net.yaml\nclaims: [{params: 225}]"
    )
    assert "net.claims.yaml:3:18: error[unknown-layer]: no layer 'd'" in check(
        "spec: net.yaml\nclaims: [{layer: d, params: 224}]"
    )
    assert "net.claims.yaml:2:7: error[unknown-spec]: cannot read nt.yaml" in check(
        "spec: nt.yaml\nclaims: [{params: 224}]"
    )
    assert "error[wrong-value]" in check("spec: ../net.yaml\nclaims: [{params: 224}]")
    assert "error[missing-key]" in check("spec: net.yaml")
    assert "error[wrong-value]" in check("spec: net.yaml\nclaims: []")

    check("spec: net.yaml\nclaims: [{params: 225}]")
    assert archspec_command("check", tmp_path).returncode == 1
    assert archspec_command("generate", tmp_path, "--target", "numpy", "--out", tmp_path / "out").returncode == 0
    run = archspec_command("generate", path, "--out", tmp_path / "out")
    assert (run.returncode, "error[claims-file]" in run.stderr) == (1, True)


# A number, whether the source says "about", and its tolerance: one unit of the last significant digit.
@pytest.mark.parametrize(
    ("number", "about", "expected"),
    [
        (60e6, False, 1e6),
        (60e6, True, 2e6),
        (650e3, False, 1e4),
        (46e6, True, 2e6),
        (6e6, False, 1e5),
        (0.714e9, False, 1e6),
        (1.43e9, False, 1e7),
        (0.01, False, 1e-3),
        (250.0, False, 10),
        (60_965_224, False, 0),
        (60_965_224, True, 0),
    ],
)
def test_the_tolerance_of_a_number_depends_on_its_digits(number: float, about: bool, expected: float) -> None:
    """A round number has a tolerance, twice as large with "about"; a whole number has none."""
    assert tolerance(number, about=about) == pytest.approx(expected, rel=1e-12, abs=0)


def claim_errors(claim: str) -> list[str]:
    """Return the errors of one claim about a small network with an input of 6 x 9 x 7."""
    layers = "{name: conv, op: conv2d, out_channels: 4, kernel_size: 3}\n{name: relu, op: relu}"
    graph = network(layers, head=f"claims: [{claim}]")
    return [error.message for error in claims.errors(graph, verdicts(graph))]


def test_a_claim_must_be_true_and_a_disputed_claim_false() -> None:
    """A false claim is an error, and so is a disputed true one. The convolution has 4 x (6 x 9 + 1) = 220 parameters."""
    assert claim_errors("{params: 220}") == []
    assert claim_errors("{params: 221}") == ["params is 220, not 221"]
    assert claim_errors("{params: 22e1}") == []
    assert claim_errors("{params: 230.0}") == []
    assert claim_errors("{params: 240.0}") == ["params is 220, not 240"]
    assert claim_errors("{params: 240.0, says: about 240}") == []
    assert claim_errors("{params: 221, disputed: it is 220}") == []
    assert claim_errors("{params: 220, disputed: no reason}") == ["params is disputed, but the claim is true: 220"]
    assert claim_errors("{layer: conv, output_shape: [4, 7, 5]}") == []
    assert claim_errors("{layer: relu, output_shape: [4, 5, 7]}") == ["relu output_shape is 4 x 7 x 5, not 4 x 5 x 7"]
    assert claim_errors("{layer: [conv, relu], neurons: 140}") == []
    assert claim_errors("{layer: relu, neurons: 140}") == ["relu neurons is 0, not 140"]
    assert claim_errors("{layer: conv, macs: 7560}") == []
    assert claim_errors("{flops: 15120}") == []
    assert claim_errors("{layer: conv, weight_shape: [4, 6, 3, 3]}") == []
    assert claim_errors("{input_shape: [6, 9, 7]}") == []
    assert claim_errors("{weight_layers: 1}") == []
    assert claim_errors("{layer: conv, params_share: 1.0}") == []
    assert claim_errors("{layer: relu, params_share: 1.0, says: all}") == ["relu params_share is 0, not 1"]
    assert claim_errors("{activation_bytes: 1120}") == []


def test_a_false_claim_has_exit_status_1(tmp_path: Path) -> None:
    """`check` prints a cross in the table and an error at the claim, and exits with status 1."""
    text = (ROOT / "specs" / "alexnet.yaml").read_text().replace("params: 60e6", "params: 62e6", 1)
    (tmp_path / "spec.yaml").write_text(text)
    run = archspec_command("check", tmp_path / "spec.yaml")

    assert run.returncode == 1
    assert "error[false-claim]: params is 60,965,224, not 62,000,000" in run.stderr
    assert next(line for line in run.stdout.splitlines() if "62,000,000" in line).startswith("\u2717")
    assert "~~253,440, figure 2~~ it is 55 x 48 x 96" in run.stdout


def test_check_prints_claims_as_json() -> None:
    """`check --format json` prints every claim with its verdict."""
    data = json.loads(archspec_command("check", "specs/alexnet_d2l.yaml", "--format", "json").stdout)["specs"][0][
        "claims"
    ]

    ratio = next(claim for claim in data if claim["times"] == "lenet.yaml" and claim["subject"] == "params")
    assert ratio["verdict"] == "disputed"
    assert ratio["holds"]
    assert ratio["computed"] == pytest.approx(46_764_746 / 61_706)


def test_times_names_a_spec_in_the_same_folder(tmp_path: Path) -> None:
    """`times` accepts no path to another folder; a spec that is missing or has no such number is an error."""
    head = "archspec: 1\nname: net\ninput: {channels: 1, height: 2, width: 3}\nlayers: [{name: relu, op: relu}]\n"
    (tmp_path / "net.yaml").write_text(head + "claims: [{params: 2.0, times: ../../etc/passwd}]\n")
    run = archspec_command("check", tmp_path / "net.yaml")
    assert (run.returncode, "error[wrong-value]" in run.stderr) == (1, True)
    (tmp_path / "net.yaml").write_text(head + "claims: [{macs: 2.0, times: nowhere.yaml}]\n")
    run = archspec_command("check", tmp_path / "net.yaml")
    assert (run.returncode, "error[unknown-spec]: cannot read nowhere.yaml" in run.stderr) == (1, True)
    (tmp_path / "net.yaml").write_text(head + "claims: [{macs: 2.0, times: net.yaml}]\n")
    run = archspec_command("check", tmp_path / "net.yaml")
    assert (run.returncode, "error[claim]: net.yaml has no macs to compare with" in run.stderr) == (1, True)


def test_every_collected_number_is_cited() -> None:
    """Of the 134 statements collected about AlexNet, each one with a digit is cited in a spec or in specs/README.md."""
    shared = ROOT.parent / "shared" / "facts" / "claims.json"
    if not shared.is_file():
        pytest.skip("the collected statements are not part of the repository")
    texts = "".join(path.read_text() for path in (*SPECS, *CLAIMS)) + (ROOT / "specs" / "README.md").read_text()
    statements = json.loads(shared.read_text())
    missing = [s["id"] for s in statements if any(c.isdigit() for c in s["claim"]) and s["id"] not in texts]
    # Conv2D in a line of code
    assert set(missing) <= {"000-29"}, missing
