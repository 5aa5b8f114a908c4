"""The process of one contestant, as the race sees it: it is told what to do, and is stopped in between."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from dscc.errors import DsccError

ANSWER_S = 600.0
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Contestant:
    """One engine with one model at one thread count. dscc runs an artifact, the others the model file."""

    engine: str
    model: Path
    threads: int


class EngineError(DsccError):
    """An engine cannot take part: it failed on the model, or its process died."""


class EngineRefusal(EngineError):
    """The engine itself said so."""


class Child:
    """One contestant's process, which is stopped while it has nothing to do. Leaving the context ends it."""

    def __init__(self, contestant: Contestant, feeds_file: Path):
        self._contestant = contestant
        command = [sys.executable, "-m", "dscc.bench.worker", contestant.engine, str(contestant.model)]
        command += [str(contestant.threads), str(feeds_file)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()  # which ends a stopped process as well
        self._process.communicate()

    def outputs(self, file: Path) -> list[Array]:
        """Run once more, and bring the outputs over in `file`."""
        count = self.ask(f"outputs {file}")["count"]
        with np.load(file) as archive:
            return [archive[str(i)] for i in range(count)]

    def ask(self, command: str, limit_s: float = ANSWER_S) -> dict[str, Any]:
        """Send one command and wait for its answer.

        Raises:
            EngineError: the engine failed, or its process died, or it took longer than `limit_s`.
        """
        assert self._process.stdin and self._process.stdout  # both are pipes
        try:
            self._process.send_signal(signal.SIGCONT)
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
            if not select.select([self._process.stdout], [], [], limit_s)[0]:
                self._process.kill()
                raise EngineError(f"{self._contestant.engine}: no answer within {limit_s:.0f} s")
            line = self._process.stdout.readline()
            self._process.send_signal(signal.SIGSTOP)
        except BrokenPipeError:
            line = ""
        if not line:
            self._process.send_signal(signal.SIGCONT)
            raise EngineError(f"the process of {self._contestant.engine} died with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EngineRefusal(f"{self._contestant.engine}: {answer['error']}")
        return answer
