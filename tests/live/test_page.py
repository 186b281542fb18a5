"""The live page in Chromium: what is typed is checked, completed, drawn, saved and followed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from helpers import ROOT

from archspec.live.folder import Folder
from archspec.live.server import PAGE, Server

SPEC = """archspec: 1
name: net
source: "<img src=x onerror=alert(1)> </script><script>alert(2)</script>"
input: {channels: 3, height: 8, width: 8}
layers:
  - {name: conv1, op: conv2d, out_channels: 4, kernel_size: 3}
  - {name: relu1, op: relu}
claims: [{weight_layers: 1, says: "<b onclick=alert(3)>one</b>", where: "<script>"}]
"""

HEAD = "archspec: 1\nname: net\n"
ROW = f"{HEAD}layers:\n  - {{name: c, op: conv2d, "
# The text before the cursor, options that must be there, and options that must not. None: there are none at all.
COMPLETED: list[tuple[str, set[str] | None, set[str]]] = [
    ("", {"archspec", "input", "layers", "claims"}, {"op"}),
    (HEAD, {"input", "layers", "training"}, {"archspec", "name", "op"}),
    (f"{HEAD}training:\n  ", {"optimizer", "batch_size", "epochs"}, {"layers"}),
    (f"{HEAD}training:\n  loss: cross_entropy\n  opt", {"optimizer"}, {"loss"}),
    (f"{HEAD}training:\n  loss: ", {"cross_entropy"}, {"optimizer"}),
    (f"{HEAD}training: {{optimizer: ", {"{sgd: }", "{adam: }"}, {"loss"}),
    (f"{HEAD}training: {{optimizer: {{sgd: {{", {"lr", "momentum", "nesterov"}, {"eps"}),
    (f"{HEAD}training:\n  loss: cross_entropy  # a comment\n", {"input", "layers"}, {"optimizer"}),
    (f"{HEAD}layers:\n  - ", {"name", "op"}, {"layers"}),
    (f"{HEAD}layers:\n- name: c\n  op: ", {"conv2d", "relu", "stage"}, {"layers"}),
    (f"{HEAD}layers:\n  - name: c\n    op: conv2d\n    ", {"out_channels", "padding"}, {"op", "p"}),
    (f"{HEAD}layers:\n  - name: c\n    op: conv2d\n  - name: d\n    op: dropout\n    ", {"p"}, {"out_channels"}),
    (ROW, {"out_channels", "groups", "from", "repeat"}, {"op", "name", "p"}),
    (f"{ROW}groups: 2, ", {"out_channels"}, {"groups"}),
    (f"{ROW}padding: ", {"same"}, {"out_channels"}),
    (f"{ROW}padding: {{", {"top", "left"}, {"out_channels"}),
    (f"{ROW}bias: ", {"true", "false"}, {"same"}),
    (f"{ROW}from: ", {"input", "conv1"}, {"same"}),
    (f"{ROW}from: [input, ", {"input", "conv1"}, {"same"}),
    (f"{ROW}init: {{weight: {{normal: {{", {"mean", "std"}, {"a"}),
    (f"{ROW}out_channels: 4}}\n  - {{op: ", {"relu"}, {"out_channels"}),
    (f"{HEAD}# a comment, op", None, set()),
    (f"{HEAD}source: 'text, op", None, set()),
    (f"{HEAD}layers:", None, set()),
]


def chromium() -> str:
    """Return the browser; skip the test without one."""
    pytest.importorskip("playwright")
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser:
        pytest.skip("no Chromium: apt install chromium")
    return browser


@pytest.mark.slow
def test_the_page_works_in_a_browser(tmp_path: Path) -> None:
    """A user types a mistake, completes a key, saves, opens every panel, and edits the file elsewhere."""
    browser = chromium()
    path = tmp_path / "net.yaml"
    path.write_text(SPEC)
    server = Server(Folder(tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        arguments = [sys.executable, str(ROOT / "tests" / "helpers" / "browse_live.py"), browser, server.url, str(path)]
        texts = json.dumps([text for text, _, _ in COMPLETED])
        run = subprocess.run(arguments, input=texts, capture_output=True, text=True, timeout=180)
    finally:
        server.shutdown()
        server.server_close()
    assert run.returncode == 0, run.stderr
    page = json.loads(run.stdout)

    (conflict,) = page["errors"]  # Chromium reports an answer that is no success
    assert "412 (Precondition Failed)" in conflict
    assert len(page["ms"]) == 12  # the page says how long each edit took; benchmarks are no tests
    assert all(url.startswith(server.url) for url in page["requests"])
    assert page["first"] == ["conv1 | conv2d | 4, 3 x 3 | 4 x 6 x 6 | 112 | 3,888", "relu1 | relu |  | 4 x 6 x 6 |  | "]
    assert page["source"] == "<img src=x onerror=alert(1)> </script><script>alert(2)</script>"
    assert page["images"] == 0
    assert page["completions"] == ["padding"]
    assert page["problems"] == ["6:64 error conv1: conv2d has no key 'pad'; write `padding` unknown-key"]
    assert (page["marked"], page["link"], page["stale"]) == (["pad"], "explain/unknown-key.html", "stale")
    assert page["fixed"] == []
    assert page["typed"][0] == "conv1 | conv2d | 4, 3 x 3, padding 1 | 4 x 8 x 8 | 112 | 6,912"
    assert page["saved"] == "  - {name: conv1, op: conv2d, out_channels: 4, kernel_size: 3, padding: 1}"
    assert (
        page["arithmetic"][1]
        == "(height + top + bottom - dilation * (kernel_size - 1) - 1) // stride + 1\n= (8 + 1 + 1 - 1 * (3 - 1) - 1) // 1 + 1 = 8"
    )
    assert page["drawing"] == ["input", "conv1"]
    assert "self.conv1 = nn.Conv2d(3, 4, kernel_size=3, padding=1)" in page["torch"]
    assert "layers.Conv2D(" in page["keras"]
    assert page["claims"] == 1
    assert page["followed"] == "  - {name: conv1, op: conv2d, out_channels: 7, kernel_size: 3, padding: 1}"
    assert (
        page["unsaved"]
        == page["loaded"]
        == "  - {name: conv1, op: conv2d, out_channels: 9, kernel_size: 3, padding: 1}"
    )
    for (text, expected, others), options in zip(COMPLETED, page["options"], strict=True):
        assert (options is None) == (expected is None), text
        assert (expected or set()) <= set(options or ()), (text, options)
        assert not others & set(options or ()), (text, options)


def test_the_editor_is_the_one_that_its_script_builds() -> None:
    """The versions in the file's first line are those of scripts/editor, whose licences are beside it; it is small."""
    packages = json.loads((ROOT / "scripts" / "editor" / "package.json").read_text())["dependencies"]
    text = (PAGE / "codemirror.min.js").read_text()
    licences = (PAGE / "codemirror.LICENSE").read_text()

    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    assert text.startswith(f"/* MIT, see codemirror.LICENSE: {versions} */\n")
    assert len(text) < 400_000
    assert [name for name in packages if name not in licences] == []
