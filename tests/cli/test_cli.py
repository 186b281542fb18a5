"""The command line: usage errors, help, `train`, `explain`, `compare`; and the process: imports, signals, pipes."""

from __future__ import annotations

import importlib.util
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, archspec_command, archspec_process

import archspec
from archspec.api import planned_files
from archspec.cli.app import ALIASES, COMMANDS

ALEXNET = ROOT / "specs" / "alexnet.yaml"

# --- usage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "nowhere.yaml"],
        ["check", "tests/data/nowhere"],
        ["check", "archspec/report"],  # a folder without a spec
        ["check"],
        ["check", "--format", "xml", "specs/alexnet.yaml"],
        ["check", "--format", "json", "--diagnostics", "sarif", "specs/alexnet.yaml"],
        ["generate", "specs/alexnet.yaml", "--target", "caffe"],
        ["generate", "specs/alexnet.yaml", "--target", "keras", "--placement", "model-parallel"],
        ["verify", "specs/alexnet.yaml", "--target", "torch"],
        ["verify", "specs/alexnet.yaml", "--target", "torch", "--target", "torch"],
        ["verify", "specs/alexnet.yaml", "--target", "torch", "--target", "caffe"],
        ["compare", "specs/alexnet.yaml", "specs"],
        ["lockstep", "specs/alexnet_keras_mnist.yaml"],
        ["explain", "no-such-topic"],
        ["teach"],
    ],
    ids=" ".join,
)
def test_a_usage_error_has_exit_status_2(arguments: list[str]) -> None:
    """A usage error is a message on standard error, and exit status 2."""
    run = archspec_command(*arguments)

    assert run.returncode == 2
    assert run.stderr
    assert run.stdout == ""


@pytest.mark.parametrize("command", [*COMMANDS, *ALIASES])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_has_help(command: str, option: str) -> None:
    """`-h` and `--help` print the usage and the options of every command."""
    run = archspec_command(command, option)

    assert run.returncode == 0, run.stderr
    assert "Usage:" in run.stdout
    assert "--help" in run.stdout


def test_help_lists_the_commands() -> None:
    """`archspec -h` lists every command, without aliases; `--version` prints the version."""
    arguments = archspec_command("-h").stdout.replace("│", " ").split()

    assert set(COMMANDS) <= set(arguments)
    assert not set(ALIASES) & set(arguments)
    assert archspec_command("--version").stdout == f"archspec {archspec.__version__}\n"


def test_race_is_an_alias_of_lockstep(tmp_path: Path) -> None:
    """`race` takes the arguments of `lockstep` and ends as it does."""
    shutil.copy(ROOT / "specs" / "alexnet_keras_mnist.yaml", tmp_path / "net.yaml")
    runs = [archspec_command(name, tmp_path / "net.yaml", "--epochs", "1") for name in ("race", "lockstep")]

    assert runs[0].stderr == f"archspec: {tmp_path / 'net.yaml'} has no section training\n"
    assert [(run.returncode, run.stdout, run.stderr) for run in runs] == [(2, "", runs[0].stderr)] * 2


def test_schema_is_printed_or_written(tmp_path: Path) -> None:
    """`schema` prints the committed schema, and with -o writes it."""
    assert archspec_command("schema", "-o", tmp_path / "s.json").returncode == 0
    text = (ROOT / "specs" / "schema.json").read_text()
    assert (tmp_path / "s.json").read_text() == archspec_command("schema").stdout == text


