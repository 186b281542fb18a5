"""The server of the live page, which answers this machine only, at an address with a random token.

A page of another site does not have the token. If it had, it could not use a name of its own that resolves to
127.0.0.1, because `Host` is checked, and it could not read an answer, because there are no CORS headers.
"""

from __future__ import annotations

import json
import secrets
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote

from archspec.language import schema
from archspec.language.source import MAX_BYTES
from archspec.live import content
from archspec.live.folder import ConflictError, Folder, version_of
from archspec.live.worker import LIMIT, Worker, WorkerError
from archspec.report.drawing import css
from archspec.targets import TRAINED

PAGE = Path(__file__).parent / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
MAX_DEPTH = 64
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the address is a secret
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


@cache
def _schema() -> bytes:
    return schema.text().encode()


class RefusedError(Exception):
    """A request that is answered with a status and a line of text."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Server(ThreadingHTTPServer):
    """Serves the page of a folder on 127.0.0.1, at `url`."""

    daemon_threads = True

    def __init__(self, folder: Folder, port: int = 0, limit: float = LIMIT) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.folder = folder
        self.token = secrets.token_urlsafe(24)
        self.checks = Worker(limit)
        self.codes = Worker(limit)  # so that a check does not wait for the formatting of code
        for worker in (self.checks, self.codes):
            Thread(target=worker.start, daemon=True).start()

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"

    def server_close(self) -> None:
        """Stop listening, and end the processes."""
        super().server_close()
        self.checks.stop()
        self.codes.stop()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a connection that ended in between."""


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of the page."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "archspec"
    sys_version = ""
    wbufsize = -1  # an answer is sent as one
    disable_nagle_algorithm = True
    timeout = 60  # seconds of a connection on which nothing comes

    def do_GET(self) -> None:
        self._answer(
            {
                "": self._index,
                "specs": self._specs,
                "spec": self._read,
                "schema.json": self._schema,
                "drawing.css": self._css,
            }
        )

    def do_POST(self) -> None:
        self._answer({"check": self._check, "layer": self._layer, "code": self._code})

    def do_PUT(self) -> None:
        self._answer({"spec": self._write})

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, routes: dict[str, Any]) -> None:
        try:
            self._body = self._read_body()
            self._require_own_page()
            path, _, query = self.path.partition("?")
            _, token, *rest = [*path.split("/", 2), "", ""]
            if not secrets.compare_digest(token.encode(), self.server.token.encode()):
                raise RefusedError(HTTPStatus.NOT_FOUND, "not found: open the address that archspec serve printed")
            self._query = {key: values[-1] for key, values in parse_qs(query).items()}
            name = unquote(rest[0])
            if name in routes:
                routes[name]()
            elif self.command == "GET" and name.startswith("explain/"):
                self._explain(name.removeprefix("explain/"))
            elif self.command == "GET" and name in {path.name for path in PAGE.iterdir()}:
                self._send((PAGE / name).read_bytes(), TYPES.get(Path(name).suffix, "text/plain"))
            else:
                raise RefusedError(HTTPStatus.NOT_FOUND, "not found")
        except RefusedError as refused:
            self._send(f"{refused}\n".encode(), "text/plain", refused.status)
        except WorkerError as error:
            self._send(f"{error}\n".encode(), "text/plain", HTTPStatus.SERVICE_UNAVAILABLE)
        except FileNotFoundError:
            self._send(b"no such spec\n", "text/plain", HTTPStatus.NOT_FOUND)
        except OSError as error:
            self._send(f"{error.strerror or error}\n".encode(), "text/plain", HTTPStatus.INTERNAL_SERVER_ERROR)

    # --- the request -------------------------------------------------------------------------------------------------

    def _read_body(self) -> bytes:
        """Return the body; refuse one that is too large, and close the connection where it is not read."""
        self.close_connection = True
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isascii() or not length.isdecimal():
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "a Content-Length is required")
        if int(length) > MAX_BYTES:
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a spec has at most {MAX_BYTES} bytes")
        body = self.rfile.read(int(length))
        self.close_connection = False
        return body

    def _require_own_page(self) -> None:
        """Refuse a request under another name than this machine's, and one that a page of another site makes."""
        port = self.server.server_port
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or hosts[0] not in (f"127.0.0.1:{port}", f"localhost:{port}"):
            raise RefusedError(HTTPStatus.MISDIRECTED_REQUEST, "not a name of this server")
        origin = self.headers.get("Origin", f"http://{hosts[0]}")
        if origin != f"http://{hosts[0]}" or self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise RefusedError(HTTPStatus.FORBIDDEN, "a request of another site")

    def _text(self) -> str:
        try:
            return self._body.decode()
        except UnicodeDecodeError:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "not UTF-8") from None

    def _number(self, name: str) -> int:
        value = self._query.get(name, "0")
        if not value.isascii() or not value.isdecimal() or len(value) > 6:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"{name} must be a number")
        return int(value)

    def _path(self) -> str:
        return str(self.server.folder.path / self._name())

    def _name(self) -> str:
        name = self._query.get("name", "")
        if name not in self.server.folder.names():
            raise FileNotFoundError(name)
        return name

    # --- answers -----------------------------------------------------------------------------------------------------

    def _index(self) -> None:
        self._send((PAGE / "index.html").read_bytes(), "text/html")

    def _specs(self) -> None:
        self._json(self.server.folder.names())

    def _read(self) -> None:
        data = self.server.folder.read(self._name())
        version = version_of(data)
        if self._query.get("version") == version:
            self._send(b"", "text/plain", HTTPStatus.NO_CONTENT)
        else:
            self._send(data, "application/yaml", Version=version)

    def _write(self) -> None:
        try:
            self.server.folder.write(self._name(), self._body, self._query.get("version", ""))
        except ConflictError:
            raise RefusedError(HTTPStatus.PRECONDITION_FAILED, "the file was changed by another program") from None
        self._send(b"", "text/plain", HTTPStatus.OK, Version=version_of(self._body))

    def _check(self) -> None:
        depth = min(self._number("depth"), MAX_DEPTH)
        panel = self._query.get("panel", "")
        self._json(self.server.checks.ask("check", self._text(), self._path(), panel, depth))

    def _layer(self) -> None:
        depth = min(self._number("depth"), MAX_DEPTH)
        self._json(self.server.checks.ask("layer", self._text(), self._path(), depth, self._number("row")))

    def _code(self) -> None:
        target = self._query.get("target", "")
        if target not in TRAINED:
            raise RefusedError(HTTPStatus.NOT_FOUND, "no such target")
        self._json(self.server.codes.ask("code", self._text(), self._path(), target))

    def _explain(self, topic: str) -> None:
        try:
            self._send(content.explanation(topic.removesuffix(".html")).encode(), "text/html")
        except KeyError:
            raise RefusedError(HTTPStatus.NOT_FOUND, "no such topic") from None

    def _schema(self) -> None:
        self._send(_schema(), "application/json")

    def _css(self) -> None:
        self._send(css().encode(), "text/css")

    def _json(self, data: Any) -> None:
        self._send(json.dumps(data).encode(), "application/json")

    def _send(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(body)))
        for name, value in {**HEADERS, **headers}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
