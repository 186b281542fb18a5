"""Write the pages of the documentation site to build/docs: those of docs/, and those that are generated from the code.

python scripts/docs_site.py && zensical build --strict  # which is `make docs`
"""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

import yaml

import archspec
from archspec import report
from archspec.analysis import backward_counts, op_counts
from archspec.analysis.claims import verdicts
from archspec.analysis.conventions import CONVENTIONS
from archspec.cli.specs import spec_paths
from archspec.graph import Graph
from archspec.language import diagnostics, reference
from archspec.language.ops.base import KINDS
from archspec.report.arithmetic import arithmetic
from archspec.report.drawing import draw, svg
from archspec.report.facts import claims_table, conventions_table, layers_table, memory_table, totals_table
from archspec.targets import MODULES, TARGETS, TRAINED, files, model_source
from archspec.targets.render import formatted

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "docs"
SPECS = {path.stem: path for path in spec_paths([ROOT / "specs"])}
OP_SPECS = {path.stem: path for path in sorted((ROOT / "specs" / "ops").glob("*.yaml"))}
TRAPS: dict[str, list[dict[str, str]]] = yaml.safe_load((ROOT / "docs" / "traps.yaml").read_text())
COUNTED = ("alexnet", "vgg16", "resnet50", "mobilenet_v2", "vit_b_16")  # on the pages of conventions

# How a spec writes each optimizer and schedule, and a recipe with each transform, for the code on its page.
EXAMPLES = {
    "sgd": "{lr: 0.1, momentum: 0.9, weight_decay: 1e-4, nesterov: true}",
    "caffe_sgd": "{lr: 0.01, momentum: 0.9, weight_decay: 5e-4}",
    "adam": "{lr: 1e-3, weight_decay: 1e-4}",
    "adamw": "{lr: 1e-3, weight_decay: 0.05}",
    "constant": "{warmup: 5}",
    "step": "{step_size: 30, gamma: 0.1}",
    "multi_step": "{milestones: [30, 60], gamma: 0.1}",
    "exponential": "{gamma: 0.97}",
    "cosine": "{t_max: 90, warmup: 5}",
    "reduce_on_plateau": "{factor: 0.1, patience: 5}",
    "resize": "preprocessing: [{resize: 10}, {center_crop: 8}]",
    "center_crop": "preprocessing: [{center_crop: 8}]",
    "random_crop": "augmentation: [{random_crop: {size: 8, padding: 2}}]",
    "random_resized_crop": "augmentation: [{random_resized_crop: {size: 8, scale: [0.2, 1.0]}}]",
    "horizontal_flip": "augmentation: [{random_crop: 8}, {horizontal_flip: {p: 0.5}}]",
    "pca_noise": "augmentation: [{random_crop: 8}, {pca_noise: {std: 0.1}}]",
    "ten_crop": "augmentation: [{random_crop: 8}]\n  evaluation: [{ten_crop: 8}]",
    "rescale": "preprocessing: [{center_crop: 8}, rescale]",
    "subtract_mean": "preprocessing: [{center_crop: 8}, subtract_mean]",
    "normalize": "preprocessing: [{center_crop: 8}, {normalize: {mean: [0.5, 0.5, 0.5], std: [0.2, 0.2, 0.2]}}]",
}


# --- Markdown --------------------------------------------------------------------------------------------------------


def plain(text: object) -> str:
    """Return a text in which Markdown and HTML see no markup."""
    return re.sub(r"[\\`*_{}\[\]<>#|~&!$@:]", lambda match: f"&#{ord(match[0])};", str(text)).replace("\n", " ")


def table(heads: Iterable[str], rows: Iterable[Iterable[object]], right: Iterable[int] = ()) -> str:
    """Return a table of texts; the columns in `right` are aligned to the right."""
    heads = list(heads)
    rule = ["--:" if i in set(right) else "---" for i in range(len(heads))]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (map(plain, heads), rule, *rows))


