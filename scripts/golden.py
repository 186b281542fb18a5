"""Write generated/, the golden record: AlexNet whole, model.py and recipe.py of its family, model.py of some others.

python scripts/golden.py          # write it; the diff is read and committed with its cause
python scripts/golden.py --check  # exit 1 if it is not what the specs generate
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import archspec
from archspec.api import planned_files
from archspec.cli.specs import spec_paths
from archspec.report import drawing
from archspec.targets import TARGETS, model_parallel
from archspec.targets.output import plan, write_files

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "generated"
WHOLE = "alexnet"
SPECS = list(spec_paths([ROOT / "specs"]))
FAMILY = ("alexnet", "caffenet", "lenet")  # the beginnings of the names
OTHERS = (
    *("vgg16", "googlenet", "resnet50", "densenet121", "mobilenet_v2"),
    *("mobilenet_v3_large", "efficientnet_b0", "convnext_tiny", "vit_b_16"),
)


def golden_files() -> dict[Path, str]:
    """Return the committed files with their texts."""
    files: dict[Path, str] = {}
    for path in SPECS:
        graph = archspec.load(path)
        planned = planned_files(graph, TARGETS, OUT)
        if graph.name == WHOLE:
            files |= planned
            files |= {OUT / graph.name / name: text for name, text in model_parallel(graph).items()}
        elif graph.name.startswith(FAMILY):
            files |= {path: text for path, text in planned.items() if path.name in ("model.py", "recipe.py")}
        elif graph.name in OTHERS:
            files |= {path: text for path, text in planned.items() if path.name == "model.py"}
    return files


FAMILIES = {
    "AlexNet": ("alexnet", "caffenet", "lenet"),
    "VGG, NiN, ZFNet": ("vgg", "nin", "zfnet"),
    "Inception": ("googlenet", "inception", "xception"),
    "ResNet and its relatives": ("resn", "wide", "se_", "preact", "cifar_resnet", "densenet", "regnet"),
    "Small and fast": ("squeezenet", "mobilenet", "shufflenet", "mnasnet"),
    "EfficientNet and ConvNeXt": ("efficientnet", "convnext"),
    "Transformers and MLP-Mixer": ("vit", "deit", "mixer", "swin"),
    "Segmentation": ("unet",),
    "To start from": ("mlp", "cifar_cnn"),
}
TABLES = re.compile("(<!-- tables:[^\n]*-->\n).*(<!-- end of tables -->)", re.S)


def readme(text: str) -> str:
    """Return specs/README.md with the tables of the specs; the texts of its rows stay, the numbers are computed."""
    known = dict(re.findall(r"^\| \[(\w+)\]\(\w+\.yaml\) \| (.*?) \|", text, re.M))
    graphs = {path.stem: archspec.load(path) for path in SPECS}
    lines = []
    for family, beginnings in FAMILIES.items():
        lines += [f"### {family}", "", "| spec | what it is | parameters | MACs |", "|---|---|--:|--:|"]
        names = [name for name in graphs if name.startswith(beginnings)]
        for name in sorted(names, key=lambda name: (list(known).index(name) if name in known else len(known), name)):
            total = archspec.check(graphs[name]).totals
            what = known.get(name, graphs[name].spec.source)
            lines.append(f"| [{name}]({name}.yaml) | {what} | {total.params:,} | {total.macs:,} |")
            del graphs[name]
        lines.append("")
    assert not graphs, f"of no family: {', '.join(graphs)}"
    return TABLES.sub(lambda match: match[1] + "\n" + "\n".join(lines) + match[2], text)


def main() -> None:
    """Write or check the golden record."""
    files = golden_files()
    page = ROOT / "specs" / "README.md"
    text = page.read_text(encoding="utf-8")
    if "--check" in sys.argv and readme(text) != text:
        sys.exit("the tables of specs/README.md are out of date; run `make golden`")
    if "--check" in sys.argv:
        found = plan(files)
        surplus = {path for path in OUT.rglob("*.py") if "__pycache__" not in path.parts} - set(files)
        stale = [*found.new, *found.changed, *found.edited, *found.kept, *sorted(surplus)]
        sys.exit("\n".join(["not what the specs generate; run `make golden`:", *map(str, stale)]) if stale else 0)
    write_files(files, OUT, force=True)
    page.write_text(readme(text), encoding="utf-8")
    drawn = drawing.draw(archspec.load(ROOT / "specs" / f"{WHOLE}.yaml"))
    assert drawn
    (OUT / WHOLE / "network.svg").write_text(drawing.svg(drawn), encoding="utf-8")


if __name__ == "__main__":
    main()
