"""Reports: one set of facts in every rendering, memory and receptive fields from outside, and nothing breaks out."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import OP_SPECS, ROOT, SPECS, spec
from test_cli import run

import archspec
from archspec import claims
from archspec.analysis import receptive_fields
from archspec.memory import kept_bytes, memory
from archspec.report import COLUMNS, Facts, as_data, report
from archspec.report.drawing import blocks, draw, svg
from archspec.report.facts import layers
from archspec.report.markup import as_csv, as_latex, as_markdown
from archspec.report.page import _bars, as_html

ALEXNET = archspec.load(ROOT / "specs" / "alexnet.yaml")
FACTS = Facts(ALEXNET, verdicts=tuple(claims.verdicts(ALEXNET)))
# A name and a source that would end what they stand in, were they not escaped.
NASTY = r"""source: "</script><script>alert(1)</script> | `a` \\input{/etc/passwd} $x_1$ %& #~^ ::error::"
"""


def nasty() -> Facts:
    return Facts(archspec.build(spec("{name: a_b, op: relu}", head=NASTY)))


# --- numbers from outside --------------------------------------------------------------------------------------------


def test_receptive_fields_are_the_literatures() -> None:
    """AlexNet's of Araujo et al. 2019 (distill.pub/2019/computing-receptive-fields, whose alexnet_v2 ends at 195)."""
    fields = {node.name: field for node, field in receptive_fields(ALEXNET).items()}
    sizes = {
        name: fields[name].size for name in ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5")
    }

    assert sizes == {
        "conv1": (11, 11), "pool1": (19, 19), "conv2": (51, 51), "pool2": (67, 67),
        "conv3": (99, 99), "conv4": (131, 131), "conv5": (163, 163), "pool5": (195, 195),
    }  # fmt: skip
    assert [fields[name].stride for name in ("conv1", "pool1", "pool2", "pool5", "fc6")] == [
        (4, 4),
        (8, 8),
        (16, 16),
        (32, 32),
        None,
    ]
    assert fields["fc6"].size == (195 + 5 * 32, 195 + 5 * 32)


@pytest.mark.frameworks
@pytest.mark.parametrize("path", OP_SPECS, ids=lambda path: path.stem)
def test_a_receptive_field_is_what_a_gradient_reaches(path: Path) -> None:
    """In PyTorch no output's gradient reaches farther than the field, and one inside reaches as far."""
    torch = pytest.importorskip("torch")
    import runpy

    graph = archspec.load(path)
    from archspec.emit import emit

    names = runpy.run_path(str(_written(emit(graph, "torch"), path.stem)))
    model = (
        next(
            v
            for k, v in names.items()
            if isinstance(v, type) and issubclass(v, torch.nn.Module) and k.startswith("One")
        )()
        .double()
        .eval()
    )
    widest = receptive_fields(graph)[graph.output].size
    torch.manual_seed(0)
    x = torch.rand(1, *graph.input.output_shape, dtype=torch.float64, requires_grad=True)
    y = model(x).flatten(2) if len(graph.output.output_shape) == 3 else model(x)
    reached = [0, 0]
    for i in range(y.shape[-1]):
        (gradient,) = torch.autograd.grad(y[..., i].sum(), x, retain_graph=True)
        seen = (gradient[0] != 0).any(dim=0)
        for axis in (0, 1):
            rows = seen.any(dim=1 - axis).nonzero().flatten()
            if len(rows):
                reached[axis] = max(reached[axis], int(rows[-1] - rows[0]) + 1)
    size = graph.input.output_shape[1:]

    assert all(r <= w for r, w in zip(reached, widest, strict=True))
    if graph.name != "one_dropout" and all(w < n for w, n in zip(widest, size, strict=True)):
        assert tuple(reached) == widest


def _written(text: str, name: str) -> Path:
    import tempfile

    path = Path(tempfile.mkdtemp()) / f"{name}.py"
    path.write_text(text)
    return path


