"""How long a process may take. On a busy machine a second on the wall may be a hundredth of one on a processor."""

from __future__ import annotations

import os
import time
from pathlib import Path

STRETCH = 10.0  # a wait ends after so many times its limit even if the process was given little processor time


class Patience:
    """A wait for process `pid`, from now on, of `limit_s` of its processor time; its children's are not in it."""

    def __init__(self, pid: int, limit_s: float):
        self._pid = pid
        self._limit_s = limit_s
        self._begun = time.monotonic()
        self._busy = self._busy_s()

    def over(self) -> bool:
        waited = (time.monotonic() - self._begun) / STRETCH
        return max(self._busy_s() - self._busy, waited) >= self._limit_s

    def _busy_s(self) -> float:
        try:
            fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
