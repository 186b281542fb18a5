"""archspec serve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archspec.cli.console import usage_error

if TYPE_CHECKING:
    from archspec.live.folder import Folder

app = typer.Typer(add_completion=False)


@app.command()
def serve(
    path: Annotated[Path, typer.Argument(help="A spec, or a folder of specs.", metavar="[SPEC|FOLDER]")] = Path(
        "specs"
    ),
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1 (default: a free one).", show_default=False)
    ] = 0,
    static: Annotated[
        Path | None,
        typer.Option(
            help="Write the page for any server of files instead, with Python for the browser.", metavar="DIR"
        ),
    ] = None,
    runtime: Annotated[
        Path,
        typer.Option(help="Directory with Pyodide, as scripts/pyodide.py fetches it, for --static.", metavar="DIR"),
    ] = Path("build/pyodide"),
) -> None:
    """Serve a page for this machine, on which a spec is edited beside its table, drawing, code and claims."""
    from archspec.live.folder import Folder

    if not path.exists():
        usage_error(f"no such file or folder: {path}")
    file = path.resolve()  # a link that is named is followed, unlike those in a folder
    folder = Folder(path) if path.is_dir() else Folder(file.parent, file.name)
    if not folder.names():
        usage_error(f"no specs in the folder {path}" if path.is_dir() else f"{path} is not a .yaml file")
    if static:
        _write(folder, static, runtime)
        return
    from archspec.live.server import Server

    try:
        server = Server(folder, port)
    except OSError as error:
        usage_error(f"cannot listen on port {port}: {error.strerror}")
    print(f"{server.url}\nOnly this machine can open it, and only at this address. Ctrl-C ends it.", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


def _write(folder: Folder, out: Path, runtime: Path) -> None:
    """Write the page as files."""
    from archspec.live import static

    if missing := [name for name in (*static.RUNTIME, static.CORE) if not (runtime / name).is_file()]:
        usage_error(f"no {missing[0]} in {runtime}: run scripts/pyodide.py, or name its folder with --runtime")
    try:
        static.write(folder, out, runtime)
    except OSError as error:
        usage_error(f"cannot write below {out}: {error.strerror or error}")
    print(out / "index.html")
