"""Reports: the same numbers in every format, memory and receptive fields from outside, and escaping."""

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
from helpers import OP_SPECS, REGRESSIONS, ROOT, SPECS, archspec_command, network

import archspec
from archspec.analysis import claims
from archspec.analysis.memory import RUNTIME_BYTES, memory, saved_bytes
from archspec.analysis.receptive_field import receptive_fields
from archspec.report import COLUMNS, Facts, as_data, report_lines
from archspec.report.drawing import boxes, draw, svg
from archspec.report.facts import layers_table
from archspec.report.markup import as_csv, as_latex, as_markdown
from archspec.report.page import _bars, as_html
from archspec.targets import TARGETS, model_source

ALEXNET = archspec.load(ROOT / "specs" / "alexnet.yaml")
FACTS = Facts(ALEXNET, verdicts=tuple(claims.verdicts(ALEXNET)))
# A source that would be markup in every format if it were not escaped.
MARKUP = r"""source: "</script><script>alert(1)</script> | `a` \\input{/etc/passwd} $x_1$ %& #~^ ::error::"
"""


def facts_with_markup() -> Facts:
    return Facts(network("{name: a_b, op: relu}", head=MARKUP))


# --- numbers from outside --------------------------------------------------------------------------------------------


def test_receptive_fields_are_those_of_the_literature() -> None:
    """Those of AlexNet in Araujo et al. 2019 (distill.pub/2019/computing-receptive-fields: 195 for alexnet_v2)."""
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
def test_gradients_reach_as_far_as_the_receptive_field(path: Path, tmp_path: Path) -> None:
    """In PyTorch no gradient of an output reaches farther than its receptive field, and some reach as far."""
    torch = pytest.importorskip("torch")
    import runpy

    graph = archspec.load(path)
    (tmp_path / "model.py").write_text(model_source(graph, TARGETS["torch"]))
    names = runpy.run_path(str(tmp_path / "model.py"))
    model = (
        next(
            v
            for k, v in names.items()
            if isinstance(v, type) and issubclass(v, torch.nn.Module) and k.startswith("One")
        )()
        .double()
        .eval()
    )
    field = receptive_fields(graph)[graph.output].size
    widest = field or graph.input.output_shape[1:]
    torch.manual_seed(0)
    x = torch.rand(1, *graph.input.output_shape, dtype=torch.float64, requires_grad=True)
    y = model(x).flatten(2) if len(graph.output.output_shape) == 3 else model(x)
    reached = [0, 0]
    for i in range(0, y.shape[-1], -(-y.shape[-1] // 40)):
        (gradient,) = torch.autograd.grad(y[..., i].sum(), x, retain_graph=True)
        seen = (gradient[0] != 0).any(dim=0)
        for axis in (0, 1):
            rows = seen.any(dim=1 - axis).nonzero().flatten()
            if len(rows):
                reached[axis] = max(reached[axis], int(rows[-1] - rows[0]) + 1)
    size = graph.input.output_shape[1:]

    assert all(r <= w for r, w in zip(reached, widest, strict=True))
    # a class token reads nothing, and the positions of enlarged maps need not fall on the most that they could read
    narrower = graph.name in ("one_dropout", "one_class_token", "one_conv_transpose2d")
    if not narrower and all(w < n for w, n in zip(widest, size, strict=True)):
        assert tuple(reached) == widest
    # a value of a flattened vector is one value of what was flattened; so is one of maps, of which a window reads a few
    if field is None and not graph.output.op.is_view and graph.name != "one_maps":
        assert tuple(reached) == size


@pytest.mark.frameworks
def test_saved_bytes_are_those_of_autograd() -> None:
    """The bytes that autograd saves for AlexNet, without parameters and input, are the sum of saved_bytes."""
    torch = pytest.importorskip("torch")
    import runpy

    model = runpy.run_path(str(ROOT / "generated" / "alexnet" / "pytorch" / "model.py"))["AlexNet"]()
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    x = torch.rand(2, 3, 227, 227)
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters and storage.data_ptr() != x.untyped_storage().data_ptr():
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = model(x)
    expected = sum(saved_bytes(ALEXNET, 2).values())

    assert logits.shape == (2, 1000)
    assert abs(sum(saved.values()) - expected) / expected < 0.005


def test_memory_of_a_small_network() -> None:
    """The peaks of a convolution and a ReLU on 4 x 4, batch 3 in float64, are those by hand."""
    layers = "{name: c, op: conv2d, out_channels: 2, kernel_size: 3}\n{name: r, op: relu}"
    graph = network(layers, "{channels: 1, height: 4, width: 4}")
    m = memory(graph, 3, "float64")
    params, batch, map_ = 8 * (2 * 9 + 2), 8 * 3 * 16, 8 * 3 * 2 * 2 * 2

    assert (m.params, m.gradients, m.optimizer, m.input, m.activations) == (params, params, params, batch, 2 * map_)
    assert m.saved == map_  # the ReLU's output; the convolution saves the batch itself
    assert m.peak_inference == params + batch + 2 * map_
    # at the ReLU's gradient; at the convolution's, with that of its output and of its parameters; at the optimizer's step
    assert m.peak_training == max(
        2 * params + batch + 3 * map_, 2 * params + batch + map_ + params, 3 * params + batch + 8 * 18
    )
    assert RUNTIME_BYTES == 24_000_000  # measured: not part of a peak
    assert memory(graph, 3, "bfloat16").params * 4 == params


# --- the same facts in six formats ------------------------------------------------------------------------------------


def test_every_format_has_the_same_numbers() -> None:
    """The parameters, MACs and shapes of the JSON are in the table, Markdown, CSV, LaTeX and HTML."""
    data = as_data(FACTS)
    rows = list(csv.DictReader(io.StringIO(as_csv(FACTS))))
    texts = {"markdown": as_markdown(FACTS), "latex": as_latex(FACTS), "html": as_html(FACTS)}

    assert [int(row["params"]) for row in rows] == [layer["params"] for layer in data["layers"]]
    assert [row["output_shape"] for row in rows] == [
        "x".join(map(str, layer["output_shape"])) for layer in data["layers"]
    ]
    assert (data["totals"]["params"], data["totals"]["macs"]) == (60_965_224, 724_406_816)
    for text in texts.values():
        for number in ("37,752,832", "724,406,816", "384 x 13 x 13", "744,257,772", "253,440"):
            assert number in text.replace("{-}", "-")
    assert data["conventions"]["convnet-burden"] == 727_362_344
    assert "727,362,344" in texts["html"]


def test_every_column_has_a_value_for_every_op() -> None:
    """CSV and JSON have every column, for layers of every op."""
    for path in [*OP_SPECS, ROOT / "specs" / "alexnet.yaml"]:
        facts = Facts(archspec.load(path))
        rows = list(csv.reader(io.StringIO(as_csv(facts, COLUMNS))))
        assert {len(row) for row in rows} == {len(COLUMNS)}
        assert json.loads(json.dumps(as_data(facts)))["layers"][0].keys() == COLUMNS.keys()


def test_report_writes_columns_to_a_file(tmp_path: Path) -> None:
    """The extension selects the format; --columns, --batch and --dtype apply; anything else is a usage error."""
    out = tmp_path / "a.csv"
    options = ["--columns", "name, saved_bytes,fvcore", "--batch", "2", "--dtype", "float16"]
    run = archspec_command("report", "specs/alexnet.yaml", "-o", out, *options)

    assert run.returncode == 0, run.stderr
    assert out.read_text().splitlines()[:4] == [
        "name,saved_bytes,fvcore",
        "conv1,0,105415200",
        "relu1,1161600,0",
        f"norm1,{2 * 2 * (2 * 290400 + 100 * 55 * 55) + 1161600},0",
    ]
    assert "peak, training" in archspec_command("report", "specs/ops").stdout
    for arguments in (["-o", "a.doc"], ["--columns", "parms"], ["--format", "xml"], ["--batch", "0"]):
        run = archspec_command("report", "specs/alexnet.yaml", *arguments)
        assert run.returncode == 2
        assert run.stderr
    assert "did you mean 'params'?" in archspec_command("report", "specs/alexnet.yaml", "--columns", "parms").stderr
    assert archspec_command("report", "specs", "--format", "html").returncode == 2
    assert archspec_command("report", "specs/lenet.yaml", "-o", tmp_path / "no" / "way" / "x.md").returncode == 0


def test_latex_compiles(tmp_path: Path) -> None:
    """pdflatex accepts the report of AlexNet, with claims in Chinese, and a source with markup."""
    if not shutil.which("pdflatex"):
        pytest.skip("no pdflatex: apt install texlive-latex-recommended")
    for name, facts in (("alexnet", FACTS), ("markup", facts_with_markup())):
        (tmp_path / f"{name}.tex").write_text(as_latex(facts), encoding="utf-8")
        arguments = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", f"{name}.tex"]
        run = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, errors="replace")
        assert run.returncode == 0, run.stdout[-2000:]
        assert "Overfull" not in run.stdout


class Tags(HTMLParser):
    """The tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found.append(tag)


def test_markup_in_a_spec_is_escaped() -> None:
    """The strings of a spec are text in HTML, SVG, Markdown and LaTeX."""
    facts = facts_with_markup()
    page = as_html(facts)
    markdown = as_markdown(facts)

    assert Tags(page).found.count("script") == 1
    assert "alert(1)</script>" not in page
    assert r"\<script\>" in markdown
    assert "a\\_b" in markdown
    assert r"\textbackslash{}input" in as_latex(facts)


def test_the_page_of_alexnet_is_small() -> None:
    """The page has at most 500 KB and loads nothing."""
    page = as_html(FACTS)

    assert len(page.encode()) <= 500_000
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)


# --- the drawing -----------------------------------------------------------------------------------------------------


def test_parallel_layers_are_drawn_in_lanes() -> None:
    """Parallel layers have one rank and a lane each; a sum or a concatenation joins them."""
    towers = {block.node.name: block for block in boxes(archspec.load(ROOT / "specs" / "alexnet_towers.yaml"))}

    for number in range(1, 6):
        a, b = towers[f"conv{number}a"], towers[f"conv{number}b"]
        assert a.rank == b.rank
        assert (a.lane, b.lane) == (0, 1)
    assert [read.node.name for read in towers["maps2"].reads] == ["pool2a", "pool2b"]
    assert [node.name for node in towers["conv1a"].then] == ["relu1a", "norm1a"]


def test_layers_are_merged_into_a_block_only_in_a_chain() -> None:
    """A pool parallel to a convolution, as in Inception, has its own block; of 1000 ReLUs six are named."""
    layers = "{name: c, op: conv2d, out_channels: 2, kernel_size: 3, padding: 1}\n{name: p, op: max_pool2d, kernel_size: 3, stride: 1, padding: 1}\n{name: a, op: conv2d, out_channels: 2, kernel_size: 1, from: c}\n{name: b, op: conv2d, out_channels: 2, kernel_size: 1, from: p}\n{name: both, op: concat, from: [a, b]}"
    reads = {block.node.name: [read.node.name for read in block.reads] for block in boxes(network(layers))}
    relus = "\n".join(f"{{name: r{i}, op: relu}}" for i in range(1000))
    (_, second) = boxes(network("{name: c, op: conv2d, out_channels: 2, kernel_size: 3}\n" + relus))

    assert reads == {"input": [], "c": ["input"], "p": ["c"], "a": ["c"], "b": ["p"], "both": ["a", "b"]}
    assert second.words[-2:] == ["r5", "and 994 more"]


def test_tables_abbreviate_many_inputs() -> None:
    """The cells of a layer with 500 inputs are short in tables and complete in JSON."""
    layers = "\n".join(f"{{name: c{i}, op: conv2d, out_channels: 2, kernel_size: 1, from: input}}" for i in range(500))
    facts = Facts(network(f"{layers}\n{{name: all, op: concat, from: [{', '.join(f'c{i}' for i in range(500))}]}}"))

    assert max(map(len, report_lines(facts))) < 300
    assert len(as_data(facts)["layers"][-1]["input_shapes"]) == 500


def test_bars_show_the_largest_parts() -> None:
    """Twelve parts are shown, and the sum of the others."""
    bars = _bars([(str(i), 7) for i in range(20)], "")

    assert [bar.name for bar in bars] == [*map(str, range(12)), "8 others"]


def test_blocks_are_to_scale_and_show_groups() -> None:
    """Heights are to scale; a convolution in two groups has two fronts."""
    drawing = draw(ALEXNET)
    assert drawing
    sizes = {block.node.name: drawing.scale.size(block) for block in drawing.boxes}
    fronts = {block.node.name: len(front) for block, front, _, _ in drawing.shapes}

    assert sizes["input"][1] / sizes["conv1"][1] == pytest.approx(227 / 55)
    assert sizes["conv3"][0] / sizes["conv1"][0] == pytest.approx(384 / 96)
    assert sizes["fc6"][1] / sizes["fc8"][1] == pytest.approx(4096 / 1000)
    assert (fronts["conv1"], fronts["conv2"], fronts["conv3"], fronts["conv4"]) == (1, 2, 1, 2)


@pytest.mark.parametrize("path", [*SPECS, *OP_SPECS, *REGRESSIONS], ids=lambda path: path.stem)
def test_blocks_and_labels_do_not_overlap(path: Path) -> None:
    """No two boxes or labels overlap, and all are inside the drawing."""
    drawing = draw(archspec.load(path))
    assert drawing
    boxes = []
    for block in drawing.boxes:
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


def test_the_committed_drawing_is_up_to_date() -> None:
    """`archspec draw specs/alexnet.yaml -o generated/alexnet/network.svg` writes it."""
    drawing = draw(ALEXNET)

    assert drawing
    assert (ROOT / "generated" / "alexnet" / "network.svg").read_text() == svg(drawing)


def test_draw_writes_svg_and_png(tmp_path: Path) -> None:
    """The PNG is the same drawing at twice the size; another extension is a usage error."""
    pytest.importorskip("resvg_py")
    from xml.etree import ElementTree

    for suffix in ("svg", "png"):
        assert archspec_command("draw", "specs/alexnet_towers.yaml", "-o", tmp_path / f"t.{suffix}").returncode == 0
    root = ElementTree.parse(tmp_path / "t.svg").getroot()
    png = (tmp_path / "t.png").read_bytes()
    size = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")

    assert png.startswith(b"\x89PNG")
    assert size == (2 * int(root.attrib["width"]), 2 * int(root.attrib["height"]))
    assert archspec_command("draw", "specs/lenet.yaml", "-o", tmp_path / "t.gif").returncode == 2


def test_a_network_too_large_to_draw_has_a_page(tmp_path: Path) -> None:
    """2100 convolutions have a page without a drawing, and of their table 2000 rows; `draw` is a usage error."""
    layers = "\n".join(f"{{name: c{i}, op: conv2d, out_channels: 2, kernel_size: 1}}" for i in range(2100))
    graph = network(layers)
    path = tmp_path / "big.yaml"
    path.write_text(graph.source.text)

    assert draw(graph) is None
    page = as_html(Facts(graph))
    assert "too large to be drawn" in page
    assert page.count(">conv2d<") == 2000
    assert "And 100 more, which <code>archspec report --format csv</code> lists." in page
    assert archspec_command("draw", path, "-o", tmp_path / "b.svg").returncode == 2


# --- in a browser ----------------------------------------------------------------------------------------------------


def test_the_page_works_in_a_browser(tmp_path: Path) -> None:
    """Chromium loads the page with no error and no other request; tables sort by mouse and keyboard; it fits a phone."""
    path = tmp_path / "alexnet.html"
    path.write_text(as_html(FACTS), encoding="utf-8")
    page = _browse(path)

    assert page["requests"] == [path.as_uri()]
    assert page["errors"] == []
    assert page["first"][0] == "conv1"
    assert page["mouse"][:3] == ["fc6", "fc7", "fc8"]
    assert page["keyboard"][:3] == ["conv2", "conv3", "conv4"]
    assert page["width"] <= 390
    assert page["dark"] != page["light"]


@pytest.mark.parametrize("name", ["script", "unsorted"])
def test_the_browser_test_can_fail(name: str, tmp_path: Path) -> None:
    """The browser reports a page that runs another script, and one whose tables do not sort."""
    path = tmp_path / "page.html"
    page = as_html(FACTS)
    broken = page.replace(
        "<h1>", "<h1><script>console.error(1); fetch('http://localhost:1/x').catch(e => 0)</script>", 1
    )
    path.write_text(broken if name == "script" else page.replace('class="sortable"', ""), encoding="utf-8")
    result = _browse(path)

    assert result["errors"] if name == "script" else result["mouse"][0] == "conv1"
    assert len(result["requests"]) == (2 if name == "script" else 1)


def _browse(path: Path) -> dict[str, object]:
    """Return what Chromium finds on a page, in another process: playwright's event loop and pytest's do not mix."""
    pytest.importorskip("playwright")
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser:
        pytest.skip("no Chromium: apt install chromium")
    arguments = [sys.executable, str(ROOT / "tests" / "helpers" / "browse.py"), browser, path.as_uri()]
    run = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_markdown_is_tables_of_plain_text() -> None:
    """A Markdown parser with GitHub's tables finds every cell's text, and no HTML, links or code."""
    markdown_it = pytest.importorskip("markdown_it")
    parser = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table")
    for facts in (FACTS, facts_with_markup()):
        tokens = parser.parse(as_markdown(facts))
        cells = [
            token.children
            for token, before in zip(tokens[1:], tokens, strict=False)
            if before.type in ("td_open", "th_open")
        ]
        words = ["".join(part.content for part in cell) for cell in cells]
        first = layers_table(facts)

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
