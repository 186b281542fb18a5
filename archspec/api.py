"""The public API, which the command line uses as well."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspec.analysis import Totals, totals
from archspec.graph import Graph, build, load_claims
from archspec.graph import load as load
from archspec.graph.build import require_scores
from archspec.language.source import Diagnostic, Source, SpecError, first_diagnostics
from archspec.language.spec import CLAIMS_SUFFIX, parse_budget

if TYPE_CHECKING:
    from archspec.analysis.budget import Cost
    from archspec.analysis.claims import Verdict
    from archspec.importers import Imported
    from archspec.verification.evidence import Evidence
    from archspec.verification.ports import PortEvidence
    from archspec.verification.processes import Workers

Spec = Graph | Path | str  # a network, or the path of its spec


def loads(text: str | bytes, path: str = "<spec>") -> Graph:
    """Return the network that the text of a spec (bytes are UTF-8) describes; raise SpecError as `load` does.

    >>> net = archspec.loads('''
    ... archspec: 1
    ... name: net
    ... input: {channels: 3, height: 32, width: 32}
    ... layers: [{name: conv1, op: conv2d, out_channels: 8, kernel_size: 3}]
    ... ''')
    >>> net.output.output_shape
    (8, 30, 30)
    """
    return build(Source.parse(text, path))


@dataclass(frozen=True)
class Checked:
    """The result of `check`: a network with its warnings and claims."""

    graph: Graph
    diagnostics: tuple[Diagnostic, ...]  # warnings, and errors of claims and of budgets
    claims: tuple[Verdict, ...]
    costs: tuple[Cost, ...] = ()  # those that a budget bounds
    of_claims: bool = False  # whether a file of claims was checked, and not the spec that they are about

    @property
    def ok(self) -> bool:
        """Whether there are no errors; warnings are not errors."""
        return not any(diagnostic.severity == "error" for diagnostic in self.diagnostics)

    @property
    def totals(self) -> Totals:
        """Parameters, MACs, FLOPs, neurons and bytes for one sample."""
        return totals(self.graph)


def check(spec: Spec, *, budget: Path | str | None = None) -> Checked:
    """Infer every shape of a network, count it, lint it, and test its claims and its budget.

    `budget` is a file with a budget besides the spec's own. Of a file of claims, `NAME.claims.yaml`, only the claims
    are tested. Raises SpecError for a spec with errors, OSError for an unreadable file. A claim that does not hold and
    a bound that is exceeded are errors in `diagnostics`.

    >>> archspec.check("specs/alexnet.yaml").totals.params
    60965224
    """
    from archspec.analysis import budget as budgets
    from archspec.analysis import claims
    from archspec.analysis.lint import lints

    of_claims = not isinstance(spec, Graph) and str(spec).endswith(CLAIMS_SUFFIX)
    graph = load_claims(str(spec)) if of_claims else _graph(spec)
    diagnostics = [] if of_claims else lints(graph)
    verdicts: Sequence[Verdict] = ()
    try:
        verdicts = claims.verdicts(graph)
        diagnostics += first_diagnostics(claims.errors(graph, list(verdicts)))
    except SpecError as error:
        diagnostics += error.diagnostics
    costs = []
    if not of_claims:
        if graph.spec.budget:
            costs += budgets.costs(graph, graph.spec.budget, graph.source)
        if budget:
            source = Source.read(budget)
            costs += budgets.costs(graph, parse_budget(source), source)
        diagnostics += first_diagnostics(budgets.errors(graph, costs))
    return Checked(graph, tuple(diagnostics), tuple(verdicts), tuple(costs), of_claims)


def generate(
    spec: Spec, target: str | Iterable[str] | None = None, *, out: Path | str = "generated", force: bool = False
) -> list[Path]:
    """Write a network's code below `out`, in one folder a spec, and return the paths of its files.

    `target` is `torch`, `keras` or `numpy`, or several of them, by default all. Raises SpecError where a target cannot
    express a layer, EditedError if a generated file was edited by hand (`force` overwrites it), OSError if a file
    cannot be written.

    >>> archspec.generate("specs/lenet.yaml", "numpy", out=folder)[0].name
    'model.py'
    """
    from archspec.targets.output import write_files

    files = planned_files(_graph(spec), target, Path(out))
    write_files(files, Path(out), force=force)
    return list(files)


def planned_files(graph: Graph, target: str | Iterable[str] | None, out: Path) -> dict[Path, str]:
    """Return the files that `generate` writes, with their texts."""
    from archspec.targets import TARGETS, files

    names = [target] if isinstance(target, str) else list(TARGETS if target is None else target)
    return {out / graph.name / path: text for name in names for path, text in files(graph, TARGETS[name]).items()}


def verify(
    spec: Spec,
    target: Iterable[str] | None = None,
    *,
    workers: Workers | None = None,
    generated: Path | str | None = "generated",
    quick: bool = False,
    **options: Any,
) -> Evidence:
    """Run the generated code of several targets on the same weights and data, and return what was compared.

    `target` are the targets, by default all that have a training program; the first is the reference.

    Files below `generated` are used as they are; missing ones are generated. `quick` compares structure, outputs and
    gradients in float64 only. `workers` are processes to use instead of new ones for each `target`; `options` are those
    of `archspec.verification.run.verify`. A framework that is missing is in the evidence's `failures`.

    >>> archspec.verify("specs/lenet.yaml", ["torch", "numpy"], quick=True).agrees
    True
    """
    from archspec.targets import TRAINED
    from archspec.verification import QUICK, Workers
    from archspec.verification.run import verify as run

    if quick:
        options = {"checks": QUICK, "dtypes": ("float64",), **options}
    folder = Path(generated) if generated else None
    graph = _graph(spec)
    require_scores(graph)
    if workers:
        return run(graph, workers, generated=folder, **options)
    with Workers(tuple(target or TRAINED)) as processes:
        return run(graph, processes, generated=folder, **options)


def verify_model(
    spec: Spec,
    model: Any,
    *,
    workers: Workers | None = None,
    generated: Path | str | None = "generated",
    **options: Any,
) -> PortEvidence:
    """Compare a model that somebody wrote with the generated PyTorch code of a spec, and return what was compared.

    `model` is a torch.nn.Module or a Keras model, of which a copy is run, or a source such as `net.py:Net`. Its modules
    may have any names: the weights of the spec are put in it. `options` are those of
    `archspec.verification.ports.compare_ports`. Raises ImportFailedError for a model that cannot be run.

    >>> archspec.verify_model("specs/squeezenet1_1.yaml", "torchvision:squeezenet1_1", sensitive=False).agrees
    True
    """
    from archspec.verification import Workers
    from archspec.verification.ports import REFERENCE, compare_ports

    if workers is None:
        with Workers((REFERENCE,)) as processes:
            return verify_model(spec, model, workers=processes, generated=generated, **options)
    return compare_ports(_graph(spec), [model], workers, generated=Path(generated) if generated else None, **options)


def import_model(source: str, **options: Any) -> Imported:
    """Return a PyTorch, Keras or ONNX model as a spec with its weights: `text`, `graph` and `canonical_weights()`.

    `source` is `torchvision:NAME`, `timm:NAME`, `keras.applications:NAME`, `FILE.py:NAME` or a model's file; `options`
    are those of `archspec.importers.import_model`. Raises ImportFailedError for a model that cannot be made, read or
    captured, and UnsupportedModelError for one with operators that the language lacks.

    >>> archspec.import_model("torchvision:resnet18").graph.name
    'resnet18'
    """
    from archspec.importers import import_model as run

    return run(source, **options)


def _graph(spec: Spec) -> Graph:
    return spec if isinstance(spec, Graph) else load(spec)
