"""The house itself: its floors, its tools, its documents."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest
from conftest import OP_SPECS, ROOT, SPECS
from test_ops import OPS, RULES

import archspec
from archspec.ops import Op
from archspec.spec import Spec

# A module imports only from floors below its own, or from its own folder.
FLOORS = {
    "names": 0,
    "source": 0,
    "layout": 0,
    "files": 0,
    "inits": 1,
    "training": 1,
    "ops": 2,
    "spec": 3,
    "graph": 4,
    "analysis": 5,
    "lint": 5,
    "memory": 6,
    "schema": 4,
    "diagnostics": 1,
    "weights": 5,
    "conventions": 6,
    "claims": 6,
    "emit": 6,
    "report": 7,
    "workers": 7,
    "verify": 7,
    "race": 8,
    "cli": 9,
    "__main__": 10,
}


def test_a_module_imports_only_from_floors_below_its_own() -> None:
    """The straight line of the design, held by its imports."""
    house = ROOT / "archspec"
    for path in house.rglob("*.py"):
        room = path.relative_to(house).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not str(node.module).startswith("archspec"):
                continue
            words = str(node.module).split(".")[1:] or [alias.name for alias in node.names]
            for word in words[:1]:
                if word in FLOORS and word != room:
                    assert FLOORS[word] < FLOORS[room], f"{path.name} imports {word}"


def test_only_workers_import_a_framework() -> None:
    """Python knows no framework, but for the processes that run them."""
    for path in (ROOT / "archspec").rglob("*.py"):
        text = path.read_text()
        if path.parent.name == "workers":
            assert "archspec." not in "".join(re.findall(r"^\s*(?:from|import) .*", text, re.M))
        else:
            assert not re.search(r"^\s*(from|import) (torch|keras|tensorflow|jax)\b", text, re.M), path


def test_only_the_command_prints() -> None:
    """`print` to a person stands in cli.py alone; workers answer on their own output."""
    for path in (ROOT / "archspec").rglob("*.py"):
        if path.name not in ("cli.py", "protocol.py"):
            text = path.read_text().replace("_printable(", "")
            assert "print(" not in text.replace("print(json.dumps(job), file=", ""), path


@pytest.mark.parametrize("words", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=" ".join)
def test_the_repositorys_own_tools_pass(words: list[str]) -> None:
    """What a commit's hooks run, the tests run too."""
    ran = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True)

    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_readme_names_every_op_attribute_and_rule() -> None:
    """The table of the language is whole."""
    readme = (ROOT / "README.md").read_text()
    for op, model in OPS.items():
        for word in (op, *(field for field in model.model_fields if field not in Op.model_fields)):
            assert f"`{word}`" in readme, word
    for rule in RULES:
        assert rule in readme, rule


def test_the_readmes_first_spec_is_what_it_says(tmp_path: object) -> None:
    """The spec, the table and the totals on the first screen are what the command prints."""
    from archspec.report import table

    readme = (ROOT / "README.md").read_text()
    text = readme.split("```yaml\n")[1].split("```")[0]
    shown = readme.split("$ archspec check lenet_relu.yaml\n")[1].split("$ archspec generate")[0]
    printed = "\n".join(table(archspec.build(archspec.Source.parse(text))))

    assert printed.partition("\n\n")[2].strip() == shown.strip()


def test_the_readmes_error_is_what_is_said() -> None:
    """The diagnostic in the README is AlexNet's own line with a slip of the pen."""
    text = (ROOT / "specs" / "alexnet.yaml").read_text()
    with pytest.raises(archspec.SpecError) as caught:
        archspec.build(archspec.Source.parse(text.replace("padding: 2", "paddding: 2"), "specs/alexnet.yaml"))
    told = "\n".join(f"    {line}" for line in str(caught.value).splitlines())

    assert told in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", [*SPECS, *OP_SPECS], ids=lambda path: path.stem)
def test_every_spec_of_the_house_is_good(path: object) -> None:
    """Each loads, and its name is its file's or says what it is one of."""
    graph = archspec.load(str(path))

    assert isinstance(graph.spec, Spec)
    assert graph.name.removeprefix("one_") == getattr(path, "stem", None)
