"""archspec explain, archspec schema."""

from __future__ import annotations

from typing import Annotated, get_args

import typer

from archspec.cli.console import print_markdown, usage_error, write_output
from archspec.cli.options import Output
from archspec.language.source import did_you_mean

app = typer.Typer(add_completion=False)


@app.command()
def explain(
    topic: Annotated[
        str | None,
        typer.Argument(metavar="TOPIC", help="A code such as unknown-key, or a name of the language such as conv2d."),
    ] = None,
) -> None:
    """Explain a diagnostic code, op, initializer, optimizer, schedule or transform; by default, list all of them."""
    from archspec.language import diagnostics, reference
    from archspec.language.diagnostics import codes
    from archspec.language.ops.base import Lint

    if topic is None:
        warnings = sorted([*get_args(Lint), "unused-allow"])
        errors = [code for code in codes() if code not in warnings]
        _print_topics("Errors", {code: diagnostics.summary(code) for code in errors})
        _print_topics("Warnings", {code: diagnostics.summary(code) for code in warnings})
        for title, models in reference.SECTIONS.items():
            _print_topics(title, {name: reference.summary(model) for name, model in models.items()})
    elif topic in codes():
        print_markdown(diagnostics.page(topic))
    elif topic in reference.TOPICS:
        print_markdown(reference.topic_page(topic))
    else:
        hint = did_you_mean(topic, [*codes(), *reference.TOPICS]) or "; `archspec explain` lists all"
        usage_error(f"no topic {topic!r}{hint}")


def _print_topics(title: str, topics: dict[str, str]) -> None:
    width = max(map(len, topics))
    print(f"{title}\n")
    print("\n".join(f"  {name:<{width}}  {summary}" for name, summary in topics.items()) + "\n")


@app.command()
def schema(output: Output = None) -> None:
    """Print the JSON Schema of the language, with which editors complete and check specs."""
    from archspec.language.schema import text

    write_output(text(), output)
