"""Whether another engine takes a region of the model, tried in a process of its own.

What a damaged model does to an engine is not ours to foresee: onnxruntime 1.32 ends the process with some graphs nested
a dozen deep. What leaves the child alive is then done here, where it raises what it raises.
"""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys

from dscc.runtime.engines import Engine, EngineError, Item

LIMIT_S = 60.0
_CHILD = """
import sys
from dscc.runtime.engines import ENGINES
engine = ENGINES[sys.argv[1]](sys.stdin.buffer.read(), 1)
if sys.argv[2] == "run":
    engine.run(())
"""
_TRIED: dict[bytes, str] = {}  # digests to why not; a model is cut several times, into regions that are mostly the same


def make(kind: type[Engine], model: bytes) -> Engine:
    """The engine for a model.

    Raises:
        EngineError: it does not take the model, or would end the process.
    """
    _survive(kind, model, "make")
    return kind(model, 1)


def run(kind: type[Engine], model: bytes) -> list[Item]:
    """The outputs of a model without inputs.

    Raises:
        EngineError: as above, or it failed to run it.
    """
    _survive(kind, model, "run")
    return kind(model, 0).run(())


def _survive(kind: type[Engine], model: bytes, what: str) -> None:
    if not kind.native:
        return
    key = hashlib.sha256(f"{kind.name} {what} ".encode() + model).digest()
    if key not in _TRIED:
        _TRIED[key] = _death([sys.executable, "-c", _CHILD, kind.name, what], model)
    if _TRIED[key]:
        raise EngineError(_TRIED[key])


def _death(command: list[str], model: bytes) -> str:
    try:
        status = subprocess.run(command, input=model, capture_output=True, timeout=LIMIT_S).returncode
    except subprocess.TimeoutExpired:
        return f"it takes more than {LIMIT_S:g} s"
    return f"it ends the process ({signal.Signals(-status).name})" if status < 0 else ""