def fenced(language: str, text: str, indent: str = "") -> str:
    """Return a block of code; `indent` is that of its container."""
    fence = "````" if "```" in text else "```"
    return "\n".join(f"{indent}{line}".rstrip() for line in (f"{fence}{language}", *text.rstrip().splitlines(), fence))


def tabs(texts: dict[str, str]) -> str:
    """Return Python code for several targets, in tabs."""
    return "\n\n".join(f'=== "{title}"\n\n{fenced("python", text, "    ")}' for title, text in texts.items())


def shown(found: report.facts.Table) -> str:  # type: ignore[name-defined]
    """Return a table of a report."""
    return table(found.heads, (map(plain, row) for row in found.words), found.right)


def traps(name: str) -> str:
    """Return the list of mistakes that people made with an op or an optimizer, with links to them."""
    lines = []
    for trap in TRAPS.get(name, ()):
        repository, _, number = trap["issue"].partition("#")
        lines.append(f"- {trap['trap']} [{trap['issue']}](https://github.com/{repository}/issues/{number})")
    return "## Traps in practice\n\n" + "\n".join(lines) if lines else ""


def joined(*parts: str) -> str:
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def index(title: str, text: str, topics: dict[str, str]) -> str:
    """Return the page that lists the pages of a section."""
    rows = ([f"[{name}]({name}.md)", plain(summary)] for name, summary in topics.items())
    return joined(f"# {title}", text, table(("name", "meaning"), rows))


# --- pages from the code ---------------------------------------------------------------------------------------------


def code_pages() -> Iterator[tuple[str, str]]:
    """Yield the page of every diagnostic."""
    yield (
        "codes/index.md",
        index(
            "Errors and warnings",
            "Every diagnostic has a code. `archspec explain CODE` prints its page.",
            {code: diagnostics.summary(code) for code in diagnostics.codes()},
        ),
    )
    for code in diagnostics.codes():
        yield f"codes/{code}.md", diagnostics.page(code)


def op_pages() -> Iterator[tuple[str, str]]:
    """Yield the page of every op: meaning, attributes, traps, a spec with its arithmetic and counts, and its code."""
    models = reference.SECTIONS["Ops"]
    yield (
        "ops/index.md",
        index(
            "Ops",
            "Every op with its meaning, attributes, arithmetic and counts, and its code for every target.",
            {name: reference.summary(model) for name, model in models.items()},
        ),
    )
    graphs = {name: archspec.load(OP_SPECS[name]) for name in models if name in OP_SPECS}
    sources = {
        f"{name}/{target.name}": model_source(graph, target)
        for name, graph in graphs.items()
        if not any(node.op.is_opaque for node in graph.nodes)  # type: ignore[union-attr]
        for target in TARGETS.values()
    }
    texts = formatted(sources, MODULES)
    for name in models:
        parts = [reference.topic_page(name), traps(name)]
        if graph := graphs.get(name):
            parts += ["## Example", fenced("yaml", graph.source.text), *_counts(name, graph)]
        codes = {t.title: texts[f"{name}/{t.name}"] for t in TARGETS.values() if f"{name}/{t.name}" in texts}
        parts += ["## Generated code", tabs(codes)] if codes else []
        yield f"ops/{name}.md", joined(*parts)


