"""What a user may name as the source of a model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from archspec.importers.layers import ImportFailedError

FILES = {".keras": "keras", ".h5": "keras", ".json": "keras", ".onnx": "onnx", ".prototxt": "caffe", ".pt2": "pt2"}
_NAMED = re.compile(r"(torchvision|timm|keras\.applications):(\w[\w.]*)")
_FUNCTION = re.compile(r"(keras:)?(.+\.py):([A-Za-z_]\w*)")


def is_source(text: str) -> bool:
    """Return whether `text` names a model rather than a spec; a `.json` file is a model if it is Keras'."""
    if _NAMED.fullmatch(text) or _FUNCTION.fullmatch(text):
        return True
    path = Path(text)
    if path.suffix == ".json":
        try:
            with path.open("rb") as file:
                return b'"class_name"' in file.read(4096)
        except OSError:
            return False
    return path.suffix in FILES


def parse_source(text: str) -> dict[str, Any]:
    """Return the parts of a source; raise ImportFailedError for another text, or where there is no such file."""
    if found := _NAMED.fullmatch(text):
        return {"kind": found[1], "name": found[2]}
    if found := _FUNCTION.fullmatch(text):
        framework = "keras.file" if found[1] else "file"
        return {"kind": framework, "path": str(_existing(found[2])), "name": found[3]}
    if kind := FILES.get(Path(text).suffix):
        return {"kind": kind, "path": str(_existing(text)), "name": Path(text).stem}
    raise ImportFailedError(
        f"{text!r} is no source of a model: write torchvision:NAME, timm:NAME, keras.applications:NAME, FILE.py:NAME, "
        f"keras:FILE.py:NAME, or a file that ends in {', '.join(FILES)}"
    )


def _existing(path: str) -> Path:
    if not Path(path).is_file():
        raise ImportFailedError(f"there is no file {path}")
    return Path(path).resolve()
