"""Write generated/, the golden record: AlexNet whole, of the other networks model.py and recipe.py.

python scripts/golden.py          # write it; the diff is read and committed with its cause
python scripts/golden.py --check  # exit 1 if it is not what the specs generate
"""

from __future__ import annotations

import sys
from pathlib import Path

import archspec
from archspec.api import planned_files
from archspec.report import drawing
from archspec.targets import TARGETS, model_parallel
from archspec.targets.output import plan, write_files

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "generated"
WHOLE = "alexnet"


def golden_files() -> dict[Path, str]:
    """Return the committed files with their texts."""
    files: dict[Path, str] = {}
    for path in sorted((ROOT / "specs").glob("*.yaml")):
        graph = archspec.load(path)
        planned = planned_files(graph, TARGETS, OUT)
        if graph.name == WHOLE:
            files |= planned
            files |= {OUT / graph.name / name: text for name, text in model_parallel(graph).items()}
        else:
            files |= {path: text for path, text in planned.items() if path.name in ("model.py", "recipe.py")}
    return files


def main() -> None:
    """Write or check the golden record."""
    files = golden_files()
    if "--check" in sys.argv:
        found = plan(files)
        stale = [*found.new, *found.changed, *found.edited, *found.kept]
        sys.exit("\n".join(["not what the specs generate; run `make golden`:", *map(str, stale)]) if stale else 0)
    write_files(files, OUT, force=True)
    drawn = drawing.draw(archspec.load(ROOT / "specs" / f"{WHOLE}.yaml"))
    assert drawn
    (OUT / WHOLE / "network.svg").write_text(drawing.svg(drawn), encoding="utf-8")


if __name__ == "__main__":
    main()
