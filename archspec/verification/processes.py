"""The targets' worker processes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from archspec.targets import INSTALL, split_variant, target_of

Progress = Callable[[str, str], None]  # (target, current job)


class WorkerError(Exception):
    """A target failed; `fatal` if its process has ended, `missing` if its framework is not installed."""

    def __init__(self, target: str, message: str, *, fatal: bool = False, missing: bool = False) -> None:
        super().__init__(f"{target}: {message}")
        self.target = target
        self.fatal = fatal
        self.missing = missing


class Workers:
    """The targets' processes; each starts at its first job and serves until the end."""

    def __init__(
        self,
        targets: Sequence[str],
        *,
        timeout: float = 600,
        device: str = "cpu",
        pythons: Mapping[str, str] | None = None,
        progress: Progress = lambda target, what: None,
    ) -> None:
        """`pythons` are the interpreters of targets that do not run under this one."""
        self.targets = tuple(targets)
        self.device = device
        self._pythons = dict(pythons or {})
        self.progress = progress
        self.versions: dict[str, dict[str, str]] = {}
        self._timeout = timeout
        self._running: dict[str, _Worker] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._running.values():
            worker.stop()
        self._running.clear()

    def start(self) -> None:
        """Start every target's process, which imports its framework; the first job waits for that."""
        for target in self.targets:
            with contextlib.suppress(WorkerError):  # raised again by the first job
                self._start(target)

    def _start(self, target: str) -> None:
        if target not in self._running:
            self.progress(target, "starting")
            self._running[target] = _Worker(target, self.device, self._pythons.get(target, sys.executable))

    def ask(self, target: str, job: str, **arguments: Any) -> dict[str, Any]:
        """Run a job in a target's process; return its answer.

        Raises WorkerError if the framework is missing, the job failed, or the process died or timed out; the next job
        then gets a new process.
        """
        try:
            self._start(target)
            if not self._running[target].ready:
                self.versions[target] = self._running[target].answer(self._timeout)["versions"]
                self._running[target].ready = True
            self.progress(target, f"{job} {arguments.get('dtype', '')}".rstrip())
            self._running[target].send({"job": job, **arguments})
            return self._running[target].answer(self._timeout)
        except WorkerError as error:
            self.progress(target, "failed")
            worker = self._running.get(target)
            if worker and (error.fatal or not worker.ready):
                self._running.pop(target).stop()
            raise

    def all(self, task: Callable[[str], None]) -> list[WorkerError]:
        """Run `task` for every target in parallel; return the WorkerErrors that it raised."""

        def one(target: str) -> WorkerError | None:
            try:
                task(target)
            except WorkerError as error:
                return error
            return None

        with ThreadPoolExecutor(len(self.targets)) as threads:
            return [error for error in threads.map(one, self.targets) if error]


class _Worker:
    """One target's process."""

    def __init__(self, target: str, device: str, python: str) -> None:
        self._target = target
        self.ready = False  # whether it has reported its versions
        script = Path(__file__).parent.parent / "workers" / target_of(target).worker
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  closed by stop()
        environment = {**os.environ, **target_of(target).environment(split_variant(target)[1])}
        if device == "cpu":
            environment.update(CUDA_VISIBLE_DEVICES="", JAX_PLATFORMS="cpu")
        try:
            self._process = subprocess.Popen(
                [python, str(script), device],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                env=environment,
            )
        except OSError as error:
            self._log.close()
            raise WorkerError(target, f"cannot run {python}: {error.strerror}", fatal=True) from None

    def send(self, job: dict[str, Any]) -> None:
        """Send a job. If the process has died, `answer` raises."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(job), file=self._process.stdin, flush=True)

    def answer(self, timeout: float) -> dict[str, Any]:
        """Return the next answer; raise WorkerError if it is an error, or none comes in `timeout` seconds."""
        assert self._process.stdout
        late = threading.Event()

        def kill() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(timeout, kill)
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        if not line:
            why = f"no answer in {timeout:g} s" if late.is_set() else self._death()
            raise WorkerError(self._target, why, fatal=True)
        content: dict[str, Any] = json.loads(line)
        if "missing" in content:
            message = f"{content['error']}: {INSTALL.format(extra=target_of(self._target).extra)}"
            raise WorkerError(self._target, message, fatal=True, missing=True)
        if "error" in content:
            raise WorkerError(self._target, f"{content['error']}\n{content['traceback']}".rstrip())
        return content

    def stop(self) -> None:
        """End the process."""
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _death(self) -> str:
        """Return how the process ended, with the end of its log."""
        status = self._process.wait()
        self._log.seek(0)
        last = "".join(self._log.readlines()[-5:]).rstrip()
        how = "killed, perhaps out of memory" if status == -9 else f"exit status {status}"
        return f"the worker died ({how})" + (f"\n{last}" if last else "")
