"""The live page as files: its content is the server's, its Python is complete, and it works in Chromium without a server."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from functools import partial
from pathlib import Path

import pytest
from helpers import ROOT, archspec_command

from archspec.live import content, static

SPEC = """archspec: 1
name: net
input: {channels: 3, height: 8, width: 8}
layers:
  - {name: conv1, op: conv2d, out_channels: 4, kernel_size: 3}
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a page that the command wrote, with empty files for Pyodide's."""
    folder = tmp_path_factory.mktemp("static")
    for name in (*static.RUNTIME, static.CORE):
        (folder / "runtime").mkdir(exist_ok=True)
        (folder / "runtime" / name).touch()
    (folder / "net.yaml").write_text(SPEC)
    run = archspec_command("serve", "net.yaml", "--static", "page", "--runtime", "runtime", cwd=folder)
    assert (run.returncode, run.stdout, run.stderr) == (0, "page/index.html\n", "")
    return folder / "page"


def test_the_content_of_a_spec_is_written_with_the_page(written: Path) -> None:
    """It is what the server sends, so that nothing has to be computed before the first edit."""
    found = json.loads((written / "content" / "net.yaml.json").read_text())

    assert found["panels"] == {panel: content.check(SPEC, "net.yaml", panel) for panel in content.PANELS}
    assert found["code"]["keras"] == content.code(SPEC, "net.yaml", "keras")
    assert json.loads((written / "specs.json").read_text()) == ["net.yaml"]
    assert (written / "specs" / "net.yaml").read_text() == SPEC
    assert "canSave = false" in (written / "engine.js").read_text()
    assert (written / "explain" / "unknown-key.html").is_file()
    assert "script-src 'self'; worker-src 'self'" in (written / "index.html").read_text()


def test_the_python_of_the_page_is_complete(written: Path, tmp_path: Path) -> None:
    """It imports the standard library, pydantic_core and what is in its archive, neither a framework nor a compiled part."""
    with zipfile.ZipFile(written / "pyodide" / "packages.zip") as archive:
        archive.extractall(tmp_path)
    program = f"""
import json, sys
sys.path.insert(0, {str(tmp_path)!r})
sys.modules["ruff"] = None  # which a browser does not have
from archspec.live import content
content.find_spec = lambda name: None
spec = {SPEC!r}
assert content.check(spec, "net.yaml", "drawing")["network"]["drawing"]
assert "nn.Conv2d" in content.code(spec, "net.yaml", "torch")["files"]["pytorch/model.py"]
assert content.layer(spec, "net.yaml", 0, 0)["layers"]
files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
print(json.dumps([file for file in files if file]))
"""
    run = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    outside = [file for file in json.loads(run.stdout) if "site-packages" in file and "pydantic_core" not in file]
    own = [file for file in json.loads(run.stdout) if str(ROOT / "archspec") in file]

    assert [file for file in outside if not re.search("__editable__|_distutils_hack", file)] == []
    assert own == []


def test_a_runtime_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    """The message says what to run; nothing is written."""
    (tmp_path / "net.yaml").write_text(SPEC)
    run = archspec_command("serve", "net.yaml", "--static", "page", cwd=tmp_path)

    assert run.returncode == 2
    assert (
        run.stderr
        == "archspec: no pyodide.mjs in build/pyodide: run scripts/pyodide.py, or name its folder with --runtime\n"
    )
    assert not (tmp_path / "page").exists()


@pytest.mark.slow
def test_the_page_works_without_a_server(tmp_path: Path) -> None:
    """Chromium loads it from a server of files, offline; Python starts at the first edit, and answers."""
    pytest.importorskip("playwright")
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    runtime = ROOT / "build" / "pyodide"
    if not browser or not runtime.is_dir():
        pytest.skip("needs Chromium, and Pyodide: python scripts/pyodide.py")
    run = archspec_command("serve", "specs/alexnet.yaml", "--static", tmp_path, "--runtime", runtime)
    assert run.returncode == 0, run.stderr

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/index.html"
        arguments = [sys.executable, str(ROOT / "tests" / "helpers" / "browse_static.py"), browser, address]
        run = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
        server.shutdown()
    assert run.returncode == 0, run.stderr
    page = json.loads(run.stdout)

    assert page["errors"] == []
    assert all(url.startswith(address.removesuffix("index.html")) for url in page["requests"])
    assert not any("pyodide" in url for url in page["first_requests"])
    assert page["first"].startswith("conv1\tconv2d\t96, 11 x 11, stride 4\t96 x 55 x 55")
    assert page["problems"] == ["19:77 error conv1: conv2d has no key 'pad'; write `padding` unknown-key"]
    assert page["edited"].startswith("conv1\tconv2d\t96, 11 x 11, stride 4, padding 1\t96 x 55 x 55")
    assert page["arithmetic"].endswith("= (227 + 1 + 1 - 1 * (11 - 1) - 1) // 4 + 1 = 55")
    assert "nn.Conv2d(3, 96, kernel_size=11, stride=4, padding=1)" in page["torch"]