@pytest.mark.frameworks
def test_what_is_kept_is_what_pytorch_saves() -> None:
    """Bytes that autograd saves of AlexNet, weights and the batch aside, are the sum of the column `kept`."""
    torch = pytest.importorskip("torch")
    import runpy

    model = runpy.run_path(str(ROOT / "generated" / "alexnet" / "torch_model.py"))["AlexNet"]()
    mine = {p.untyped_storage().data_ptr() for p in model.parameters()}
    x = torch.rand(2, 3, 227, 227)
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in mine and storage.data_ptr() != x.untyped_storage().data_ptr():
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        scores = model(x)
    kept = sum(kept_bytes(ALEXNET, 2).values()) + 4 * (96**2 + 256**2)  # and the bands by which its two LRNs sum

    assert scores.shape == (2, 1000)
    assert abs(sum(saved.values()) - kept) / kept < 0.005


def test_memory_is_the_arithmetic_beside_it() -> None:
    """A convolution and a ReLU on 4 x 4, batch 3 in float64: what lives when, by hand."""
    graph = archspec.build(
        spec(
            "{name: c, op: conv2d, out_channels: 2, kernel_size: 3}\n{name: r, op: relu}",
            "{channels: 1, height: 4, width: 4}",
        )
    )
    m = memory(graph, 3, "float64")
    params, batch, map_ = 8 * (2 * 9 + 2), 8 * 3 * 16, 8 * 3 * 2 * 2 * 2

    assert (m.params, m.gradients, m.optimizer, m.input, m.activations) == (params, params, params, batch, 2 * map_)
    assert m.kept == map_  # the ReLU's output; the convolution keeps the batch itself
    assert m.peak_inference == params + batch + 2 * map_
    # the convolution's gradient: that of its output, and its weights'; the ReLU's output is no longer needed
    own = 24_000_000  # measured: what PyTorch's libraries take at their first step
    assert m.peak_training == own + max(
        2 * params + batch + 3 * map_, 2 * params + batch + map_ + params, 3 * params + batch + 8 * 18
    )
    assert memory(graph, 3, "bfloat16").params * 4 == params


# --- one set of facts, six renderings --------------------------------------------------------------------------------


def test_every_rendering_has_the_same_numbers() -> None:
    """The layers' parameters, MACs and shapes of the data are in the table, Markdown, CSV, LaTeX and HTML."""
    data = as_data(FACTS)
    rows = list(csv.DictReader(io.StringIO(as_csv(FACTS))))
    texts = {"markdown": as_markdown(FACTS), "latex": as_latex(FACTS), "html": as_html(FACTS)}

    assert [int(row["params"]) for row in rows] == [layer["params"] for layer in data["layers"]]
    assert [row["output_shape"] for row in rows] == [
        "x".join(map(str, layer["output_shape"])) for layer in data["layers"]
    ]
    assert (data["totals"]["params"], data["totals"]["macs"]) == (60_965_224, 724_406_816)
    for text in texts.values():
        for number in ("37,752,832", "724,406,816", "384 x 13 x 13", "766,289,612", "727,362,344", "253,440"):
            assert number in text.replace("{-}", "-")


def test_every_column_can_be_shown() -> None:
    """Each has a value of every layer of every op, and its words."""
    for path in [*OP_SPECS, *SPECS]:
        facts = Facts(archspec.load(path))
        rows = list(csv.reader(io.StringIO(as_csv(facts, COLUMNS))))
        assert {len(row) for row in rows} == {len(COLUMNS)}
        assert json.loads(json.dumps(as_data(facts)))["layers"][0].keys() == COLUMNS.keys()


