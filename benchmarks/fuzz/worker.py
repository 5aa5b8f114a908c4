"""A process that serves many cases, and is replaced when one of them kills or stalls it."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import resource
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.patience import Patience

MEMORY_BYTES = 6 << 30
SERVED = 400  # cases before a worker is replaced; TVM keeps some memory of each


class Died(Exception):
    """The process ended; the text says how, and what it was doing."""


class Stalled(Exception):
    """There was no answer in time; the text says what it was doing."""


class Worker:
    """Runs `function(argument, stage)` in a process of its own.

    Args:
        function: at the top of a module; what it raises reaches the caller as a Died with its text.
        limit_s: processor time that one call may take; with other work on the machine it takes longer.
        memory_bytes: of address space.
    """

    def __init__(self, function: Callable[..., Any], limit_s: float, memory_bytes: int = MEMORY_BYTES):
        self._function = function
        self._limit_s = limit_s
        self._memory = memory_bytes
        self._process: Any = None
        self._connection: Any = None
        self._log = Path(tempfile.gettempdir()) / f"fuzz-worker-{os.getpid()}-{id(self)}.log"
        self._served = 0

    def __call__(self, argument: Any) -> Any:
        self._served += 1
        doing = "start"
        try:
            if self._process is None or self._served > SERVED:
                self._start()
            self._connection.send(argument)
            patience = Patience(self._process.pid, self._limit_s)
            while True:
                if not self._connection.poll(1.0):
                    if not patience.over():
                        continue
                    self.close()
                    raise Stalled(f"no answer within {self._limit_s:g} s, in stage '{doing}'")
                kind, content = self._connection.recv()
                if kind == "result":
                    return content
                if kind == "raised":
                    raise Died(f"in stage '{doing}': {content}")
                doing = content
        except (EOFError, ConnectionError) as err:
            self._process.join(5)
            status, said = self._process.exitcode, self._log.read_text(errors="replace").strip()[-2000:]
            self.close()
            raise Died(f"ended with status {status}, in stage '{doing}'\n{said}") from err

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = None
        self._log.unlink(missing_ok=True)

    def _start(self) -> None:
        self.close()
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(self._function, other, str(self._log), self._memory), daemon=True
        )
        self._process.start()
        other.close()
        self._served = 1
        self._connection.recv()  # it imports a lot, in none of the time of a call


def _serve(function: Callable[..., Any], connection: Connection, log: str, memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    faulthandler.enable()
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        connection.send("ready")
        while True:
            argument = connection.recv()
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            try:
                answer = ("result", function(argument, lambda name: connection.send(("stage", name))))
            except Exception as err:  # noqa: BLE001  handed to the caller
                answer = ("raised", f"{type(err).__name__}: {err}")
            connection.send(answer)
