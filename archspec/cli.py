"""The command line: the only module that prints."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

# The start is most of what `check` takes. pydantic looks for plugins in the metadata of all installed packages: what
# reads those is not imported if their loader is there already. And freshly imported modules hold nothing to collect.
_no_plugins = types.ModuleType("pydantic.plugin._loader")
vars(_no_plugins)["get_plugins"] = tuple
sys.modules.setdefault(_no_plugins.__name__, _no_plugins)
gc.disable()

import typer

import archspec
from archspec.source import SpecError

if TYPE_CHECKING:
    from rich.progress import TaskID

    from archspec.emit.towers import Crossing
    from archspec.graph import Graph
    from archspec.source import Diagnostic
    from archspec.verify import Evidence

app = typer.Typer(
    name="archspec",
    help="A network described once: counted, generated for PyTorch and Keras, and proven the same in both.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

# The columns of `check --format json`.
_CHECKED = "name op inputs input_shapes output_shape weights biases params macs".split()
Specs = Annotated[list[Path], typer.Argument(help="Specs, or folders of specs.", metavar="SPEC...")]


class Format(StrEnum):
    """How facts are printed."""

    table = "table"
    json = "json"


class ReportFormat(StrEnum):
    """How a report is given."""

    table = "table"
    markdown = "markdown"
    csv = "csv"
    json = "json"
    latex = "latex"
    html = "html"


class DType(StrEnum):
    """Of the numbers of a network."""

    float64 = "float64"
    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class EvidenceFormat(StrEnum):
    """How evidence is given."""

    table = "table"
    json = "json"
    html = "html"


class Rendering(StrEnum):
    """How diagnostics are given."""

    text = "text"
    json = "json"
    github = "github"
    sarif = "sarif"


Rendered = Annotated[
    Rendering,
    typer.Option(help="How faults and warnings are told; if not as text, on standard output, and nothing else is."),
]


class Device(StrEnum):
    """Where the targets of a verification compute."""

    cpu = "cpu"
    cuda = "cuda"


class Placement(StrEnum):
    """How a network is placed on several devices."""

    two_tower = "two-tower"


class Target(StrEnum):
    """What code is generated for."""

    torch = "torch"
    keras = "keras"
    numpy = "numpy"


def main() -> NoReturn:
    """Run the command; exit 0 for good, 1 if a spec or what it claims is at fault, 2 if the command line is."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what a terminal cannot show it spells
    status: str | int | None = 0
    try:
        try:
            app()
        except SystemExit as end:
            status = end.code
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        print(f"archspec: {error.filename or 'cannot write'}: {error.strerror}", file=sys.stderr)
        status = 2
    if isinstance(status, int):
        sys.stderr.flush()
        os._exit(status)  # all is written: taking the interpreter apart would be a tenth of the time again
    sys.exit(status)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"archspec {archspec.__version__}")
        raise typer.Exit


@app.command()
def check(
    specs: Specs,
    format: Annotated[Format, typer.Option(help="As a table, or as data.")] = Format.table,
    diagnostics: Rendered = Rendering.text,
) -> None:
    """Infer every shape; count parameters, MACs and memory; warn of what is mostly not meant."""
    from archspec import claims, report
    from archspec.lint import lints

    told: list[Diagnostic] = []
    graphs = _read(specs, told)
    found = {}
    for graph in graphs:
        told += lints(graph)
        try:
            found[graph] = claims.verdicts(graph)
            told += claims.faults(graph, found[graph])
        except SpecError as error:
            told += error.diagnostics
    if diagnostics is not Rendering.text:
        raise typer.Exit(_tell(told, diagnostics))
    if format is Format.json:
        facts = [
            report.as_data(report.Facts(graph, verdicts=tuple(found.get(graph, ()))), _CHECKED) for graph in graphs
        ]
        _print_json({"specs": facts})
    else:
        for i, graph in enumerate(graphs):
            print("\n" * (i > 0) + "\n".join(report.table(graph)))
            if verdicts := found.get(graph):
                print(_struck("\n".join(["", *report.claims_table(verdicts)])))
    sys.stdout.flush()
    raise typer.Exit(_tell(told))  # last, where it is seen


