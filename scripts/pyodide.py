"""Fetch Pyodide and pydantic_core for it to build/pyodide, for `archspec serve --static DIR --runtime build/pyodide`.

Pyodide is an npm package; PyPI has pydantic_core built for it, of which the version is the one that is installed here.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pydantic_core

from archspec.live.static import CORE, RUNTIME

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "pyodide"
VERSION = "314.0.7"
TAGS = ("--implementation=cp", "--python-version=314", "--abi=cp314", "--platform=pyemscripten_2026_0_wasm32")


def main() -> None:
    """Write the files."""
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        npm = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent", f"pyodide@{VERSION}"]
        subprocess.run([*npm, "--prefix", name], check=True)
        for file in RUNTIME:
            shutil.copy(folder / "node_modules" / "pyodide" / file, OUT / file)
        wheel = f"pydantic_core=={pydantic_core.__version__}"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *TAGS]
        subprocess.run([*pip, wheel, "--dest", name], check=True)
        (found,) = folder.glob("pydantic_core-*.whl")
        shutil.copy(found, OUT / CORE)


if __name__ == "__main__":
    main()
