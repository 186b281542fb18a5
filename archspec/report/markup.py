"""A network's tables in Markdown, CSV and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from archspec.report.facts import Facts, Table, default_columns, layers_table, tables


def as_markdown(facts: Facts, columns: Iterable[str] | None = None) -> str:
    """Return a report as GitHub renders it."""
    head = f"# {plain(facts.graph.name)}\n\n"
    source = f"{plain(facts.graph.spec.source)}\n\n" if facts.graph.spec.source else ""
    return head + source + "\n".join(_markdown(table, i > 0) for i, table in enumerate(tables(facts, columns)))


def _markdown(table: Table, titled: bool) -> str:
    return (f"## {table.title}\n\n" if titled else "") + markdown_table(table.heads, table.words, table.right)


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int]) -> str:
    """Return a table; the columns in `right` are aligned to the right."""
    rule = ["--:" if i in right else "---" for i in range(len(heads))]
    lines = (f"| {' | '.join(cell if row is rule else plain(cell) for cell in row)} |" for row in (heads, rule, *rows))
    return "\n".join(lines) + "\n"


def plain(text: str) -> str:
    """Return a text with nothing in it that Markdown, or HTML within it, would take for its own."""
    text = re.sub(r"([\\`*_{}\[\]<>#|~&!$@])", r"\\\1", text)
    text = text.replace("://", ":\\//").replace("www.", "www\\.").replace("\n", " ")  # which GitHub makes links
    return re.sub(r"^(\d*)([-+.)=:])", r"\1\\\2", text)  # a list's mark, a rule, or a CI runner's command


def as_csv(facts: Facts, columns: Iterable[str] | None = None) -> str:
    """Return the network's layers as RFC 4180 CSV, one row each; numbers are plain, shapes are `96x55x55`."""
    import csv
    import io

    table = layers_table(facts, columns or default_columns(facts))
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(table.keys)
    writer.writerows([[_cell(value) for value in row] for row in table.values])
    return file.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, list):
        if value and isinstance(value[0], list):
            return ";".join(map(str, map(_cell, value)))
        return ("x" if value and isinstance(value[0], int) else ";").join(map(str, value))
    return "" if value is None else value


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\u2013": "--",
    "\u2014": "---",
    "\u2018": "`",
    "\u2019": "'",
    "\u201c": "``",
    "\u201d": "''",
    "\u2026": r"\ldots{}",
    "\u2264": r"$\le$",
    "\u2265": r"$\ge$",
    "\u2248": r"$\approx$",
    **{
        chr(code): f"$\\{name}$"
        for code, name in zip(
            (*range(0x3B1, 0x3BF), *range(0x3C0, 0x3C2), *range(0x3C3, 0x3CA)),
            "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi "
            "psi omega".split(),
            strict=True,
        )
    },
    "\u2713": r"\checkmark",
    "\u2717": r"$\times$",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{c: f"{{{c}}}" for c in "\"'`-[]"},
}


def as_latex(facts: Facts, columns: Iterable[str] | None = None) -> str:
    """Return a report as a document for pdflatex, with the rules of booktabs; each table can be lifted out of it."""
    lines = [
        r"\documentclass{article}",
        r"\usepackage[utf8]{inputenc}",
        r"\usepackage{amssymb,booktabs,longtable,pdflscape}",
        r"\usepackage[margin=12mm]{geometry}",
        r"\setlength{\tabcolsep}{3pt}",
        r"\begin{document}",
        r"\begin{landscape}",
        r"\scriptsize",
        rf"\section*{{{_latex(facts.graph.name)}}}",
        rf"\noindent {_latex(facts.graph.spec.source)}",
    ]
    for table in tables(facts, columns):
        lines += [rf"\subsection*{{{_latex(table.title)}}}", *_longtable(table)]
    return "\n".join([*lines, r"\end{landscape}", r"\end{document}", ""])


def _longtable(table: Table) -> list[str]:
    # prose wraps, within what is left of the page
    longest = [max(map(len, column)) for column in zip(table.heads, *table.words, strict=True)]
    wraps = [i for i, width in enumerate(longest) if width > 40]
    kinds = [
        f"p{{{90 // len(wraps)}mm}}" if i in wraps else "r" if i in table.right else "l" for i in range(len(longest))
    ]
    return [
        rf"\begin{{longtable}}{{{''.join(kinds)}}}",
        r"\toprule",
        " & ".join(map(_latex, table.heads)) + r" \\",
        r"\midrule",
        r"\endhead",
        *(" & ".join(map(_latex, row)) + r" \\" for row in table.words),
        r"\bottomrule",
        r"\end{longtable}",
    ]


def _latex(text: str) -> str:
    """Return a text for LaTeX; what pdflatex has no letter for is shown as its code point."""
    found = "".join(_LATEX.get(c, c if ord(c) < 0x180 else f"[U+{ord(c):04X}]") for c in text)
    return re.sub(r"(\[U\+[0-9A-F]+\])+", "[...]", found).replace("\n", " ")
