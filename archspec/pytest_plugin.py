"""The pytest plugin: items for the specs of `--archspec`, and the fixture `archspec`. It imports no framework."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from archspec.api import Checked
    from archspec.graph import Graph
    from archspec.verification import Evidence, Workers


class SpecFailedError(AssertionError):
    """What is wrong with a spec or a model; the last line is the command that shows it again."""

    def __init__(self, lines: Iterable[object], *command: object) -> None:
        super().__init__("\n".join([*map(str, lines), f"reproduce: {shlex.join(map(str, command))}"]))


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("archspec", "networks described by archspec")
    several: dict[str, Any] = {"action": "append", "default": []}
    words = "Test a spec, or the specs in a folder: errors, claims, budget, generated files, every target; repeatable."
    group.addoption("--archspec", metavar="PATH", help=words, **several)
    words = "Target to verify; repeatable, the first is the reference (default: torch and keras)."
    group.addoption("--archspec-target", metavar="TARGET", help=words, **several)
    words = "Folder of generated files, which every spec must have (default: generated, where a spec has some there)."
    group.addoption("--archspec-generated", metavar="DIR", help=words)
    group.addoption("--archspec-budget", metavar="FILE", help="File with a budget that every network must keep.")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "archspec: tests a spec, or uses the fixture archspec")
    config.stash[SESSION] = session = Session(config)
    config.add_cleanup(session.processes.close)
    paths = config.getoption("archspec")
    is_typed = any(word.partition("=")[0] == "--archspec" for word in map(str, config.invocation_params.args))
    if config.args_source is not pytest.Config.ArgsSource.ARGS:  # no other paths were given
        config.args[:] = paths if is_typed else [*config.args, *paths]
    elif is_typed:
        config.args += paths


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, SpecItem) or "archspec" in getattr(item, "fixturenames", ()):
            item.add_marker("archspec")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> SpecFile | None:
    session = parent.config.stash[SESSION]
    inside = file_path.parent.resolve() in session.paths and not file_path.name.endswith(".budget.yaml")
    if file_path.suffix in (".yaml", ".yml") and (inside or file_path.resolve() in session.paths):
        return SpecFile.from_parent(parent, path=file_path)
    return None


class Session:
    """What the tests of a session share: the options, the processes of the targets, and evidence."""

    def __init__(self, config: pytest.Config) -> None:
        self.folder = config.invocation_params.dir
        self.paths = {(self.folder / path).resolve() for path in config.getoption("archspec")}
        self.targets = tuple(config.getoption("archspec_target") or ("torch", "keras"))
        self.is_required = bool(config.getoption("archspec_generated"))
        self.out = Path(config.getoption("archspec_generated") or "generated")
        self.budget = config.getoption("archspec_budget")
        self.processes = ExitStack()
        self._running: dict[tuple[str, ...], Workers] = {}
        self._evidence: dict[Path, Evidence] = {}
        if config.getoption("archspec_target"):
            from archspec.targets import VARIANTS

            if len(self.targets) < 2 or not set(self.targets) <= set(VARIANTS):
                raise pytest.UsageError(f"--archspec-target: name two or more of {', '.join(VARIANTS)}")

    def workers(self, *targets: str) -> Workers:
        """Return the processes of some targets; they serve until the end."""
        from archspec.verification import Workers

        if targets not in self._running:
            self._running[targets] = self.processes.enter_context(Workers(targets))
        return self._running[targets]

    def evidence(self, path: Path, graph: Graph) -> Evidence:
        """Return the comparison of all targets; where they differ, with what the data could not have shown."""
        import archspec

        if path not in self._evidence:
            workers, out = self.workers(*self.targets), self.folder / self.out
            found = archspec.verify(graph, workers=workers, generated=out, quick=True)
            if not found.agrees and not found.failures:
                found = archspec.verify(graph, workers=workers, generated=out, quick=True, sensitive=True)
            self._evidence[path] = found
        return self._evidence[path]

    def shown(self, path: Path) -> str:
        """Return a path as it is typed in the current folder."""
        return str(path.relative_to(self.folder) if path.is_relative_to(self.folder) else path)


SESSION = pytest.StashKey[Session]()


class SpecFile(pytest.File):
    """A spec, with an item for each thing that it is tested for; one with errors has `check` only."""

    checked: Checked
    errors: Sequence[object] = ()

    def collect(self) -> Iterator[SpecItem]:
        import archspec

        session = self.config.stash[SESSION]
        names = ["check"]
        try:
            self.checked = archspec.check(self.path, budget=session.budget and session.folder / session.budget)
        except (archspec.SpecError, OSError) as error:
            self.errors = getattr(error, "diagnostics", [error])
        else:
            graph, of_claims = self.checked.graph, self.checked.of_claims
            names += ["claims"] * bool(graph.spec.claims) + ["budget"] * bool(self.checked.costs)
            if not of_claims and (session.is_required or (session.folder / session.out / graph.name).is_dir()):
                names += ["generated", "certificate"]
            if not of_claims and not any(getattr(node.op, "is_opaque", False) for node in graph.nodes):
                names += [f"verify[{target}]" for target in session.targets[1:]]
        for name in names:
            yield SpecItem.from_parent(self, name=name)


class SpecItem(pytest.Item):
    """One thing that a spec is tested for."""

    parent: SpecFile

    def runtest(self) -> None:
        self.shared = self.config.stash[SESSION]
        self.spec = self.shared.shown(self.path)
        name, _, target = self.name.partition("[")
        getattr(self, f"_{name}")(*([target[:-1]] if target else []))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        return str(excinfo.value) if excinfo.errisinstance(SpecFailedError) else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.nodeid

    def _check(self) -> None:
        self._fail_for(self.parent.errors)

    def _claims(self) -> None:
        found = self.parent.checked.diagnostics
        self._fail_for([d for d in found if d.severity == "error" and d.code != "over-budget"])

    def _budget(self) -> None:
        self._fail_for([d for d in self.parent.checked.diagnostics if d.code == "over-budget"])

    def _fail_for(self, found: Sequence[object]) -> None:
        if found:
            options = ("--budget", self.shared.budget) if self.shared.budget else ()
            raise SpecFailedError(found, "archspec", "check", self.spec, *options)

    def _generated(self) -> None:
        from archspec.api import planned_files
        from archspec.targets.output import plan

        planned = plan(planned_files(self.parent.checked.graph, None, self.shared.folder / self.shared.out))
        groups = (("out of date", planned.changed), ("edited by hand", planned.edited))
        lines = [f"{self.shared.shown(path)}: {state}" for state, paths in groups for path in paths]
        if not (planned.same or planned.kept or lines):
            lines = ["there are no generated files"]
        if lines:
            raise SpecFailedError(lines, "archspec", "generate", self.spec, "--check", "--out", self.shared.out)

    def _certificate(self) -> None:
        from archspec.verification.certificate import stale_reasons

        graph = self.parent.checked.graph
        if reasons := stale_reasons(graph, self.shared.folder / self.shared.out / graph.name):
            raise SpecFailedError(reasons, "archspec", "verify", self.spec, "--check", "--out", self.shared.out)

    def _verify(self, target: str) -> None:
        pytest.importorskip("scipy", reason="verify needs numpy, safetensors and scipy")
        import archspec
        from archspec.report.evidence import blind_spots, verdict

        targets = (self.shared.targets[0], target)
        words = [word for name in targets for word in ("--target", name)]
        command = ["archspec", "verify", self.spec, *words, "--quick", "--out", self.shared.out]
        try:
            evidence = self.shared.evidence(self.path, self.parent.checked.graph)
        except (archspec.SpecError, MemoryError) as error:
            raise SpecFailedError([error], *command) from None
        failures = tuple(failure for failure in evidence.failures if failure.target in targets)
        if missing := [failure for failure in failures if failure.missing]:
            pytest.skip(str(missing[0]))
        compared = tuple(c for c in evidence.comparisons if c.target in targets)
        evidence = replace(evidence, targets=targets, comparisons=compared, failures=failures)
        if not evidence.agrees:
            raise SpecFailedError([verdict(evidence), *failures, *blind_spots(evidence)], *command)


class Reference:
    """A spec that the models of a test are compared with."""

    def __init__(self, path: Path | str, session: Session, node: str) -> None:
        import archspec

        self.graph = archspec.load(session.folder / path)
        self._session, self._command = session, ("pytest", node)

    def equals(self, model: Any) -> None:
        """Fail unless a torch.nn.Module, a Keras model, or a source such as `net.py:Net` is the spec's network.

        Its modules may have any names. A copy of it gets the spec's weights; outputs, gradients and running statistics
        are compared in float64, in evaluation and in training mode.
        """
        __tracebackhide__ = True
        import archspec
        from archspec.report.ports import blind_lines, port_lines

        workers, out = self._session.workers("torch"), self._session.folder / self._session.out
        evidence = archspec.verify_model(self.graph, model, workers=workers, generated=out, sensitive="if different")
        if not evidence.agrees:
            lines = [line for line, _ in port_lines(evidence.ports[0], self.graph.name)]
            raise SpecFailedError([*lines, *blind_lines(evidence)], *self._command)

    def counts(self, model: Any) -> None:
        """Fail unless a model has as many parameters as the spec, and as many MACs if it is a torch.nn.Module."""
        __tracebackhide__ = True
        from archspec.verification.live import count_differences

        if lines := count_differences(self.graph, model):
            raise SpecFailedError(lines, *self._command)


@pytest.fixture(name="archspec")
def archspec_fixture(request: pytest.FixtureRequest) -> Any:
    """A function of the path of a spec, from the current folder: `archspec("specs/net.yaml").equals(Net())`."""
    return lambda path: Reference(path, request.config.stash[SESSION], request.node.nodeid)
