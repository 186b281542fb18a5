"""archspec diff."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from archspec.cli.console import print_diagnostics, print_json, usage_error
from archspec.cli.revisions import Range, Repository, RevisionError, Versions
from archspec.graph import build
from archspec.language.source import Source, SpecError
from archspec.language.spec import BUDGET_SUFFIX, CLAIMS_SUFFIX

if TYPE_CHECKING:
    from archspec.graph import Graph
    from archspec.language.source import Diagnostic
    from archspec.report.diff import SpecDiff

app = typer.Typer(add_completion=False)


@app.command()
def diff(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="A revision, OLD..NEW, or OLD...NEW for what NEW has changed since it parted from OLD "
            "[default: HEAD]; then specs, or folders of specs [default: all of the repository].",
            metavar="[REV] [SPEC]...",
            show_default=False,
        ),
    ] = None,
    format: Annotated[Literal["table", "markdown", "json"], typer.Option("--format", help="Output format.")] = "table",
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with status 1 if a network changed.")] = False,
) -> None:
    """Show what a git revision or the working tree changed in the networks: layers, parameters, MACs and memory."""
    from archspec.report.diff import diff_facts, diff_lines, diff_markdown

    try:
        repository = Repository()
        span, paths = _arguments(repository, words or [])
        versions = [one for one in repository.changed(span, paths) if paths or _is_spec(one)]
        for path in paths:
            if not repository.exists(span, path):
                usage_error(
                    f"no such file in {' or '.join(filter(None, (span.old, span.new or 'the working tree')))}: {path}"
                )
    except RevisionError as error:
        usage_error(str(error))
    diffs = [_diff(one, span) for one in versions if not one.path.endswith((CLAIMS_SUFFIX, BUDGET_SUFFIX))]
    if format == "json":
        ends = {"old": {"revision": span.old, "commit": span.old_commit}, "new": None}
        new = {"revision": span.new, "commit": span.new_commit} if span.new else None
        print_json({**ends, "new": new, "specs": diff_facts(diffs)})
    elif format == "markdown":
        print(diff_markdown(diffs, span.old, span.new), end="")
    else:
        print("\n".join(diff_lines(diffs, span.old, span.new)))
    sys.stdout.flush()
    status = print_diagnostics([diagnostic for one in diffs for diagnostic in one.errors])
    changed = any(one.status != "unchanged" for one in diffs)
    raise typer.Exit(max(status, int(exit_code and changed)))


def _arguments(repository: Repository, words: list[str]) -> tuple[Range, list[Path]]:
    """Return the revisions and the paths in the arguments, of which the first may be either."""
    first = words[0] if words else ""
    is_path = Path(first).exists() or first.endswith((".yaml", ".yml"))
    if first and not is_path:
        return repository.range(first), [Path(word) for word in words[1:]]
    if first and repository.is_revision(first):
        raise RevisionError(f"{first} is a revision and a path: write refs/heads/{first} or ./{first}")
    return repository.range("HEAD"), [Path(word) for word in words]


def _is_spec(one: Versions) -> bool:
    """Return whether a file that nobody named is a spec: in a repository are other YAML files as well."""
    return any(re.search(rb"^archspec\s*:", text, re.M) for text in (one.old, one.new) if text)


def _diff(one: Versions, span: Range) -> SpecDiff:
    """Return the two versions of a spec as networks."""
    from archspec.report.diff import SpecDiff
    from archspec.targets.view import spec_hash

    sources: list[Source | None] = []
    graphs: list[Graph | None] = [None, None]
    errors: list[list[Diagnostic]] = [[], []]
    for i, (text, path) in enumerate(((one.old, f"{span.old}:{one.old_path}"), (one.new, one.path))):
        try:
            sources.append(None if text is None else Source.parse(text, path))
        except SpecError as error:
            sources.append(None)
            errors[i] = error.diagnostics
    old, new = sources
    if old and new and isinstance(old.data, dict) and isinstance(new.data, dict) and spec_hash(old) == spec_hash(new):
        return SpecDiff(one.path, one.old_path, same=True)
    for i, source in enumerate(sources):
        try:
            graphs[i] = build(source) if source else None
        except SpecError as error:
            errors[i] = error.diagnostics
    return SpecDiff(one.path, one.old_path, graphs[0], graphs[1], errors[0], errors[1])