def test_the_hooks_for_pre_commit_are_valid() -> None:
    """The manifest passes pre-commit's own check, and the command of each hook runs."""
    yaml = pytest.importorskip("yaml")
    command = [sys.executable, "-m", "pre_commit", "validate-manifest", ".pre-commit-hooks.yaml"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    hooks = {hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}

    assert set(hooks) == {"archspec-check", "archspec-generate"}
    _, *check = hooks["archspec-check"]["entry"].split()
    assert archspec_command(*check, "specs/lenet.yaml").returncode == 0
    assert archspec_command(*check, "tests/data/errors/groups.yaml").returncode == 1
    _, *generate = hooks["archspec-generate"]["entry"].split()
    run = archspec_command(*generate, "specs/lenet.yaml")
    assert all(line.endswith(": missing") for line in run.stdout.splitlines())  # train.py and engine/ of alexnet only


# --- the process -----------------------------------------------------------------------------------------------------

# What `check` must not import: an editor runs it on every save.
HEAVY = {"numpy", "jinja2", "torch", "keras", "tensorflow", "jax", "rich.table", "safetensors", "importlib.metadata"}


def imported(arguments: list[object], cwd: Path = ROOT) -> set[str]:
    """Return the modules that a process of the command has imported at its end."""
    script = (
        f"import atexit, os, sys; sys.argv = {['archspec', *map(str, arguments)]!r}\n"
        "leave = os._exit\n"
        "def show(*status): sys.__stderr__.write('\\n' + ' '.join(sys.modules)); sys.__stderr__.flush()\n"
        "os._exit = lambda status: (show(), leave(status)); atexit.register(show)\n"
        "from archspec.cli.main import main; main()"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=cwd)
    return set(run.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    "arguments",
    [["check", ALEXNET], ["check", "--format", "json", ALEXNET], ["check", "tests/data/errors/groups.yaml"]],
    ids=["table", "json", "error"],
)
def test_check_imports_no_framework_and_no_jinja(arguments: list[object]) -> None:
    """`check` imports no framework, nor numpy, Jinja2, rich's tables, or pydantic's loader of plugins."""
    modules = imported(arguments)

    assert "archspec.graph" in modules
    assert not modules & HEAVY


def test_generate_imports_no_framework(tmp_path: Path) -> None:
    """`generate` imports Jinja2, and neither a framework nor numpy."""
    modules = imported(["generate", ALEXNET, "--target", "numpy", "--out", tmp_path])

    assert (tmp_path / "alexnet" / "numpy" / "model.py").is_file()
    assert "jinja2" in modules
    assert not modules & (HEAVY - {"jinja2", "importlib.metadata"})


def test_a_closed_pipe_is_no_error() -> None:
    """`archspec check | head -1` prints no error."""
    command = f"{sys.executable} -m archspec check {ALEXNET} {ALEXNET} | head -1"
    run = subprocess.run(command, shell=True, capture_output=True, text=True)

    assert run.stdout.startswith("alexnet")
    assert run.stderr in ("", "2 specs: 0 errors, 0 warnings\n")  # without the summary if the pipe closes before it


def test_a_reader_that_goes_away_is_no_error_of_the_spec(tmp_path: Path) -> None:
    """With more output than the pipe holds the exit status is that of SIGPIPE, and not 1."""
    relus = "".join(f"  - {{name: r{i}, op: relu}}\n" for i in range(2000))
    head = "archspec: 1\nname: net\ninput: {channels: 3, height: 8, width: 8}\n"
    (tmp_path / "net.yaml").write_text(f"{head}layers:\n{relus}")
    command = [sys.executable, "-m", "archspec", "check", tmp_path / "net.yaml"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline().startswith("net ")
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()

    assert process.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize("command", ["check", "report", "generate --target numpy --out generated"])
@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-"])
def test_a_closed_standard_output_is_no_error(command: str, closed: str, tmp_path: Path) -> None:
    """Nothing is printed, and the command succeeds."""
    run = subprocess.run(
        f"{sys.executable} -m archspec {command} {ROOT}/specs/lenet.yaml {closed}",
        shell=True, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip

    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert (tmp_path / "generated").exists() == command.startswith("generate")


def interrupted(arguments: list[object], patch: str, number: int) -> subprocess.CompletedProcess[str]:
    """Run the command and send it a signal once `patch` has printed `ready`."""
    script = f"import sys, time; sys.argv = {['archspec', *map(str, arguments)]!r}\n{patch}\n"
    # a job in the background of a shell ignores SIGINT, and its children too
    script += "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    script += "from archspec.cli.main import main; main()"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=30)
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


WAIT = "print('ready', flush=True); time.sleep(60)"


def test_sigterm_removes_temporary_files(tmp_path: Path) -> None:
    """`report -o` that is terminated before its file is renamed leaves the existing file and no temporary one."""
    (tmp_path / "a.md").write_text("before\n")
    patch = f"import pathlib\ndef replace(*_): {WAIT}\npathlib.Path.replace = replace"
    run = interrupted(["report", ALEXNET, "-o", tmp_path / "a.md"], patch, signal.SIGTERM)

    assert (run.returncode, run.stderr) == (143, "")
    assert [path.name for path in tmp_path.iterdir()] == ["a.md"]
    assert (tmp_path / "a.md").read_text() == "before\n"


def test_an_interrupt_has_no_traceback(tmp_path: Path) -> None:
    """Ctrl-C ends the command with exit status 130 and without a traceback."""
    patch = f"import pathlib\ndef replace(*_): {WAIT}\npathlib.Path.replace = replace"
    run = interrupted(["report", ALEXNET, "-o", tmp_path / "a.md"], patch, signal.SIGINT)

    assert run.returncode == 130
    assert "Traceback" not in run.stderr
    assert len(run.stderr.splitlines()) <= 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["check", "report"])
def test_an_interrupt_during_the_imports_has_no_traceback(command: str) -> None:
    """Ctrl-C before the command has started ends it as well with exit status 130 and without a traceback."""
    patch = f"import builtins; load = builtins.__import__\ndef wait(name, *rest):\n    if name == 'typer': {WAIT}\n"
    patch += "    return load(name, *rest)\nbuiltins.__import__ = wait"
    run = interrupted([command, ALEXNET], patch, signal.SIGINT)

    assert run.returncode == 130
    assert run.stderr == "archspec: interrupted\n"


def on_terminal(arguments: list[object], **environment: str) -> str:
    """Return what the command prints on a terminal."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "archspec", *map(str, arguments)]
    base = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    with subprocess.Popen(command, stdout=slave, stderr=slave, cwd=ROOT, env={**base, **environment}) as process:
        os.close(slave)
        text = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # Linux: the other end is closed
                break
            if not part:
                break
            text += part
        process.wait()
    os.close(master)
    return text.decode()


def test_a_terminal_has_colors_unless_no_color() -> None:
    """On a terminal the severity is red and disputed claims are struck through; with NO_COLOR there are no escapes."""
    arguments: list[object] = ["check", "tests/data/errors/groups.yaml", "specs/alexnet.yaml"]
    text = on_terminal(arguments)

    assert "\x1b[1;31merror\x1b[0m[groups]" in text
    assert "\x1b[9m253,440" in text
    assert "\x1b" not in on_terminal(arguments, NO_COLOR="1")


@pytest.mark.slow
def test_an_installed_wheel_generates_in_an_empty_folder(tmp_path: Path) -> None:
    """The wheel has the templates, engines and pages, and needs nothing of the checkout."""
    wheels, site, empty = tmp_path / "wheels", tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", wheels, ROOT], capture_output=True, text=True)
    assert build.returncode == 0, build.stderr
    (wheel,) = wheels.glob("archspec_nn-*.whl")
    install = subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], capture_output=True, text=True)
    assert install.returncode == 0, install.stderr
    shutil.copy(ALEXNET, empty / "alexnet.yaml")

    location = [sys.executable, "-c", "import archspec; print(archspec.__file__)"]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    imported_from = subprocess.run(location, cwd=empty, env=environment, capture_output=True, text=True)
    run = archspec_process("generate", "alexnet.yaml", cwd=empty, PYTHONPATH=str(site))

    assert imported_from.stdout.startswith(str(site))
    assert run.returncode == 0, run.stderr
    explained = archspec_process("explain", "window", cwd=empty, PYTHONPATH=str(site))
    assert explained.stdout.startswith("# window")
    report = archspec_process("report", "alexnet.yaml", "-o", "a.html", cwd=empty, PYTHONPATH=str(site))
    assert report.returncode == 0
    planned = planned_files(archspec.load(ALEXNET), None, empty / "generated")
    assert set(planned) == set((empty / "generated").rglob("*.py"))
    for path, text in planned.items():
        assert path.read_text().splitlines()[1:] == text.splitlines()[1:]  # without the spec's path


# --- train -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that `train` runs in place of itself; it needs the installed frameworks, and does not import them."""
    for name in ("torch", "tqdm"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    commands: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, command: commands.append(command))
    return commands


def test_train_generates_and_runs_the_program(tmp_path: Path, executed: list[list[str]]) -> None:
    """`train` writes the files of its target and runs train.py with the arguments after `--`."""
    run = archspec_command("train", ALEXNET, "--out", tmp_path, "--", "--data", "images", "--epochs", "1")
    folder = tmp_path / "alexnet" / "pytorch"

    assert run.returncode == 0, run.stderr
    assert executed == [[sys.executable, str(folder / "train.py"), "--data", "images", "--epochs", "1"]]
    assert {path.name for path in folder.iterdir()} == {"model.py", "recipe.py", "train.py", "engine"}
    assert [path.name for path in (tmp_path / "alexnet").iterdir()] == ["pytorch"]


def test_train_runs_edited_files_as_they_are(tmp_path: Path, executed: list[list[str]]) -> None:
    """`train` keeps edited files, names them except train.py, and replaces files that are out of date."""
    archspec_command("train", ALEXNET, "--out", tmp_path)
    folder = tmp_path / "alexnet" / "pytorch"
    model, recipe, program = (folder / name for name in ("model.py", "recipe.py", "train.py"))
    model.write_text(edited := model.read_text().replace("groups=2", "groups=1"))
    program.write_text(kept := program.read_text() + "# mine\n")
    spec = tmp_path / "spec.yaml"
    spec.write_text(ALEXNET.read_text().replace("batch_size: 128", "batch_size: 64"))
    assert "BATCH_SIZE = 128" in recipe.read_text()
    run = archspec_command("train", spec, "--out", tmp_path)

    assert run.returncode == 0
    assert run.stderr == f"archspec: {model} was edited by hand, and runs as it is\n"
    assert (model.read_text(), program.read_text()) == (edited, kept)
    assert "BATCH_SIZE = 64" in recipe.read_text()
    assert len(executed) == 2


@pytest.mark.parametrize(
    "arguments",
    [["specs/alexnet_keras_mnist.yaml"], ["specs/alexnet.yaml", "--target", "numpy"], ["specs"]],
    ids=" ".join,
)
def test_train_without_a_recipe_or_a_program_is_a_usage_error(arguments: list[str], executed: list[list[str]]) -> None:
    """A spec without a recipe, a target without a program, and a folder of specs have exit status 2."""
    assert archspec_command("train", *arguments).returncode == 2
    assert executed == []


@pytest.mark.slow
@pytest.mark.frameworks
def test_the_program_of_train_has_its_own_exit_status(tmp_path: Path) -> None:
    """The program runs in place of the command: its messages and exit status are the command's."""
    pytest.importorskip("torch")
    arguments = ["--out", tmp_path, "--", "--data", tmp_path / "nowhere", "--output", tmp_path / "run"]
    run = archspec_process("train", ALEXNET, *arguments)

    assert run.returncode == 2
    assert str(tmp_path / "nowhere") in run.stderr.strip().splitlines()[-1]
    assert "Traceback" not in run.stderr


# --- explain ---------------------------------------------------------------------------------------------------------


def test_explain_prints_the_page_of_a_code() -> None:
    """`explain window` prints the page of the code; a misspelled code is a usage error with a suggestion."""
    slip = archspec_command("explain", "unknwn-key")

    assert archspec_command("explain", "window").stdout.startswith("# window\n")
    assert (slip.returncode, slip.stdout) == (2, "")
    assert "did you mean 'unknown-key'?" in slip.stderr


def test_explain_prints_the_page_of_an_op() -> None:
    """`explain conv2d` prints what the op computes, its inputs, and a table of its attributes."""
    text = archspec_command("explain", "conv2d").stdout

    assert text.startswith("# conv2d\n")
    assert "y[o] = bias[o] + sum over i of weight[o, i] cross-correlated with x[i], as torch.nn.Conv2d." in text
    assert "| `out_channels` | whole number | required |\n" in text
    assert "| `stride` | a number or `[height, width]` | 1 |\n" in text
    assert "Inputs: one layer.\n" in text
    assert "Inputs: 1 or more layers" in archspec_command("explain", "add").stdout


def test_explain_lists_every_topic_with_a_line_each() -> None:
    """`explain` lists every code and every name of the language in one line each."""
    from archspec.language.diagnostics import codes
    from archspec.language.ops import OPS

    lines = [line.split(maxsplit=1) for line in archspec_command("explain").stdout.splitlines() if line[:2] == "  "]
    names = [name for name, _ in lines]

    assert {*codes(), *OPS} < set(names)
    recipe = "adam adamw caffe_sgd sgd cosine exponential multi_step reduce_on_plateau step center_crop horizontal_flip"
    recipe += " normalize pca_noise random_crop random_resized_crop rescale resize subtract_mean ten_crop"
    rules = "kaiming_normal kaiming_uniform normal ones torch_default truncated_normal uniform xavier_normal zeros"
    constant = ["constant", "constant"]  # an initializer and a schedule
    assert sorted(names) == sorted([*codes(), *OPS, *recipe.split(), *rules.split(), "xavier_uniform", *constant])
    assert all(text.endswith(".") for _, text in lines)


def test_explain_has_pages_for_optimizers_and_other_choices() -> None:
    """The page of an optimizer has its formula and defaults; a name with two meanings has two pages."""
    sgd, constant = archspec_command("explain", "sgd").stdout, archspec_command("explain", "constant").stdout

    assert "w <- w - lr b" in sgd
    assert "| `momentum` | number | 0 |" in sgd
    assert "| `value` | number | required |" in constant
    assert "| `warmup` | whole number | 0 |" in constant


def test_explain_has_a_page_for_every_op() -> None:
    """The page of every op has all its attributes with types and defaults."""
    from archspec.language.ops import OPS
    from archspec.language.ops.base import Op

    for name, model in OPS.items():
        text = archspec_command("explain", name).stdout.split("\n# ")[0]  # a transform's page may follow
        fields = [field for field in model.model_fields if field not in Op.model_fields]
        rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| `")]
        assert [row[0].strip(" `") for row in rows] == fields
        assert all(cell.strip() for row in rows for cell in row)


def test_compare_has_an_exit_status_for_differences() -> None:
    """`compare --exit-code` has exit status 1 for two networks that differ, and else 0."""
    different = ["compare", "specs/alexnet.yaml", "specs/alexnet_towers.yaml"]
    same = ["compare", "specs/alexnet.yaml", "specs/alexnet.yaml"]
    statuses = [
        archspec_command(*arguments, *option).returncode
        for arguments in (different, same)
        for option in ([], ["--exit-code"])
    ]

    assert statuses == [0, 1, 0, 0]
    data = json.loads(archspec_command(*same, "--format", "json", "--exit-code").stdout)
    assert all(not layer["differs"] for layer in data["layers"])