@app.command(name="report")
def report_(
    specs: Specs,
    format: Annotated[
        ReportFormat | None, typer.Option(help="As what; as FILE's name says, or else as a table.", show_default=False)
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it to a file.", metavar="FILE")] = None,
    columns: Annotated[
        str | None, typer.Option(help="Of the layers, separated by commas; `--columns help` has them all.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=2**31, help="Samples, for bytes of memory.")] = 1,
    dtype: Annotated[DType, typer.Option(help="For bytes of memory.")] = DType.float32,
    placement: Annotated[
        Placement | None, typer.Option(help="Show what crosses between the paper's two devices.")
    ] = None,
    convention: Annotated[str | None, typer.Option(help="Count as a tool or a paper does, layer by layer.")] = None,
    conventions: Annotated[bool, typer.Option("--conventions", help="Count as all of them do, side by side.")] = False,
) -> None:
    """Show what a network is and costs: layers, memory, claims, and what everyone else would count."""
    from archspec.conventions import CONVENTIONS
    from archspec.report import COLUMNS, counting

    if convention and conventions:
        _usage("--convention is one of the --conventions: give one of the two")
    if convention and convention not in CONVENTIONS:
        _usage(f"no convention {convention!r}; there are {', '.join(CONVENTIONS)}")
    if columns == "help":
        width = max(map(len, COLUMNS))
        print("\n".join(f"{key:<{width}}  {column.says}" for key, column in COLUMNS.items()))
        raise typer.Exit
    names = [name.strip() for name in columns.split(",")] if columns else None
    if unknown := [name for name in names or () if name not in COLUMNS]:
        _usage(f"no column {unknown[0]!r}{_near(unknown[0], COLUMNS)}")
    kinds = {".md": "markdown", ".tex": "latex", ".txt": "table", ".htm": "html"}
    if format is None and output:
        suffix = kinds.get(output.suffix, output.suffix[1:])
        if suffix not in ReportFormat.__members__:
            _usage(
                f"{output} is of no format: name one with --format, or the file .md, .csv, .json, .tex, .html or .txt"
            )
        format = ReportFormat(suffix)
    format = format or ReportFormat.table
    if not (convention or conventions):
        raise typer.Exit(_report(specs, format, output, names, batch, dtype.value, placement))
    if format not in (ReportFormat.table, ReportFormat.json) or output or columns:
        _usage("a count under conventions is a table or json, on standard output; conventions are --columns too")
    graphs, bad = _load(specs)
    one = CONVENTIONS.get(convention or "")
    if format is ReportFormat.json:
        facts = (counting.convention_facts(g, one) if one else counting.conventions_facts(g) for g in graphs)
        _print_json({"specs": list(facts)})
    else:
        for i, graph in enumerate(graphs):
            lines = counting.convention_table(graph, one) if one else counting.conventions_table(graph)
            print("\n" * (i > 0) + "\n".join(lines))
    raise typer.Exit(bad)


def _report(
    specs: list[Path],
    format: ReportFormat,
    output: Path | None,
    columns: list[str] | None,
    batch: int,
    dtype: str,
    placement: Placement | None,
) -> int:
    """Give a report of every spec, in the columns that are named or in those of the format; return 1 if one is bad."""
    from archspec import claims, report
    from archspec.report import markup, page

    told: list[Diagnostic] = []
    found = []
    for graph in _read(specs, told):
        crossed: tuple[Crossing, ...] = ()
        try:
            if placement:
                from archspec.emit.towers import crossings, towers

                crossed = tuple(crossings(towers(graph)))
            found.append(report.Facts(graph, batch, dtype, tuple(claims.verdicts(graph)), crossed))
        except SpecError as error:
            told += error.diagnostics
    bad = _tell(told)
    if format in (ReportFormat.html, ReportFormat.latex, ReportFormat.csv) and len(found) > 1:
        _usage(f"{format.value} is one spec's: name one")
    if not found:
        return bad
    if format is ReportFormat.json:
        import json

        text = json.dumps({"specs": [report.as_data(one, columns or report.COLUMNS) for one in found]}, indent=2) + "\n"
    elif format is ReportFormat.table:
        text = "\n\n".join("\n".join(report.report(one, columns or report.DEFAULT)) + "\n" for one in found)
        text = text if output else _struck(text)
    elif format is ReportFormat.html:
        text = page.as_html(found[0], columns or page.COLUMNS)
    else:
        render = {"markdown": markup.as_markdown, "csv": markup.as_csv, "latex": markup.as_latex}[format.value]
        text = "\n".join(render(one, columns or report.DEFAULT) for one in found)
    _give(text, output)
    return bad


@app.command()
def draw(
    spec: Annotated[Path, typer.Argument(help="A spec.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="FILE.svg or FILE.png.", metavar="FILE")],
) -> None:
    """Draw the network as its blocks: maps to scale, groups and towers to be seen."""
    from archspec.report import drawing

    graph = _one(spec, "draw")
    if output.suffix not in (".svg", ".png"):
        _usage(f"--output is FILE.svg or FILE.png, not {output}")
    drawn = drawing.draw(graph)
    if drawn is None:
        most = f"{drawing.MAX_BLOCKS} blocks and {drawing.MAX_ARROWS:,} arrows"
        _usage(f"{graph.name} has too many blocks to be drawn: {most} at most")
    try:
        content = drawing.svg(drawn) if output.suffix == ".svg" else drawing.png(drawn)
    except ImportError:
        _usage("a PNG needs resvg_py: pip install 'archspec-nn[draw]'")
    except ValueError as error:
        _usage(str(error))
    _give(content, output)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="A spec.")],
    b: Annotated[Path, typer.Argument(help="Another.")],
    format: Annotated[Format, typer.Option(help="As a table, or as data.")] = Format.table,
) -> None:
    """Show two networks layer by layer: what differs, and the ratio of every total."""
    from archspec.report.compare import compare_facts, compare_table

    graphs, bad = _load([a, b])
    if bad:
        raise typer.Exit(bad)
    if len(graphs) != 2:
        _usage("compare takes two specs, not folders of them")
    if format is Format.json:
        _print_json(compare_facts(*graphs))
    else:
        print("\n".join(compare_table(*graphs)))


@app.command()
def generate(
    specs: Annotated[
        list[Path] | None,
        typer.Argument(help="Specs, or folders of specs; those in specs/ unless given.", metavar="SPEC..."),
    ] = None,
    target: Annotated[list[Target] | None, typer.Option(help="What for; all targets unless given.")] = None,
    out: Annotated[Path, typer.Option(help="Where: a folder for each spec is made in it.")] = Path("generated"),
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 if what stands differs.")] = False,
    placement: Annotated[
        Placement | None, typer.Option(help="For torch too, on two devices as in the paper's figure 2.")
    ] = None,
    diagnostics: Rendered = Rendering.text,
) -> None:
    """Write the network's code for each target."""
    from archspec import emit
    from archspec.files import write
    from archspec.lint import lints

    told: list[Diagnostic] = []
    graphs = _read(specs or [Path("specs")], told)
    targets = dict.fromkeys(t.value for t in target or Target)
    if placement and "torch" not in targets:
        _usage("--placement is for the target torch")
    files: dict[Path, str] = {}
    for graph in graphs:
        told += lints(graph)
        for name in targets:
            try:
                texts = emit.files(graph, name)
                if placement and name == "torch":
                    texts |= {"torch_two_tower.py": emit.emit_towers(graph)}
            except SpecError as error:
                told += error.diagnostics
                continue
            for file, text in texts.items():
                path = out / graph.name / file
                if path in files:
                    _usage(f"two specs are called {graph.name}: they would be one folder of {out}")
                files[path] = text
    if bad := _tell(told, diagnostics):  # what stands stays until all of it can be replaced
        raise typer.Exit(bad)
    if check:
        raise typer.Exit(_compare(files, show=diagnostics is Rendering.text))
    try:
        write(files.items(), out)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        _usage(f"cannot write below {out}: {getattr(error, 'strerror', None) or error}")
    if diagnostics is Rendering.text:
        print("\n".join(map(str, files)))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train(
    context: typer.Context,
    spec: Annotated[
        Path, typer.Argument(help="A spec with a recipe; what follows is the program's: --data, --epochs, ...")
    ],
    target: Annotated[Target, typer.Option(help="In what.")] = Target.torch,
    out: Annotated[Path, typer.Option(help="Where: a folder for the spec is made in it.")] = Path("generated"),
) -> None:
    """Generate a target's training program and run it; `archspec train SPEC --help-program` has its options."""
    from archspec import emit
    from archspec.files import write

    graph = _one(spec, "train")
    if target.value not in emit.TRAINERS:
        _usage(f"there is no training program for {target.value}, only for {' and '.join(emit.TRAINERS)}")
    if graph.spec.training is None:
        _usage(f"{spec} has no training: section")
    try:
        texts = emit.files(graph, target.value)
    except SpecError as error:
        raise typer.Exit(_tell(error.diagnostics)) from None
    folder = out / graph.name
    write([(folder / name, text) for name, text in texts.items()], out)
    program = str(folder / emit.TRAINERS[target.value])
    words = ["--help" if word == "--help-program" else word for word in context.args]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, program, *words])  # noqa: S606  signals and exit status are its own


