"""Progress by stage: one live line on a terminal, one line per stage elsewhere; on standard error, as no result."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from dscc.cli import interrupt

if TYPE_CHECKING:
    from rich.status import Status


class Stages:
    """Called with the name of each stage as it begins; a context manager that ends the last one."""

    def __init__(self, title: str):
        self._title = title
        self._stage = ""
        self._begun = 0.0
        self._status: Status | None = None

    def __enter__(self) -> Stages:
        if sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(file=sys.stderr).status(self._title)
            self._status.start()
        return self

    def __call__(self, stage: str) -> None:
        interrupt.check()
        self._finish()
        self._stage, self._begun = stage, time.perf_counter()
        if self._status:
            from rich.markup import escape

            self._status.update(f"{escape(self._title)}: {escape(stage)}")

    def _finish(self) -> None:
        if self._stage and not self._status:
            print(
                f"{self._title}: {self._stage} {time.perf_counter() - self._begun:.2f} s", file=sys.stderr, flush=True
            )
        self._stage = ""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._finish()
        if self._status:
            self._status.stop()
