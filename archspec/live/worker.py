"""A process that computes the content of the page, and is ended where that takes too long."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from threading import Lock
from typing import Any

LIMIT = 10.0  # seconds of one request


class WorkerError(Exception):
    """There is no content: it took too long, or the process ended."""


class Worker:
    """A process that runs the functions of `archspec.live.content`, one at a time."""

    def __init__(self, limit: float = LIMIT) -> None:
        self.limit = limit
        self._lock = Lock()
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None
        self._stopped = False

    def start(self) -> None:
        """Start the process before it is asked, and have it import what it needs."""
        with contextlib.suppress(WorkerError):
            self.ask("check", "", "")

    def ask(self, function: str, *arguments: Any) -> Any:
        """Return the result of a function; raise WorkerError if there is none within the limit."""
        if not self._lock.acquire(timeout=self.limit):
            raise WorkerError("busy with another request")
        try:
            connection = self._connection or self._start()
            connection.send((function, arguments))
            if not connection.poll(self.limit):
                raise WorkerError(f"it took more than {self.limit:g} s")
            failed, result = connection.recv()
        except WorkerError:
            self._end()
            raise
        except (EOFError, OSError):
            self._end()
            raise WorkerError("the process that computes it has ended") from None
        finally:
            self._lock.release()
        if failed:
            raise WorkerError(result)
        return result

    def stop(self) -> None:
        """End the process, whatever it does."""
        self._stopped = True
        self._end()

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads can hang
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        self._process, self._connection = process, ours
        if self._stopped:  # while it started
            raise WorkerError("stopped")
        return ours

    def _end(self) -> None:
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if process:
            process.kill()
            process.join()
        if connection:
            connection.close()


def _serve(connection: Connection) -> None:
    """Answer requests until the server is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this process
    from archspec.live import content

    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        try:
            connection.send((False, getattr(content, function)(*arguments)))
        except Exception as error:
            connection.send((True, f"{type(error).__name__}: {error}"))