def test_the_command_gives_what_is_asked_for(tmp_path: Path) -> None:
    """The file's name says the format; a folder is a table for each; the rest is a fault of the command line."""
    out = tmp_path / "a.csv"
    ran = run(
        "report",
        "specs/alexnet.yaml",
        "-o",
        out,
        "--columns",
        "name, kept_bytes,fvcore",
        "--batch",
        "2",
        "--dtype",
        "float16",
    )

    assert ran.returncode == 0, ran.stderr
    assert out.read_text().splitlines()[:4] == [
        "name,kept_bytes,fvcore",
        "conv1,0,105415200",
        "relu1,1161600,0",
        f"norm1,{2 * 2 * 290400 * 2 + 1161600},0",
    ]
    assert "peak, training" in run("report", "specs/ops").stdout
    for words in (["-o", "a.doc"], ["--columns", "parms"], ["--format", "xml"], ["--batch", "0"]):
        told = run("report", "specs/alexnet.yaml", *words, cwd=ROOT)
        assert told.returncode == 2
        assert "Traceback" not in told.stderr
    assert "did you mean 'params'?" in run("report", "specs/alexnet.yaml", "--columns", "parms").stderr
    assert run("report", "specs", "--format", "html").returncode == 2
    assert run("report", "specs/lenet.yaml", "-o", tmp_path / "no" / "way" / "x.md").returncode == 0


def test_latex_compiles(tmp_path: Path) -> None:
    """pdflatex takes AlexNet's, with claims in Chinese, and what would end a table."""
    if not shutil.which("pdflatex"):
        pytest.skip("no pdflatex: apt install texlive-latex-recommended")
    for name, facts in (("alexnet", FACTS), ("nasty", nasty())):
        (tmp_path / f"{name}.tex").write_text(as_latex(facts), encoding="utf-8")
        words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", f"{name}.tex"]
        ran = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, errors="replace")
        assert ran.returncode == 0, ran.stdout[-2000:]
        assert "Overfull" not in ran.stdout


