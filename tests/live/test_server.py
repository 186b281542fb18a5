"""The server of the live page: who may ask it, what it reads and writes, and that bad input never hangs it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
from helpers import DATA, ROOT, archspec_command

from archspec.language import reference
from archspec.language.diagnostics import codes
from archspec.live.folder import Folder
from archspec.live.server import PAGE, Server
from archspec.live.worker import Worker, WorkerError

GOOD = "archspec: 1\nname: net\ninput: {channels: 3, height: 8, width: 8}\nlayers:\n  - {name: c, op: conv2d, out_channels: 4, kernel_size: 3}\n"
ERRORS = sorted((DATA / "errors").glob("*.yaml"))


class Client:
    """Asks a server as a browser does, on one connection."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.base = urlsplit(server.url).path
        self.connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)

    def ask(
        self, method: str, action: str, body: str | bytes = b"", headers: dict[str, str] | None = None, **query: object
    ) -> tuple[int, Any, bytes]:
        """Return status, headers and body of the answer."""
        address = f"{self.base}{action}" + (f"?{urlencode(query)}" if query else "")
        self.connection.request(method, address, body.encode() if isinstance(body, str) else body, headers or {})
        answer = self.connection.getresponse()
        return answer.status, answer.headers, answer.read()

    def post(self, action: str, text: str | bytes, **query: object) -> Any:
        """Return the data of an answer."""
        status, _, body = self.ask("POST", action, text, name="net.yaml", **query)
        assert status == 200, body
        return json.loads(body)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of a folder with a spec, a file of claims, and a link out of the folder."""
    folder = tmp_path_factory.mktemp("served") / "specs"
    folder.mkdir()
    (folder / "net.yaml").write_text(GOOD)
    (folder / "net.claims.yaml").write_text("archspec: 1\n")
    (folder / "notes.txt").write_text("no spec\n")
    (folder.parent / "secret.yaml").write_text("secret: 1\n")
    (folder / "link.yaml").symlink_to("../secret.yaml")
    made = Server(Folder(folder))
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A connection to the server, whose spec is as it was at first."""
    (server.folder.path / "net.yaml").write_text(GOOD)
    made = Client(server)
    yield made
    made.connection.close()


# --- who may ask -----------------------------------------------------------------------------------------------------


def test_the_server_listens_on_this_machine_only(server: Server, client: Client) -> None:
    """On the loopback address, at an address with 192 random bits, with headers that keep other pages out."""
    assert server.server_address[0] == "127.0.0.1"
    assert re.fullmatch(r"/[\w-]{32}/", client.base)
    status, headers, body = client.ask("GET", "")
    assert (status, body) == (200, (PAGE / "index.html").read_bytes())
    assert (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"
        in headers["Content-Security-Policy"]
    )
    assert (headers["Referrer-Policy"], headers["X-Content-Type-Options"]) == ("no-referrer", "nosniff")
    assert not [name for name in headers if name.lower().startswith("access-control-")]