@app.command()
def explain(
    code: Annotated[str | None, typer.Argument(help="What stands in brackets after error or warning.")] = None,
) -> None:
    """Say what a fault or a warning means, with a wrong and a right example; without a code, what codes there are."""
    from archspec.diagnostics import codes, page

    if code is None:
        print("\n".join(codes()))
    elif code in codes():
        _print_markdown(page(code))
    else:
        _usage(f"no code {code!r}{_near(code, codes()) or '; `archspec explain` has them all'}")


@app.command()
def schema(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it to a file.")] = None,
) -> None:
    """Print the JSON Schema of the language, by which editors complete and check specs."""
    from archspec.schema import text

    _give(text(), output)


@app.command()
def verify(
    specs: Specs,
    targets: Annotated[str, typer.Option(help="Which to compare, the first being the reference.")] = "torch,keras",
    out: Annotated[Path, typer.Option(help="Where generated files stand; what does not is generated.")] = Path(
        "generated"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="Structure, outputs and gradients, in float64 only.")] = False,
    batch: Annotated[int, typer.Option(min=1, help="Samples.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Of the weights and the data.")] = 0,
    steps: Annotated[int, typer.Option(min=2, max=10_000, help="Of the training.")] = 20,
    device: Annotated[Device, typer.Option(help="Where the targets compute.")] = Device.cpu,
    python: Annotated[
        list[str] | None,
        typer.Option(help="Run a target under another interpreter, which has its framework.", metavar="TARGET=PATH"),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=1, max=10**6, help="Seconds that one job of one target may take.")
    ] = 600,
    format: Annotated[EvidenceFormat, typer.Option(help="As a table, as data, or as a page.")] = EvidenceFormat.table,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write that to a file.")] = None,
    certify: Annotated[
        bool, typer.Option("--certify", help="Write OUT/NAME/verify.json if the targets agree.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Run nothing; exit 1 if OUT/NAME/verify.json no longer stands.")
    ] = False,
    distributed: Annotated[
        int | None,
        typer.Option(min=2, max=16, help="Compare trainings in as many processes with those in one, and nothing else."),
    ] = None,
) -> None:
    """Run every target's code on the same weights and data; compare outputs, gradients, trainings and draws."""
    if check:
        raise typer.Exit(_check_certificates(specs, out))
    try:
        from archspec.verify import ALL_TARGETS, CHECKS, QUICK, Workers
        from archspec.verify import verify as run

        import numpy, safetensors, scipy  # noqa: E401, F401  # isort: skip
    except ImportError as error:
        _usage(f"verify needs {error.name}: pip install 'archspec-nn[all]'")
    names = [name.strip() for name in targets.split(",")]
    pythons = dict(_python(word, names) for word in python or [])
    if unknown := [name for name in names if name not in ALL_TARGETS]:
        _usage(f"no target {unknown[0]!r}; there are {', '.join(ALL_TARGETS)}")
    if len(set(names)) < 2 or len(set(names)) < len(names):
        _usage("--targets takes two different targets or more")
    graphs, status = _load(specs)
    if distributed:
        raise typer.Exit(max(status, _distributed(graphs, names, distributed, timeout)))
    if output and len(graphs) > 1:
        _usage("--output is one file: name one spec")
    if certify and quick:
        _usage("--certify wants the whole verification, not --quick")
    with (
        progress() as show,
        Workers(names, timeout=timeout, device=device.value, pythons=pythons, progress=show) as workers,
    ):
        for graph in graphs:
            try:
                evidence = run(
                    graph,
                    workers,
                    generated=out,
                    batch=batch,
                    seed=seed,
                    steps=steps,
                    checks=QUICK if quick else CHECKS,
                    dtypes=("float64",) if quick else ("float64", "float32"),
                    sensitive=not quick,
                )
            except SpecError as error:
                status = max(status, _tell(error.diagnostics))
                continue
            except (MemoryError, OSError) as error:
                _usage(str(error))
            _give_evidence(evidence, format, output)
            if certify and evidence.agrees:
                from archspec.files import write
                from archspec.verify import certificate

                write([(out / graph.name / "verify.json", certificate.text(evidence))], out)
            if any(failure.missing for failure in evidence.failures):
                raise typer.Exit(2)
            status = max(status, 0 if evidence.agrees else 1)
    raise typer.Exit(status)