def _counts(name: str, graph: Graph) -> Iterator[str]:
    """Yield the arithmetic of the layers with an op in its spec, and their counts by kind."""
    rows: list[list[object]] = []
    counts: list[list[object]] = []
    for node in (node for node in graph.nodes if node.op.op == name):
        for f in arithmetic(node):
            numbers = f"= {plain(f.numbers)} " if re.search(r"\W", f.numbers) else ""
            formula = f"`{f.names}`<br>{numbers}= {f.value:,}" if f.names else f"{f.value:,}"
            rows.append([plain(node.name), plain(f.subject), formula])
        forward, backward = op_counts(node), backward_counts(node)
        for kind, meaning in KINDS.items():
            if forward.get(kind) or backward.get(kind):
                numbers = [f"{found.get(kind, 0):,}" for found in (forward, backward)]
                counts.append([plain(node.name), kind, *numbers, meaning])
    if rows:
        yield "## Shapes and parameters"
        yield "`a // b` is a / b rounded down."
        yield table(("layer", "number", "arithmetic"), rows)
    if counts:
        yield "## Counts"
        yield "Operations for one sample, by kind."
        yield table(("layer", "kind", "forward", "backward", "meaning"), counts, (2, 3))


def recipe_pages() -> Iterator[tuple[str, str]]:
    """Yield the pages of initializers, and those of optimizers, schedules and transforms with their code."""
    for title, folder, function in (
        ("Initializers", "initializers", ""),
        ("Optimizers", "optimizers", "make_optimizer"),
        ("Schedules", "schedules", "make_scheduler make_schedule"),
        ("Transforms", "transforms", "make_transforms"),
    ):
        models = reference.SECTIONS[title]
        text = "`archspec explain NAME` prints the page of one; [the language](../language.md) has them in context."
        yield (
            f"{folder}/index.md",
            index(title, text, {name: reference.summary(model) for name, model in models.items()}),
        )
        for name in models:
            parts = [reference.topic_page(name), traps(name)]
            if function:
                spec = example(title, name)
                codes = _functions(archspec.loads(spec), function.split())
                parts += ["## Example", fenced("yaml", spec), "## Generated code", tabs(codes)]
            yield f"{folder}/{name}.md", joined(*parts)


def example(section: str, name: str) -> str:
    """Return a spec whose recipe has an optimizer, a schedule or a transform."""
    rule = EXAMPLES[name] if section == "Transforms" else f"{{{name}: {EXAMPLES[name]}}}"
    recipe = {
        "Optimizers": f"optimizer: {rule}",
        "Schedules": f"optimizer: {{sgd: {{lr: 0.1}}}}\n  schedule: {rule}",
        "Transforms": f"optimizer: {{sgd: {{lr: 0.1}}}}\n  {rule}",
    }[section]
    return f"""archspec: 1
name: net
input: {{channels: 3, height: 8, width: 8}}
training:
  epochs: 90
  {recipe}
layers:
  - {{name: flatten, op: flatten}}
  - {{name: fc, op: linear, out_features: 10}}
"""


def _functions(graph: Graph, names: list[str]) -> dict[str, str]:
    """Return the source of some functions of the generated recipes, by the target's title."""
    found = {}
    for name in TRAINED:
        target = TARGETS[name]
        text = files(graph, target, headers=False, engine=False)[f"{target.folder}/recipe.py"]
        parts = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.name in names]
        found[target.title] = "\n\n\n".join(str(ast.get_source_segment(text, part)) for part in parts)
    return found


def convention_pages() -> Iterator[tuple[str, str]]:
    """Yield the page of every counting convention: what it counts, and what it gives for some networks."""
    yield (
        "conventions/index.md",
        index(
            "Counting conventions",
            "What other tools and papers count: `archspec report SPEC --convention NAME` counts as one of them does.",
            {name: f"{c.unit}: {c.says}" for name, c in CONVENTIONS.items()},
        ),
    )
    graphs = {name: archspec.load(SPECS[name]) for name in COUNTED}
    for name, convention in CONVENTIONS.items():
        terms = []
        for term, factor in convention.terms.items():
            op, _, kind = term.partition(".")
            link = "every op" if op == "*" else f"[{op}](../ops/{op}.md)"
            terms.append(
                [
                    link,
                    kind,
                    factor,
                    KINDS.get(kind, "values of " + {"in": "the input", "out": "the output"}.get(kind, kind)),
                ]
            )
        totals = [[f"[{n}](../networks/{n}.md)", f"{convention.total(g):,}"] for n, g in graphs.items()]
        yield (
            f"conventions/{name}.md",
            joined(
                f"# {name}",
                f"{convention.unit}: {convention.says}.",
                fenced("console", f"$ archspec report SPEC --convention {name}"),
                "## Terms",
                "A network's count is the sum of these, each times its factor.",
                table(("op", "kind", "factor", "meaning"), terms, (2,)),
                "## Totals, one sample",
                table(("network", convention.unit), totals, (1,)),
            ),
        )