@pytest.mark.parametrize("path", ["/", "/specs", "/x/", "/x/specs", "//specs", "/%s", "/é/specs", "*", "//[", "x"])
def test_a_wrong_token_is_not_found(path: str, client: Client) -> None:
    """Every address without the token is the same error, in words for who forgot it."""
    client.base = ""
    status, _, body = client.ask("GET", quote(path.replace("%s", client.server.token[:-1]), safe="/*["))

    assert status == 404
    assert b"open the address that archspec serve printed" in body


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:PORT"}, 421),
        ({"Host": "127.0.0.1"}, 421),
        ({"Host": "127.0.0.1:PORT"}, 200),
        ({"Host": "localhost:PORT"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:PORT"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
@pytest.mark.parametrize(("method", "action"), [("GET", "specs"), ("POST", "check"), ("PUT", "spec")])
def test_a_page_of_another_site_is_refused(
    headers: dict[str, str], status: int, method: str, action: str, client: Client
) -> None:
    """By name (DNS rebinding) and by origin, though it knows the token."""
    sent = {name: value.replace("PORT", str(client.server.server_port)) for name, value in headers.items()}
    found, answered, _ = client.ask(method, action, GOOD, sent, name="net.yaml", version="0")

    assert found == (412 if status == 200 and method == "PUT" else status)
    assert "Access-Control-Allow-Origin" not in answered


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD", "DELETE", "PATCH"])
def test_other_methods_are_not_there(method: str, client: Client) -> None:
    """Without OPTIONS no other site gets leave for a PUT or a POST of YAML."""
    assert client.ask(method, "specs")[0] == 501


def test_a_body_that_is_too_large_is_refused_unread(client: Client) -> None:
    """By its Content-Length; and one without a length is refused."""
    assert client.ask("POST", "check", b"", {"Content-Length": "99999999999"})[0] == 413
    client.connection.close()
    assert client.ask("POST", "check", b"", {"Content-Length": "-1"})[0] == 411
    client.connection.close()
    assert client.ask("POST", "check", b"0\r\n\r\n", {"Transfer-Encoding": "chunked"})[0] == 411


# --- files -----------------------------------------------------------------------------------------------------------


def test_only_specs_of_the_folder_are_read_and_written(client: Client) -> None:
    """No other file, no file of another folder, and no link out of it."""
    assert json.loads(client.ask("GET", "specs")[2]) == ["link.yaml", "net.yaml"]
    for name in (
        "",
        "../secret.yaml",
        "/etc/passwd",
        "notes.txt",
        "net.claims.yaml",
        "none.yaml",
        "net.yaml\0",
        "./net.yaml",
    ):
        for method, action in (
            ("GET", "spec"),
            ("PUT", "spec"),
            ("POST", "check"),
            ("POST", "code"),
            ("POST", "layer"),
        ):
            assert client.ask(method, action, GOOD, name=name, target="torch")[0] == 404, (name, action)
    assert client.ask("GET", "spec", name="link.yaml")[0] == 500
    assert client.ask("PUT", "spec", GOOD, name="link.yaml")[0] == 500
    assert (client.server.folder.path.parent / "secret.yaml").read_text() == "secret: 1\n"
    for asset in ("../server.py", "%2e%2e/server.py", "__init__.py", "page/live.js", "explain/../live.js"):
        assert client.ask("GET", asset)[0] == 404


def test_a_spec_is_saved_unless_another_program_changed_it(client: Client) -> None:
    """The bytes are those that were sent; a version that is no longer the file's is a conflict, and nothing is written."""
    path = client.server.folder.path / "net.yaml"
    status, headers, body = client.ask("GET", "spec", name="net.yaml")
    assert (status, body.decode()) == (200, GOOD)
    text = GOOD.replace("8", "9").replace("\n", "\r\n") + "# \u00e9"
    status, written, _ = client.ask("PUT", "spec", text, name="net.yaml", version=headers["Version"])
    assert (status, path.read_bytes().decode()) == (200, text)
    assert client.ask("GET", "spec", name="net.yaml", version=written["Version"])[0] == 204
    path.write_text("another\n")
    assert client.ask("PUT", "spec", GOOD, name="net.yaml", version=written["Version"])[0] == 412
    assert path.read_text() == "another\n"
    assert sorted(p.name for p in path.parent.iterdir()) == ["link.yaml", "net.claims.yaml", "net.yaml", "notes.txt"]


def test_a_link_that_is_named_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that it leads to, in its own folder."""
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "net.yaml").write_text(GOOD)
    (tmp_path / "link.yaml").symlink_to("specs/net.yaml")
    served: list[Folder] = []
    monkeypatch.setattr("archspec.live.server.Server.serve_forever", lambda server: served.append(server.folder))
    run = archspec_command("serve", tmp_path / "link.yaml")

    assert run.returncode == 0
    assert run.stdout.startswith("http://127.0.0.1:")
    assert [folder.read("net.yaml").decode() for folder in served] == [GOOD]


def test_one_spec_can_be_served_alone(tmp_path: Path) -> None:
    """The other specs of its folder are neither read nor written."""
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(GOOD)
    folder = Folder(tmp_path, "a.yaml")

    assert folder.names() == ["a.yaml"]
    with pytest.raises(FileNotFoundError):
        folder.read("b.yaml")


# --- content ---------------------------------------------------------------------------------------------------------


def test_the_panels_of_a_spec(client: Client) -> None:
    """Table, drawing, claims and counts come each for its own panel, with the sums and the names for completion."""
    text = GOOD + "claims: [{params: 112}, {params: 113, says: wrong}]\n"
    found = client.post("check", text, panel="layers")
    assert [(d["line"], d["code"]) for d in found["diagnostics"]] == [(6, "false-claim")]
    network = found["network"]
    assert network["layers"]["rows"] == [["c", "conv2d", "4, 3 x 3", "4 x 6 x 6", "112", "3,888"]]
    assert (network["names"], network["blocks"], network["depth"]) == (["input", "c"], [], 0)
    assert client.post("check", text, panel="drawing")["network"]["drawing"].startswith("<svg ")
    assert client.post("check", text, panel="claims")["network"]["claims"]["states"] == ["true", "false"]
    assert client.post("check", text, panel="counts")["network"]["counts"][0]["title"] == "Totals"
    assert set(client.post("check", text, panel="torch")["network"]) == {
        "name",
        "source",
        "sums",
        "names",
        "blocks",
        "depth",
    }


def test_the_arithmetic_of_a_row(client: Client) -> None:
    """Of a layer, or of every layer of a block; a row that is not there and a spec with errors have none."""
    found = client.post("layer", GOOD, row=0)
    assert found["line"] == 5
    assert found["layers"][0]["formulas"][3] == [
        "weight",
        "out_channels * (channels // groups) * kernel_size * kernel_size",
        "4 * (3 // 1) * 3 * 3",
        "108",
    ]
    resnet = (ROOT / "specs" / "resnet18.yaml").read_text()
    block = client.post("layer", resnet, row=4)
    assert [layer["name"] for layer in block["layers"]][:2] == ["layer1.0.conv1", "layer1.0.bn1"]
    assert [layer["name"] for layer in client.post("layer", resnet, row=4, depth=1)["layers"]][-1] == "layer1.0.relu2"
    assert client.post("layer", GOOD, row=9)["layers"] == client.post("layer", "x", row=0)["layers"] == []


def test_code_is_what_generate_writes(client: Client, tmp_path: Path) -> None:
    """The model and, with training, the recipe; what does not depend on the spec is left out."""
    lenet = (ROOT / "specs" / "lenet.yaml").read_text()
    for target, folder in (("torch", "pytorch"), ("keras", "keras")):
        found = client.post("code", lenet, target=target)
        assert list(found["files"]) == [f"{folder}/model.py", f"{folder}/recipe.py"]
        generated = (ROOT / "generated" / "lenet" / folder / "model.py").read_text()
        assert generated.endswith(found["files"][f"{folder}/model.py"])
    assert client.post("code", "archspec: 1\n", target="torch")["diagnostics"]
    assert client.ask("POST", "code", GOOD, name="net.yaml", target="numpy/../x")[0] == 404


@pytest.mark.parametrize("path", ERRORS, ids=lambda path: path.stem)
def test_a_spec_with_errors_has_the_diagnostics_of_check(path: Path, client: Client) -> None:
    """Every bad input here is answered in the time of a request, with place, code and message."""
    start = time.perf_counter()
    status, _, body = client.ask("POST", "check", path.read_bytes(), name="net.yaml", panel="layers")
    assert time.perf_counter() - start < 10
    if status == 400:
        assert body == b"not UTF-8\n"
        return
    found = json.loads(body)["diagnostics"]
    golden = re.findall(r"^[\w.]+:(\d+):(\d+): error\[([\w-]+)\]", path.with_suffix(".txt").read_text(), re.M)
    assert [(str(d["line"]), str(d["column"]), d["code"]) for d in found] == golden


def test_texts_of_a_spec_are_sent_as_data(client: Client) -> None:
    """Markup in a spec is a string in JSON that no browser takes for a page; in the drawing it is escaped."""
    text = GOOD.replace("name: net\n", "name: net\nsource: '</script><img src=x onerror=alert(1)>'\n")
    status, headers, body = client.ask("POST", "check", text, name="net.yaml", panel="drawing")

    assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    assert json.loads(body)["network"]["source"] == "</script><img src=x onerror=alert(1)>"
    assert "<img" not in json.loads(body)["network"]["drawing"]


def test_every_name_has_a_page(client: Client) -> None:
    """The link of a diagnostic leads to the page of its code."""
    for topic in [*codes(), *sorted(reference.TOPICS)]:
        status, headers, body = client.ask("GET", f"explain/{topic}.html")
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert f"<h1>{topic}</h1>" in body.decode()


def test_names_without_a_page_are_not_found(client: Client) -> None:
    """A name of the address is not put into a page."""
    assert client.ask("GET", "explain/%3Cscript%3E")[0] == 404
    assert client.ask("GET", "explain/")[0] == 404


# --- time ------------------------------------------------------------------------------------------------------------


def test_a_request_that_takes_too_long_is_ended() -> None:
    """The process is replaced, and answers the next request."""
    relus = "".join(f"  - {{name: r{i}, op: relu}}\n" for i in range(20_000))
    worker = Worker(limit=60)
    try:
        assert worker.ask("check", GOOD, "net.yaml")["network"]["name"] == "net"
        worker.limit = 0.05
        with pytest.raises(WorkerError, match=r"it took more than 0\.05 s"):
            worker.ask("check", GOOD.partition("  -")[0] + relus, "net.yaml")
        worker.limit = 60
        assert worker.ask("check", GOOD, "net.yaml")["network"]["name"] == "net"
        assert worker._process
        worker._process.kill()
        with pytest.raises(WorkerError, match="has ended"):
            worker.ask("check", GOOD, "net.yaml")
        with pytest.raises(WorkerError, match="AttributeError"):
            worker.ask("nothing")
    finally:
        worker.stop()


# --- the command -----------------------------------------------------------------------------------------------------


@contextmanager
def killed_at_the_end(process: Any) -> Iterator[None]:
    """End a process if it still runs, so that a test that fails does not wait for it."""
    try:
        yield
    finally:
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_ended(number: int, tmp_path: Path) -> None:
    """It prints the address first, and leaves no process behind."""
    (tmp_path / "net.yaml").write_text(GOOD)
    command = [sys.executable, "-m", "archspec", "serve", str(tmp_path / "net.yaml")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    # a shell has its background jobs ignore SIGINT
    heeds = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    with subprocess.Popen(command, preexec_fn=heeds, **pipes) as run, killed_at_the_end(run):
        assert run.stdout
        url = urlsplit(run.stdout.readline().strip())
        connection = http.client.HTTPConnection(url.netloc, timeout=60)
        connection.request("POST", f"{url.path}check?name=net.yaml", GOOD)
        assert json.loads(connection.getresponse().read())["network"]["name"] == "net"
        connection.close()
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        run.send_signal(number)
        _, errors = run.communicate(timeout=30)
    assert (run.returncode, errors) == (0 if number == signal.SIGINT else 143, "")
    assert len(children) >= 2
    end = time.monotonic() + 30  # multiprocessing's own helper ends a moment later
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < end:
        time.sleep(0.01)
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "archspec: no such file or folder: nowhere\n"),
        (["."], "archspec: no specs in the folder .\n"),
        (["notes.txt"], "archspec: notes.txt is not a .yaml file\n"),
    ],
)
def test_what_cannot_be_served_is_a_usage_error(arguments: list[str], message: str, tmp_path: Path) -> None:
    """With exit status 2."""
    (tmp_path / "notes.txt").write_text("")
    run = archspec_command("serve", *arguments, cwd=tmp_path)

    assert (run.returncode, run.stdout, run.stderr) == (2, "", message)