@app.command()
def race(
    spec: Annotated[Path, typer.Argument(help="A spec with a recipe.")],
    targets: Annotated[str, typer.Option(help="Which to train; the first one reads the images.")] = "torch,keras",
    data: Annotated[
        Path | None, typer.Option(help="A data set, as the programs read it; scikit-learn's digits unless given.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="The recipe's unless given.")] = None,
    float64_epochs: Annotated[
        int | None, typer.Option(min=0, help="How many of them are run in float64 too; all unless given.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="The recipe's unless given.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, order and draws.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder for race.json and race.png.", metavar="DIR")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, max=10**6, help="Seconds that one job may take.")] = 3600,
) -> None:
    """Train in several frameworks, from the same weights on the same batches and draws; tell when they part."""
    from archspec.emit import TRAINERS
    from archspec.files import write
    from archspec.verify import ALL_TARGETS, WorkerError, Workers, kind

    graph = _one(spec, "race")
    recipe = graph.spec.training
    if recipe is None:
        _usage(f"{spec} has no training: section")
    names = [name.strip() for name in targets.split(",")]
    able = [name for name in ALL_TARGETS if kind(name) in TRAINERS]
    if unknown := [name for name in names if name not in able]:
        _usage(f"no target {unknown[0]!r}{_near(unknown[0], able)}; there are {', '.join(able)}")
    if len(set(names)) < 2 or len(set(names)) < len(names):
        _usage("--targets takes two different targets or more")
    count = epochs or recipe.epochs
    try:
        from archspec import race as racing

        with (
            progress() as show,
            Workers(names, timeout=timeout, progress=show) as workers,
            Workers(names[:1], timeout=timeout) as reader,
        ):
            found = racing.race(
                graph,
                workers,
                reader,
                data=data,
                epochs=count,
                float64_epochs=count if float64_epochs is None else min(float64_epochs, count),
                batch_size=batch_size or recipe.batch_size,
                seed=seed,
            )
        picture = racing.plot(found) if output else b""
    except ImportError as error:
        _usage(f"race needs {error.name}: pip install 'archspec-nn[all]'")
    except SpecError as error:
        raise typer.Exit(_tell(error.diagnostics)) from None
    except WorkerError as error:
        print(f"archspec: {str(error).splitlines()[0]}", file=sys.stderr)
        raise typer.Exit(2 if error.missing else 1) from None
    except (OSError, ValueError) as error:
        _usage(str(error))
    if output:
        import json

        facts = json.dumps(found.facts(), indent=1) + "\n"
        write([(output / "race.json", facts), (output / "race.png", picture)], output)
    print("\n".join(racing.table(found)))
    raise typer.Exit(0 if found.agrees else 1)


def _python(word: str, names: list[str]) -> tuple[str, str]:
    target, equals, path = word.partition("=")
    if not equals or target not in names:
        _usage(f"--python is TARGET=PATH, for one of {', '.join(names)}, not {word!r}")
    return target, path


def _distributed(graphs: list[Graph], names: list[str], processes: int, timeout: float) -> int:
    """Print how trainings in many processes compare with those in one; return 1 if one parts or fails, 0 if none."""
    from archspec.verify import WorkerError, Workers
    from archspec.verify.distributed import ABLE, distributed

    if unable := [name for name in names if name not in ABLE]:
        _usage(f"--distributed is for {', '.join(ABLE)}, not for {unable[0]}")
    status = 0
    with progress() as show, Workers(names, timeout=timeout, progress=show) as workers:
        for graph in graphs:
            try:
                for one in distributed(graph, workers, processes, timeout):
                    print(f"{graph.name}: {one}")
                    status = max(status, 0 if one.agrees else 1)
            except SpecError as error:
                status = max(status, _tell(error.diagnostics))
            except ValueError as error:
                _usage(str(error))
            except WorkerError as error:
                print(f"archspec: {graph.name}: {error}", file=sys.stderr)
                status = max(status, 2 if error.missing else 1)
    return status


def _check_certificates(specs: list[Path], out: Path) -> int:
    """Print why certificates do not stand; return 1 if one does not, 0 if all do."""
    from archspec.verify import certificate

    graphs, status = _load(specs)
    for graph in graphs:
        faults = certificate.stands(graph, out / graph.name)
        for fault in faults:
            print(f"{graph.name}: {fault}")
        if not faults:
            print(f"{graph.name}: {out / graph.name / 'verify.json'} stands")
        status = max(status, 1 if faults else 0)
    return status


def _give_evidence(evidence: Evidence, format: EvidenceFormat, output: Path | None) -> None:
    """Print a verification, or write it to a file."""
    from archspec.verify import certificate, show

    if format is EvidenceFormat.table and output and output.suffix in (".json", ".html"):
        format = EvidenceFormat(output.suffix[1:])
    if format is EvidenceFormat.table and not output:
        show_evidence(evidence)
        return
    if format is EvidenceFormat.table:
        _usage("--output writes FILE.json or FILE.html")
    _give(certificate.text(evidence) if format is EvidenceFormat.json else show.page(evidence), output)
    if output:
        print(show.verdict(evidence))


def show_evidence(evidence: Evidence) -> None:
    """Print a verification: a row a layer, a column a comparison, the verdict, and what could not have been seen."""
    from rich.console import Console

    from archspec.verify import show

    console = Console(soft_wrap=True, highlight=False)
    console.width = max(console.width, 92)  # the table's, on a narrower terminal it wraps
    if evidence.comparisons:
        console.print(show.table(evidence))
        if "init" in evidence.checks:
            console.print("se: standard errors from the spec's rule", style="dim")
    for target, versions in evidence.versions.items():
        files = ", ".join(str(path) for path in evidence.files[target])
        console.print(
            f"{target}: {files}, {', '.join(f'{k} {v}' for k, v in versions.items())}", style="dim", markup=False
        )
    for path in evidence.stale:
        text = f"{path} is not what the spec gives now: edited, or older than the spec"
        console.print(text, style="yellow", markup=False)
    for check, why in evidence.skipped.items():
        console.print(f"{check} was not compared: {why}", style="yellow", markup=False)
    for line in show.blind_spots(evidence):
        console.print(line, style="yellow", markup=False)
    if evidence.sensitivity and not evidence.unseen:
        count = len(evidence.sensitivity)
        console.print(
            f"{count} alterations of layers and attributes were tried: each would have been seen", style="dim"
        )
    for failure in evidence.failures:
        console.print(str(failure), style="bold red", markup=False)
    if not evidence.agrees:
        for line in show.parted(evidence):
            console.print(line, style="red", markup=False)
    style = "bold green" if evidence.agrees else "bold red"
    console.print(show.verdict(evidence), style=style, markup=False)


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, str], None]]:
    """Give a function that shows what each target does now, on standard error."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda target, what: console.print(f"{target}: {what}", highlight=False)
        return
    columns = SpinnerColumn(), TextColumn("{task.fields[target]}: {task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as shown:
        tasks: dict[str, TaskID] = {}

        def show(target: str, what: str) -> None:
            if target not in tasks:
                tasks[target] = shown.add_task(what, target=target, total=None)
            shown.update(tasks[target], description=what)
            if what in ("done", "failed"):
                shown.stop_task(tasks[target])

        yield show


def _load(paths: list[Path]) -> tuple[list[Graph], int]:
    """Return the networks of all specs at `paths`, and 1 if one of them is at fault, 0 if none is; tell the faults."""
    told: list[Diagnostic] = []
    graphs = _read(paths, told)
    return graphs, _tell(told)


def _one(path: Path, command: str) -> Graph:
    """Return the network of the one spec at `path`; end the command for a fault, or for more than one."""
    graphs, bad = _load([path])
    if bad:
        raise typer.Exit(bad)
    if len(graphs) != 1:
        _usage(f"{command} takes one spec, not a folder of them")
    return graphs[0]


def _read(paths: list[Path], told: list[Diagnostic]) -> list[Graph]:
    """Return the networks of all specs at `paths`; put what is wrong with others in `told`."""
    graphs = []
    for path in _specs(paths):
        try:
            graphs.append(archspec.load(path))
        except SpecError as error:
            told += error.diagnostics
        except OSError as error:
            _usage(f"cannot read {path}: {error.strerror}")
    return graphs


def _specs(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        try:
            is_folder, exists = path.is_dir(), path.exists()
        except OSError as error:  # a name that no file can have
            _usage(f"cannot read {str(path)[:60]}: {error.strerror}")
        if is_folder:
            found = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml") and p.is_file())
            if not found:
                _usage(f"no specs in the folder {path}")
            yield from found
        elif not exists:
            _usage(f"no spec {path}" if path != Path("specs") else "no folder specs/ here: name a spec")
        else:
            yield path


def _print_json(content: object) -> None:
    import json

    print(json.dumps(content, indent=2))


def _struck(text: str) -> str:
    """Return a text in which what stands between ~~ and ~~ is struck through, where the terminal can do it."""
    import re

    return re.sub("~~(.*?)~~", "\x1b[9m\\1\x1b[29m", text) if sys.stdout.isatty() else text


def _compare(files: dict[Path, str], *, show: bool) -> int:
    """Print how what stands differs from `files`, if to be shown; return 1 if it does, 0 if not."""
    import difflib

    differs = 0
    for path, text in files.items():
        standing = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        if standing != text:
            differs = 1
            if not show:
                continue
            old, new = standing.splitlines(keepends=True), text.splitlines(keepends=True)
            sys.stdout.writelines(difflib.unified_diff(old, new, f"{path}", f"{path} (as the spec gives it)"))
    return differs


def _tell(told: list[Diagnostic], rendering: Rendering = Rendering.text) -> int:
    """Print diagnostics, text to standard error and data to standard output; return 1 if one is an error, 0 if not."""
    if rendering is not Rendering.text:
        from archspec import diagnostics

        render = {"json": diagnostics.as_json, "github": diagnostics.as_github, "sarif": diagnostics.as_sarif}
        if text := render[rendering.value](told):
            print(text)
    elif shown := [d for d in told if not d.allowed]:
        print("\n".join(map(str, shown)), file=sys.stderr)
        print(f"what it means, and a right example: archspec explain {shown[0].code}", file=sys.stderr)
    return int(any(d.severity == "error" for d in told))


def _near(word: str, words: Iterable[str]) -> str:
    """Return the hint at the nearest of `words`, if one is near."""
    import difflib

    found = difflib.get_close_matches(word, list(words), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def _give(content: str | bytes, output: Path | None) -> None:
    """Print a text, or write it to a file, whole or not at all."""
    if output is None:
        assert isinstance(content, str)
        print(content, end="")
        return
    from archspec.files import write

    try:
        write([(output, content)], output.parent)
    except OSError as error:
        _usage(f"cannot write {output}: {error.strerror or error}")


def _print_markdown(text: str) -> None:
    if not sys.stdout.isatty():
        print(text, end="")
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(text))


def _usage(message: str) -> NoReturn:
    print(f"archspec: {message}", file=sys.stderr)
    raise typer.Exit(2)
