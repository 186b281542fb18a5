"""`archspec generate`: which files it writes, edited files, --check, --diff, and the committed files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers import ROOT, archspec_command

from archspec.targets.output import plan

ALEXNET = ROOT / "specs" / "alexnet.yaml"
LENET = ROOT / "specs" / "lenet.yaml"


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the generated files of LeNet for PyTorch, which tests copy."""
    out = tmp_path_factory.mktemp("lenet")
    assert archspec_command("generate", LENET, "--target", "torch", "--out", out).returncode == 0
    return out


@pytest.fixture
def out(lenet: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return Path(shutil.copytree(lenet, tmp_path / "out"))


def generate(out: Path, *options: str) -> tuple[int, str, str]:
    """Run `generate` for LeNet in PyTorch; return exit status, standard output and standard error."""
    run = archspec_command("generate", LENET, "--target", "torch", "--out", out, *options)
    return run.returncode, run.stdout, run.stderr


def edit(path: Path) -> str:
    """Edit a generated file; return its text."""
    path.write_text(text := path.read_text().replace("kernel_size=5", "kernel_size=3", 1) + "# edited\n")
    return text


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_generate_writes_the_selected_targets(tmp_path: Path) -> None:
    """`--target` selects one target, or several; without it all are written."""
    every = {"pytorch", "keras", "numpy"}
    for targets, folders in ((["keras"], {"keras"}), (["keras", "torch"], {"keras", "pytorch"}), ([], every)):
        out = tmp_path / "-".join(["out", *targets])
        options = [word for target in targets for word in ("--target", target)]
        run = archspec_command("generate", LENET, "--out", out, *options)
        names = contents(out / "lenet")

        assert {path.name for path in (out / "lenet").iterdir()} == folders
        assert sorted(run.stdout.split()) == sorted(f"{out}/lenet/{name}" for name in names)
        for folder in folders - {"numpy"}:
            assert {f"{folder}/{name}.py" for name in ("model", "recipe", "train", "engine/data")} <= set(names)
    assert {name for name in names if name.startswith("numpy/")} == {"numpy/model.py"}


def test_generate_writes_nothing_if_a_spec_has_errors(tmp_path: Path) -> None:
    """One spec with an error among several: nothing is written, and existing files stay."""
    bad = tmp_path / "bad.yaml"
    bad.write_text(ALEXNET.read_text().replace("groups: 2", "groups: 7", 1))
    path = tmp_path / "out" / "alexnet" / "pytorch" / "model.py"
    path.parent.mkdir(parents=True)
    path.write_text("before")
    run = archspec_command("generate", ALEXNET, bad, "--out", tmp_path / "out", "--force")

    assert run.returncode == 1
    assert "error[groups]: conv2: groups=7 must divide" in run.stderr
    assert contents(tmp_path / "out") == {"alexnet/pytorch/model.py": b"before"}
    assert run.stdout == ""


def test_generate_without_specs_is_a_usage_error(tmp_path: Path) -> None:
    """Without an argument and without specs/ the exit status is 2."""
    run = archspec_command("generate", cwd=tmp_path)

    assert run.returncode == 2
    assert "specs/" in run.stderr


def test_two_specs_of_one_name_are_a_usage_error(tmp_path: Path) -> None:
    """Two specs that would write to the same folder have exit status 2, with both paths."""
    shutil.copy(LENET, tmp_path / "a.yaml")
    shutil.copy(LENET, tmp_path / "b.yaml")
    run = archspec_command("generate", tmp_path, "--out", tmp_path / "out")

    assert run.returncode == 2
    assert f"{tmp_path / 'a.yaml'} and {tmp_path / 'b.yaml'}" in run.stderr
    assert not (tmp_path / "out").exists()


# --- edited files ----------------------------------------------------------------------------------------------------


def test_generate_refuses_to_overwrite_an_edited_file(out: Path) -> None:
    """An edited model.py is an error, before anything is written; with --force it is overwritten."""
    model, recipe = out / "lenet" / "pytorch" / "model.py", out / "lenet" / "pytorch" / "recipe.py"
    original = contents(out)
    edit(model)
    recipe.unlink()
    before = contents(out)

    message = f"archspec: {model} was edited by hand: move the change to the spec, or use --force\n"
    assert generate(out) == (1, "", message)
    assert contents(out) == before
    assert generate(out, "--force")[0] == 0
    assert contents(out) == original


def test_generate_refuses_to_overwrite_a_file_that_it_did_not_write(out: Path) -> None:
    """A file without a header counts as edited."""
    model = out / "lenet" / "pytorch" / "model.py"
    model.write_text("print('mine')\n")

    assert generate(out)[0] == 1
    assert model.read_text() == "print('mine')\n"


def test_generate_keeps_an_edited_train_py(out: Path) -> None:
    """train.py is its user's: an edited one is kept and named, and is not out of date; --force overwrites it."""
    program = out / "lenet" / "pytorch" / "train.py"
    original = program.read_text()
    text = edit(program)

    status, _, stderr = generate(out)
    assert (status, stderr) == (0, f"archspec: kept {program}, which was edited\n")
    assert program.read_text() == text
    assert generate(out, "--check") == (0, "", "")
    assert generate(out, "--force")[0] == 0
    assert program.read_text() == original


def test_generate_overwrites_an_outdated_file_that_was_not_edited(out: Path, tmp_path: Path) -> None:
    """A file that an earlier spec generated is replaced without --force, also with CRLF line ends."""
    model = out / "lenet" / "pytorch" / "model.py"
    model.write_bytes(model.read_bytes().replace(b"\n", b"\r\n"))
    assert generate(out, "--check") == (0, "", "")
    spec = tmp_path / "lenet.yaml"
    spec.write_text(LENET.read_text().replace("out_channels: 6", "out_channels: 8").partition("claims:")[0])
    run = archspec_command("generate", spec, "--target", "torch", "--out", out)

    assert run.returncode == 0, run.stderr
    assert "nn.Conv2d(1, 8," in model.read_text()
    assert b"\r" not in model.read_bytes()


# --- --check and --diff ----------------------------------------------------------------------------------------------


def test_check_names_the_files_and_the_command(out: Path, tmp_path: Path) -> None:
    """`--check` writes nothing, names files with their state, and prints the command that writes them."""
    folder = out / "lenet" / "pytorch"
    edit(folder / "model.py")
    (folder / "engine" / "data.py").unlink()
    before = contents(out)
    status, stdout, stderr = generate(out, "--check")

    assert status == 1
    assert stdout.splitlines() == [f"{folder}/engine/data.py: missing", f"{folder}/model.py: edited by hand"]
    command = f"archspec generate {LENET} --target torch --out {out} --force"
    assert stderr == f"archspec: 1 missing, 1 edited by hand; run `{command}`, or see the changes with --diff\n"
    assert contents(out) == before
    run = archspec_command(*command.split()[1:])
    assert run.returncode == 0
    assert generate(out, "--check") == (0, "", "")


def test_check_of_an_outdated_file_needs_no_force(out: Path, tmp_path: Path) -> None:
    """Files that are out of date and were not edited are written by the command without --force."""
    spec = tmp_path / "lenet.yaml"
    spec.write_text(LENET.read_text().replace("batch_size: 256", "batch_size: 64"))
    assert spec.read_text() != LENET.read_text()
    run = archspec_command("generate", spec, "--target", "torch", "--out", out, "--check")

    assert run.returncode == 1
    assert f"{out / 'lenet' / 'pytorch' / 'recipe.py'}: out of date\n" in run.stdout
    assert "--force" not in run.stderr


def test_diff_prints_the_changes_and_writes_nothing(out: Path) -> None:
    """`--diff` prints a unified diff to the generated files; only with --check the exit status is 1."""
    folder = out / "lenet" / "pytorch"
    edit(folder / "model.py")
    (folder / "recipe.py").unlink()
    before = contents(out)
    for options, status in ((["--diff"], 0), (["--check", "--diff"], 1)):
        result, stdout, _ = generate(out, *options)
        lines = stdout.splitlines()

        assert result == status
        assert [line for line in lines if line.startswith(("---", "+++"))] == [
            f"--- {folder}/recipe.py",
            f"+++ {folder}/recipe.py (generated)",
            f"--- {folder}/model.py",
            f"+++ {folder}/model.py (generated)",
        ]
        assert "-        self.conv1 = nn.Conv2d(1, 6, kernel_size=3, padding=2)" in lines
        assert "+        self.conv1 = nn.Conv2d(1, 6, kernel_size=5, padding=2)" in lines
        assert "-# edited" in lines
        assert "+BATCH_SIZE = 256" in lines or "+BATCH_SIZE" in stdout
        assert contents(out) == before


def test_diff_of_current_files_is_empty(out: Path) -> None:
    """`--diff` prints nothing for files that are up to date."""
    assert generate(out, "--diff", "--check") == (0, "", "")


def test_quiet_prints_no_paths(tmp_path: Path) -> None:
    """`generate -q` writes the files and prints nothing."""
    run = archspec_command("generate", LENET, "-q", "--target", "numpy", "--out", tmp_path)

    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert list(contents(tmp_path)) == ["lenet/numpy/model.py"]


def test_placement_writes_model_parallel_py(tmp_path: Path) -> None:
    """`--placement model-parallel` also writes model_parallel.py, for a network with two halves."""
    arguments = ["--target", "torch", "--placement", "model-parallel", "--out", tmp_path]
    run = archspec_command("generate", ALEXNET, *arguments)
    path = tmp_path / "alexnet" / "pytorch" / "model_parallel.py"

    assert run.returncode == 0, run.stderr
    assert path.read_text() == (ROOT / "generated" / "alexnet" / "pytorch" / "model_parallel.py").read_text()


def test_plan_has_every_state(tmp_path: Path) -> None:
    """`plan` sorts files by their state: new, changed, edited, kept and same."""
    from archspec.language.source import Source
    from archspec.targets.header import with_header

    source = Source.parse("archspec: 1")
    files = {
        tmp_path / f"{name}.py": with_header("model.py", f"{name}\n", source)
        for name in ("new", "changed", "edited", "same")
    }
    files[tmp_path / "train.py"] = with_header("train.py", "train\n", source)
    (tmp_path / "changed.py").write_text(with_header("model.py", "earlier\n", source))
    (tmp_path / "edited.py").write_text("edited\n")
    (tmp_path / "train.py").write_text("edited\n")
    (tmp_path / "same.py").write_text(files[tmp_path / "same.py"])
    planned = plan(files)

    states = {"new": planned.new, "changed": planned.changed, "edited": planned.edited, "same": planned.same}
    assert {state: [path.name for path in paths] for state, paths in states.items()} == {
        state: [f"{state}.py"] for state in states
    }
    assert planned.kept == [tmp_path / "train.py"]
    assert not planned.is_current
