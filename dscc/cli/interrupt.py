"""Ctrl-C, also where Python loses it.

A `KeyboardInterrupt` that is raised while a destructor runs, or in a function that C++ called, is printed or turned
into another error, and the work goes on. So it is remembered, and raised again when the next stage begins.
"""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType

_seen = False


def watch() -> None:
    """Remember interrupts from now on."""
    global _seen
    _seen = False
    if threading.current_thread() is not threading.main_thread():
        return  # only the main thread may set handlers, and only it is interrupted
    signal.signal(signal.SIGINT, _interrupted)
    report = sys.unraisablehook

    def quiet(lost: sys.UnraisableHookArgs) -> None:
        if not isinstance(lost.exc_value, KeyboardInterrupt):
            report(lost)

    sys.unraisablehook = quiet


def seen() -> bool:
    """Whether there was an interrupt."""
    return _seen


def check() -> None:
    """Raise an interrupt that was lost."""
    if _seen:
        raise KeyboardInterrupt


def _interrupted(number: int, frame: FrameType | None) -> None:
    global _seen
    _seen = True
    raise KeyboardInterrupt