def network_pages() -> Iterator[tuple[str, str]]:
    """Yield the page and the drawing of every spec: tables, claims, recipe, and the text."""
    for name, path in SPECS.items():
        graph = archspec.load(path)
        facts = report.Facts(graph, verdicts=tuple(verdicts(graph)))
        parts = [f"# {plain(name)}", plain(graph.spec.source or "")]
        if drawing := draw(graph):
            yield f"networks/{name}.svg", svg(drawing)
            parts.append(f"![The layers of {name}, from its input to its output]({name}.svg)")
        columns = [key for key in report.default_columns(facts) if key not in ("weights", "biases")]
        parts.append(shown(layers_table(facts, columns)))
        for found in (totals_table(facts), memory_table(facts), claims_table(facts), conventions_table(facts)):
            parts += [f"## {found.title}", shown(found)] if found.values else []
        if graph.spec.training:
            names = ["make_optimizer", "make_scheduler", "make_schedule", "make_transforms"]
            parts += ["## Training", tabs(_functions(graph, names))]
        parts += ["## Spec", fenced("yaml", graph.source.text)]
        yield f"networks/{name}.md", joined(*parts)


# --- pages of the repository -----------------------------------------------------------------------------------------

# Files that become a page elsewhere; those of docs/ keep their place.
MOVED = {
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "specs/README.md": "networks/index.md",
    "docs": "architecture.md",
    "generated/alexnet/network.svg": "networks/alexnet.svg",
    "generated/alexnet": "networks/alexnet.md",
}


def place(path: str) -> str | None:
    """Return where a file of the repository is in the site; None if it is not there."""
    if path in MOVED:
        return MOVED[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if match := re.fullmatch(r"specs/(\w+?)(\.claims)?\.yaml", path):
        return f"networks/{match[1]}.md"
    return None


def moved(path: str) -> str:
    """Return the text of a page of the repository for the site: links lead to its pages, or are plain text."""
    here = place(path)
    assert here is not None

    def link(match: re.Match[str]) -> str:
        target, _, heading = match[3].partition("#")
        if "://" in target or not target:
            return match[0]
        other = place(normpath(str(PurePosixPath(path).parent / target)))
        if other is None:
            return match[2]
        return f"{match[1]}[{match[2]}]({relpath(other, PurePosixPath(here).parent)}{'#' * bool(heading)}{heading})"

    text = (ROOT / path).read_text()
    text = re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", link, text)
    text = re.sub(r"^(```\w+)[^\n]+$", r"\1", text, flags=re.M)  # `console frameworks` is for the tests
    return re.sub(r"<!--.*?-->\n?", "", text, flags=re.S)


def pages() -> Iterator[tuple[str, str]]:
    """Yield every page of the site, and the drawings, by its path."""
    for path in ("README.md", "SECURITY.md", "CHANGELOG.md", "specs/README.md"):
        yield MOVED[path], moved(path)
    for page in sorted((ROOT / "docs").rglob("*.md")):
        path = page.relative_to(ROOT).as_posix()
        yield str(place(path)), moved(path)
    for section in (code_pages, op_pages, recipe_pages, convention_pages, network_pages):
        yield from section()


def main() -> None:
    """Write the pages."""
    shutil.rmtree(OUT, ignore_errors=True)
    for path, text in pages():
        file = OUT / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


if __name__ == "__main__":
    main()