class Tags(HTMLParser):
    """The tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found.append(tag)


def test_a_spec_cannot_break_out_of_a_report() -> None:
    """Its strings are text in HTML, SVG, Markdown and LaTeX."""
    facts = nasty()
    page = as_html(facts)
    markdown = as_markdown(facts)

    assert Tags(page).found.count("script") == 1
    assert "alert(1)</script>" not in page
    assert r"\<script\>" in markdown
    assert "a\\_b" in markdown
    assert r"\textbackslash{}input" in as_latex(facts)


def test_alexnets_page_is_small() -> None:
    """At most 500 KB, and with no address to fetch from."""
    page = as_html(FACTS)

    assert len(page.encode()) <= 500_000
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)


# --- the drawing -----------------------------------------------------------------------------------------------------


def test_towers_stand_side_by_side() -> None:
    """What runs side by side has a lane each; a sum or a concatenation joins them."""
    towers = {block.node.name: block for block in blocks(archspec.load(ROOT / "specs" / "alexnet_towers.yaml"))}

    for number in range(1, 6):
        a, b = towers[f"conv{number}a"], towers[f"conv{number}b"]
        assert a.rank == b.rank
        assert (a.lane, b.lane) == (0, 1)
    assert [read.node.name for read in towers["maps2"].reads] == ["pool2a", "pool2b"]
    assert [node.name for node in towers["conv1a"].then] == ["relu1a", "norm1a"]


def test_a_layer_is_drawn_with_another_only_if_nothing_else_reads_that() -> None:
    """A pool beside a convolution, as in Inception, has a block of its own; a thousand ReLUs are counted."""
    layers = "{name: c, op: conv2d, out_channels: 2, kernel_size: 3, padding: 1}\n{name: p, op: max_pool2d, kernel_size: 3, stride: 1, padding: 1}\n{name: a, op: conv2d, out_channels: 2, kernel_size: 1, from: c}\n{name: b, op: conv2d, out_channels: 2, kernel_size: 1, from: p}\n{name: both, op: concat, from: [a, b]}"
    found = {
        block.node.name: [read.node.name for read in block.reads] for block in blocks(archspec.build(spec(layers)))
    }
    relus = "\n".join(f"{{name: r{i}, op: relu}}" for i in range(1000))
    (_, second) = blocks(archspec.build(spec("{name: c, op: conv2d, out_channels: 2, kernel_size: 3}\n" + relus)))

    assert found == {"input": [], "c": ["input"], "p": ["c"], "a": ["c"], "b": ["p"], "both": ["a", "b"]}
    assert second.words[-2:] == ["r5", "and 994 more"]


def test_many_inputs_are_counted() -> None:
    """The cells of a layer that reads many are short in every table, and whole as data."""
    layers = "\n".join(f"{{name: c{i}, op: conv2d, out_channels: 2, kernel_size: 1, from: input}}" for i in range(500))
    facts = Facts(
        archspec.build(spec(f"{layers}\n{{name: all, op: concat, from: [{', '.join(f'c{i}' for i in range(500))}]}}"))
    )

    assert max(map(len, report(facts))) < 300
    assert len(as_data(facts)["layers"][-1]["input_shapes"]) == 500


def test_the_largest_parts_are_shown() -> None:
    """Equal parts are not summed up before smaller ones."""
    bars = _bars([(str(i), 7) for i in range(20)], "")

    assert [bar.name for bar in bars] == [*map(str, range(12)), "8 others"]


def test_maps_are_to_scale_and_groups_are_seen() -> None:
    """A map twice as high is drawn twice as high; a convolution in two groups has two fronts."""
    drawing = draw(ALEXNET)
    assert drawing
    sizes = {block.node.name: drawing.scale.size(block) for block in drawing.blocks}
    fronts = {block.node.name: len(front) for block, front, _, _ in drawing.shapes}

    assert sizes["input"][1] / sizes["conv1"][1] == pytest.approx(227 / 55)
    assert sizes["conv3"][0] / sizes["conv1"][0] == pytest.approx(384 / 96)
    assert sizes["fc6"][1] / sizes["fc8"][1] == pytest.approx(4096 / 1000)
    assert (fronts["conv1"], fronts["conv2"], fronts["conv3"], fronts["conv4"]) == (1, 2, 1, 2)


@pytest.mark.parametrize(
    "path", [*SPECS, *OP_SPECS, *sorted((ROOT / "tests" / "found").glob("*.yaml"))], ids=lambda path: path.stem
)
def test_nothing_is_drawn_over_anything(path: Path) -> None:
    """No two blocks, and no block's words, overlap; all stand within the drawing."""
    drawing = draw(archspec.load(path))
    assert drawing
    boxes = []
    for block in drawing.blocks:
        wide = drawing.extent(block)
        text = max(map(len, block.words)) * 6.1
        half = max(wide, text) / 2
        middle = block.x + wide / 2
        boxes.append((middle - half, block.below - 1, middle + half, block.below + 14 + 13 * len(block.words)))
        high = drawing.scale.size(block)[1] + drawing.scale.size(block)[2] * 0.2
        boxes.append((block.x, block.y - high / 2, block.x + wide, block.y + high / 2))
    for i, (left, top, right, bottom) in enumerate(boxes):
        assert left >= 0
        assert top >= 0
        assert right <= drawing.width
        assert bottom <= drawing.height + 1
        for other in boxes[i + 1 :]:
            assert right <= other[0] + 1 or other[2] <= left + 1 or bottom <= other[1] + 1 or other[3] <= top + 1


def test_the_committed_drawing_is_alexnets() -> None:
    """`archspec draw specs/alexnet.yaml -o generated/alexnet/network.svg` writes it anew."""
    drawing = draw(ALEXNET)

    assert drawing
    assert (ROOT / "generated" / "alexnet" / "network.svg").read_text() == svg(drawing)


