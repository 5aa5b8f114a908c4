"""Where candidates are built and measured: in child processes, so that a crash or a hang is a result.

A builder turns choices into libraries, many at once; a runner measures one at a time, while no builder works.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection, wait
from typing import Any

from dscc.errors import first_line
from dscc.schedule.decisions import Choice
from dscc.tune.kernel import Built, Kernel, Refused, build
from dscc.tune.measure import Measured, measure

BUILD_S = 60.0
RUN_S = 60.0
_CONTEXT = multiprocessing.get_context("spawn")  # a fork would copy the locks of TVM's threads

Candidate = Mapping[str, Choice]


class Failed(Exception):
    """A candidate could not be built or run; the text says why."""


class DoesNotFit(Failed):
    """A candidate wants more of its device than that has."""


class Builder(ABC):
    """Builds candidates."""

    @abstractmethod
    def build(self, kernel: Kernel, candidates: Sequence[Candidate]) -> list[Built | Failed]:
        """Every candidate's library, or why there is none."""

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds."""


class LocalBuilder(Builder):
    """Builds in processes of this machine."""

    def __init__(self, jobs: int):
        self._jobs = jobs
        self._pool: ProcessPoolExecutor | None = None

    def build(self, kernel: Kernel, candidates: Sequence[Candidate]) -> list[Built | Failed]:
        pool = self._pool = self._pool or ProcessPoolExecutor(self._jobs, _CONTEXT, follow_parent)
        futures = [pool.submit(attempt, kernel, candidate) for candidate in candidates]
        done: list[Built | Failed] = []
        for future in futures:
            try:
                done.append(future.result(BUILD_S))
            except (BrokenProcessPool, TimeoutError) as err:
                self.close()
                done.append(Failed(f"the builder ended: {type(err).__name__}"))
        return done

    def close(self) -> None:
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()):
                process.kill()  # one that hangs would be waited for
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


def follow_parent() -> None:
    """Have this process end when its parent does, however that ends, and leave Ctrl-C to the parent.

    The processes of a pool hold both ends of its queues: they would wait for ever for a parent that was killed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def attempt(kernel: Kernel, candidate: Candidate) -> Built | Failed:
    """`build`, with what went wrong as a value: exceptions of TVM do not travel between processes."""
    try:
        return build(kernel, candidate)
    except Refused as err:
        return DoesNotFit(first_line(err)[:200])
    except Exception as err:  # noqa: BLE001  code generation raises what it likes for a candidate that does not fit
        return Failed(first_line(err)[:200])


class Runner(ABC):
    """Measures candidates."""

    @abstractmethod
    def measure(self, kernel: Kernel, default: Built, candidate: Built, pairs: int, limit: float) -> Measured:
        """As `dscc.tune.measure.measure`.

        Raises:
            Failed: it crashed, or took too long.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds."""


class LocalRunner(Runner):
    """Measures in a process of this machine, which is started anew when a candidate takes it down."""

    def __init__(self, threads: int):
        self._threads = threads
        self._process: Any = None
        self._pipe: Connection | None = None

    def measure(self, kernel: Kernel, default: Built, candidate: Built, pairs: int, limit: float) -> Measured:
        if self._process is None:
            self._pipe, other = _CONTEXT.Pipe()
            self._process = _CONTEXT.Process(target=_serve, args=(other, self._threads), daemon=True)
            self._process.start()
            other.close()
        assert self._pipe is not None  # made with the process
        try:
            self._pipe.send((kernel, default, candidate, pairs, limit))
            if not self._pipe.poll(RUN_S):
                raise Failed(f"it ran for more than {RUN_S:.0f} s")
            answer: Measured | Failed = self._pipe.recv()
        except (EOFError, OSError) as err:
            self.close()
            raise Failed("it ended the process") from err
        except Failed:
            self.close()
            raise
        if isinstance(answer, Failed):
            raise answer
        return answer

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def _serve(pipe: Connection, threads: int) -> None:
    follow_parent()
    while True:
        try:
            kernel, default, candidate, pairs, limit = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(measure(kernel, default, candidate, threads, pairs, limit))
        except Exception as err:  # noqa: BLE001  whatever it is, the candidate is to blame, and the next one goes on
            pipe.send(Failed(first_line(err)[:200]))
