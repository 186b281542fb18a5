"""The live page as files for any server: Pyodide computes in the browser what the server of `archspec serve` does."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from archspec import files
from archspec.language import reference, schema
from archspec.language.diagnostics import codes
from archspec.live import content
from archspec.live.folder import Folder
from archspec.report.drawing import css
from archspec.targets import TRAINED
from archspec.targets.render import templates

HERE = Path(__file__).parent
PAGE = HERE / "page"
# Of Pyodide's npm package; and pydantic_core, built for it.
RUNTIME = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json")
CORE = "pydantic_core.whl"
# Pure Python, of the versions that are installed here; PyYAML and MarkupSafe without their compiled parts.
PACKAGES = "annotated_types jinja2 markupsafe pydantic typing_inspection yaml".split()
MODULES = ("typing_extensions",)
POLICY = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)


def write(folder: Folder, out: Path, runtime: Path) -> None:
    """Write the page of the specs in `folder` below `out`; `runtime` has the files RUNTIME and CORE.

    Raises OSError if a file cannot be read or written.
    """
    found = [(out / "pyodide" / name, (runtime / name).read_bytes()) for name in (*RUNTIME, CORE)]
    files.write([*found, *((out / name, text) for name, text in _files(folder))], out)


def _files(folder: Folder) -> Iterator[tuple[str, str | bytes]]:
    """Yield the other files of the page."""
    pages = {
        path.name: path for folder in (PAGE, HERE / "pyodide") for path in folder.iterdir()
    }  # the latter's engine.js
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    index = pages.pop("index.html").read_text(encoding="utf-8")
    yield "index.html", index.replace('<meta charset="utf-8">', f'<meta charset="utf-8">\n{policy}')
    for name, path in pages.items():
        yield name, path.read_bytes()
    yield "pyodide/packages.zip", _packages()
    yield "drawing.css", css()
    yield "schema.json", schema.text()
    for topic in {*codes(), *reference.TOPICS}:
        yield f"explain/{topic}.html", content.explanation(topic)
    yield "specs.json", json.dumps(folder.names())
    for name in folder.names():
        data = folder.read(name)
        yield f"specs/{name}", data
        yield f"content/{name}.json", json.dumps(_content(data.decode(), str(folder.path / name)))


def _content(text: str, path: str) -> content.Json:
    """Return the content of every panel for a spec as it is."""
    return {
        "panels": {panel: content.check(text, path, panel) for panel in content.PANELS},
        "code": {target: content.code(text, path, target) for target in TRAINED},
    }


def _packages() -> bytes:
    """Return a ZIP file of archspec and the packages that it imports."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        root = HERE.parent
        sources = [*root.rglob("*.py"), *root.rglob("*.md")]
        for path in sorted(path for path in sources if PAGE not in path.parents):
            packed.write(path, f"archspec/{path.relative_to(root).as_posix()}")
        for path in sorted(templates().rglob("*.jinja")):
            packed.write(path, f"archspec/templates/{path.relative_to(templates()).as_posix()}")
        for name in PACKAGES:
            folder = Path(str(import_module(name).__file__)).parent
            for path in sorted(folder.rglob("*.py")):
                packed.write(path, f"{name}/{path.relative_to(folder).as_posix()}")
        for name in MODULES:
            packed.write(str(import_module(name).__file__), f"{name}.py")
    return archive.getvalue()