def test_the_drawing_is_svg_and_png(tmp_path: Path) -> None:
    """One command, both; a PNG is the same drawing, two pixels for one; another name is a fault of the command line."""
    pytest.importorskip("resvg_py")
    from xml.etree import ElementTree

    for suffix in ("svg", "png"):
        assert run("draw", "specs/alexnet_towers.yaml", "-o", tmp_path / f"t.{suffix}").returncode == 0
    root = ElementTree.parse(tmp_path / "t.svg").getroot()
    png = (tmp_path / "t.png").read_bytes()
    size = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")

    assert png.startswith(b"\x89PNG")
    assert size == (2 * int(root.attrib["width"]), 2 * int(root.attrib["height"]))
    assert run("draw", "specs/lenet.yaml", "-o", tmp_path / "t.gif").returncode == 2


def test_a_network_too_large_to_draw_is_still_reported(tmp_path: Path) -> None:
    """A thousand convolutions have a page without a drawing; `draw` says why not."""
    layers = "\n".join(f"{{name: c{i}, op: conv2d, out_channels: 2, kernel_size: 1}}" for i in range(1000))
    graph = archspec.build(spec(layers))
    path = tmp_path / "big.yaml"
    path.write_text(graph.source.text)

    assert draw(graph) is None
    assert "too many blocks" in as_html(Facts(graph))
    assert run("draw", path, "-o", tmp_path / "b.svg").returncode == 2


# --- in a browser ----------------------------------------------------------------------------------------------------


def test_the_page_works_in_a_browser(tmp_path: Path) -> None:
    """Chromium loads it with no error and no request; it sorts by mouse and by keyboard, and is as wide as a phone."""
    path = tmp_path / "alexnet.html"
    path.write_text(as_html(FACTS), encoding="utf-8")
    found = _browse(path)

    assert found["requests"] == [path.as_uri()]
    assert found["errors"] == []
    assert found["first"][0] == "conv1"
    assert found["mouse"][:3] == ["fc6", "fc7", "fc8"]
    assert found["keyboard"][:3] == ["conv2", "conv3", "conv4"]
    assert found["width"] <= 390
    assert found["dark"] != found["light"]


@pytest.mark.parametrize("name", ["nasty", "unsorted"])
def test_the_browser_test_can_fail(name: str, tmp_path: Path) -> None:
    """A page that runs a script of the spec's, or whose script does not sort, is seen."""
    path = tmp_path / "page.html"
    page = as_html(FACTS)
    broken = page.replace(
        "<h1>", "<h1><script>console.error(1); fetch('http://localhost:1/x').catch(e => 0)</script>", 1
    )
    path.write_text(broken if name == "nasty" else page.replace('class="sortable"', ""), encoding="utf-8")
    found = _browse(path)

    assert found["errors"] if name == "nasty" else found["mouse"][0] == "conv1"
    assert len(found["requests"]) == (2 if name == "nasty" else 1)


def _browse(path: Path) -> dict[str, object]:
    """Return what Chromium finds on a page, in a process of its own: playwright's loop and pytest's do not mix."""
    pytest.importorskip("playwright")
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser:
        pytest.skip("no Chromium: apt install chromium")
    words = [sys.executable, str(Path(__file__).parent / "browse.py"), browser, path.as_uri()]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_markdown_is_tables_of_its_own_words() -> None:
    """By a Markdown parser with GitHub's tables: as many rows as layers, every cell the table's word, no HTML, no link."""
    markdown_it = pytest.importorskip("markdown_it")
    parser = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table")
    for facts in (FACTS, nasty()):
        tokens = parser.parse(as_markdown(facts))
        cells = [
            token.children
            for token, before in zip(tokens[1:], tokens, strict=False)
            if before.type in ("td_open", "th_open")
        ]
        words = ["".join(part.content for part in cell) for cell in cells]
        first = layers(facts)

        assert words[: len(first.heads) * (1 + len(first.words))] == [
            *first.heads,
            *(w for row in first.words for w in row),
        ]
        kinds = {token.type for token in tokens} | {part.type for cell in cells for part in cell}
        assert not kinds & {
            "html_block",
            "html_inline",
            "link_open",
            "image",
            "code_inline",
            "fence",
            "bullet_list_open",
        }
