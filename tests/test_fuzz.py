"""Specs altered at random: whatever the text, every command ends in diagnostics or in output that is inert and compiles.

`ARCHSPEC_FUZZ=20000 pytest tests/test_fuzz.py` draws other specs each time, and prints the seed of one that fails.
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import time
import traceback
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest
from helpers import DATA, OP_SPECS, ROOT

import archspec
from archspec import report
from archspec.language.diagnostics import as_github, as_json, as_sarif
from archspec.report import markup, page
from archspec.report.arithmetic import arithmetic
from archspec.report.compare import compare_lines
from archspec.report.drawing import draw, svg
from archspec.targets import TARGETS, files

COUNT = int(os.environ.get("ARCHSPEC_FUZZ", "2000"))
SEED = random.randrange(2**32) if "ARCHSPEC_FUZZ" in os.environ else 0
SECONDS = 20  # for one spec; those that take minutes have no limit at all

SPECS = [path.read_text() for path in (*OP_SPECS, *(DATA / "regressions").glob("*.yaml"))]
SPECS += [(ROOT / "specs" / f"{name}.yaml").read_text() for name in ("lenet", "alexnet_tiny", "resnet18", "vgg11")]
HOSTILE = [
    '"<script>alert(1)</script>"', '"]]><x onload=alert(1)>"', "'\\end{document}\\input{/etc/passwd}'", '"\\u001b[31m"',
    '"\'\'\'\\nimport os"', "'\"\"\"; import os; \"\"\"'", '"{{ 7 * 7 }}{% raw %}"', '"=cmd|x!A0"', '"::add-mask::relu"',
    '"##[add-mask]relu"', '"a\\u202eb"', '"\\ud800"', '"[x](javascript:alert(1))"', '"\\u3164"', "'%s%n{0.__class__}'",
    "-1", "0", "1e999", "2147483648", "9007199254740993", "0x7fffffff", ".nan", "1.5", "true", "null", "~", "[]", "{}",
    "[[[]]]", "[3, 3]", "[1, 2, 3]", "{a: 1}", "*x", "&x 1", "!!python/object:os.system x", "same", "input", "class",
    "__class__", "self", "x", "layers", "os", "conv2d", "in_channels", "index", "index * 1000000", "2 ** 2 ** 9",
    "required", "%YAML 1.3", "---", "\x00", "\t", "\ufeff", "[" * 40, "k: " * 40,
]  # fmt: skip


def altered(text: str, draws: random.Random) -> str:
    """Return a spec with one to three alterations of its values, tokens, lines or characters."""
    for _ in range(draws.randint(1, 3)):
        kind = draws.randrange(6)
        lines = text.split("\n")
        tokens = list(re.finditer(r"[\w.\-]+", text))
        if kind == 0 and (values := list(re.finditer(r"(?<=: )[^,{}\[\]\n]+", text))):
            place = draws.choice(values)
            text = text[: place.start()] + draws.choice(HOSTILE) + text[place.end() :]
        elif kind == 1 and len(tokens) > 1:
            place, other = draws.choice(tokens), draws.choice(tokens)
            text = text[: place.start()] + other[0] + text[place.end() :]
        elif kind == 2:
            i, j = draws.randrange(len(lines)), draws.randrange(len(lines))
            lines[i] = draws.choice(["", lines[j], f"{lines[i]}\n{lines[j]}", f"  {lines[i]}"])
            text = "\n".join(lines)
        elif kind == 3:
            place = draws.randrange(len(text))
            text = text[:place] + draws.choice([*"{}[],:-#&*!|>'\"%@`\\\n\t \x07é", ""]) + text[place + 1 :]
        elif kind == 4:
            text = text.replace(
                "layers:", f"{draws.choice(['source', 'claims', 'init'])}: {draws.choice(HOSTILE)}\nlayers:", 1
            )
        else:
            claim = f"claims: [{{params: 1, says: {draws.choice(HOSTILE)}, disputed: {draws.choice(HOSTILE)}}}]"
            text = f"{text}\n{claim}\n"
    return text


class _Page(HTMLParser):
    """Collects what would run in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.handlers: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.handlers += [name for name, value in attrs if name.startswith("on") or "javascript:" in (value or "")]


def render(graph: archspec.Graph) -> None:
    """Render a network in every way, and judge each text."""
    checked = archspec.check(graph)
    facts = report.Facts(graph, verdicts=checked.claims)
    assert_inert("\n".join([*report.network_lines(graph), *report.report_lines(facts), *compare_lines(graph, graph)]))
    assert_inert("\n".join(map(str, checked.diagnostics)))
    json.loads(as_json(checked.diagnostics))
    json.loads(json.dumps(report.as_data(facts)))
    for formula in (formula for node in graph.nodes for formula in arithmetic(node) if formula.names):
        assert eval(formula.numbers) == formula.value, formula
    assert all(line.startswith("::") for line in as_github(checked.diagnostics).splitlines())
    assert not re.search(r"(?<!\\)<|(?<!\\)\]\(|://", markup.as_markdown(facts))
    assert "\\input{" not in markup.as_latex(facts)
    list(csv.reader(io.StringIO(markup.as_csv(facts))))
    html = _Page()
    html.feed(page.as_html(facts))
    assert html.handlers == []
    assert html.scripts == page.as_html(report.Facts(LENET)).count("<script")
    if (drawing := draw(graph)) is not None:
        assert not [e.tag for e in ElementTree.fromstring(svg(drawing)).iter() if e.tag.endswith("script")]
    for target in TARGETS.values():
        try:
            texts = files(graph, target)
        except archspec.SpecError as error:
            assert_inert(str(error))
            continue
        for name, text in texts.items():
            compile(text, str(name), "exec")


def assert_inert(text: str) -> None:
    """Fail if a terminal or a CI runner would take a part of the text for a command."""
    assert not re.search(r"(?m)^\s*::|##\w*\[|[^\n\t\x20-\x7e\xa0-\U0010ffff]", text)


LENET = archspec.load(ROOT / "specs" / "lenet.yaml")


def finding(seed: int) -> str:
    """Return what goes wrong with the spec of a seed; empty if nothing does."""
    draws = random.Random(seed)
    text = altered(draws.choice(SPECS), draws)
    start = time.perf_counter()
    try:
        graph = archspec.loads(text.encode(errors="surrogatepass"), "net.yaml")
        render(graph)
    except archspec.SpecError as error:
        assert_inert(str(error))
        json.loads(as_sarif(error.diagnostics))
    except Exception:
        return f"seed {seed}:\n{text}\n{traceback.format_exc(limit=-4)}"
    seconds = time.perf_counter() - start
    return f"seed {seed}: {seconds:.0f} s\n{text}" if seconds > SECONDS else ""


@pytest.mark.parametrize("part", [*range(5), *(pytest.param(part, marks=pytest.mark.slow) for part in range(5, 10))])
def test_altered_specs_end_in_diagnostics_or_in_inert_output(part: int) -> None:
    """No traceback, no command for a runner, no script, no code that does not compile, no spec that takes for ever."""
    findings = [found for i in range(part, COUNT, 10) if (found := finding(SEED + i))]

    assert not findings, "\n\n".join(findings[:5])
