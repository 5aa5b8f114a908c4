"""The child process of one contestant: it obeys commands from a pipe and is quiet between them.

    python -m dscc.bench.worker ENGINE MODEL THREADS FEEDS.npz

Commands are lines on standard input, answers lines of JSON on standard output: `load`, `run N`, `peak`, `outputs FILE`,
and `prepare FOLDER`, in a process that is asked for nothing else. Whatever the engine prints goes to standard error, so
that it cannot be taken for an answer.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dscc.bench.ahead import ENGINES


def serve(engine_name: str, model: Path, threads: int, feeds_file: Path) -> Iterator[dict[str, Any]]:
    """Answer the commands of standard input one by one, until it closes."""
    import numpy as np

    with np.load(feeds_file) as archive:
        feeds = {name: archive[name] for name in archive.files}
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        if command == "prepare":
            ENGINES[engine_name].prepare(model, feeds, Path(argument))
            yield {}
        elif command == "load":
            start = time.perf_counter()
            engine = ENGINES[engine_name]()
            import_ms = _since_ms(start)
            before = resident_bytes()
            start = time.perf_counter()
            engine.load(model, threads)
            load_ms = _since_ms(start)
            start = time.perf_counter()
            engine.run(feeds)
            yield {"import_ms": import_ms, "load_ms": load_ms, "first_ms": _since_ms(start), "before_bytes": before}
        elif command == "run":
            wall_ms, cpu_ms = [], []
            for _ in range(int(argument)):
                start, cpu = time.perf_counter(), time.process_time()
                engine.run(feeds)
                wall_ms.append(_since_ms(start))
                cpu_ms.append((time.process_time() - cpu) * 1e3)
            yield {"wall_ms": wall_ms, "cpu_ms": cpu_ms}
        elif command == "outputs":
            outputs = engine.run(feeds)
            np.savez(argument, **{str(i): value for i, value in enumerate(outputs)})  # type: ignore[arg-type]
            yield {"count": len(outputs)}
        elif command == "peak":
            yield {"peak_bytes": peak_bytes()}


def _since_ms(start: float) -> float:
    return (time.perf_counter() - start) * 1e3


def resident_bytes() -> int:
    """Memory of this process that is resident now."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """The most memory of this process that was ever resident."""
    return _status("VmHWM")


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0


def main(args: list[str]) -> None:
    """Speak on the original standard output, and send everybody else's to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    engine, model, threads, feeds = args
    try:
        for answer in serve(engine, Path(model), int(threads), Path(feeds)):
            print(json.dumps(answer), file=answers, flush=True)
    # The parent decides what a failing engine means for the race; here it is only passed on.
    except Exception as err:  # noqa: BLE001
        said = " ".join(str(err).split())[:400]
        print(json.dumps({"error": f"{type(err).__name__}: {said}"}), file=answers, flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
