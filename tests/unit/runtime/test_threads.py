"""Many callers, few threads, nothing left over."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dscc.artifact import Artifact

Make = Callable[[str], Artifact]
SCALE = np.arange(64, dtype=np.float32)

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")


def thread_count() -> int:
    return len(os.listdir("/proc/self/task"))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def settles_at(count: int) -> bool:
    """Whether the number of threads gets down to `count`; a thread that was joined takes a moment to disappear."""
    deadline = time.monotonic() + 5
    while thread_count() > count and time.monotonic() < deadline:
        time.sleep(0.01)
    return thread_count() <= count


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_thousand_short_lived_callers(artifact: Make, threads: int):
    before = thread_count()
    module = artifact("scale").load(threads=threads)
    wrong: list[int] = []

    def caller(n: int) -> None:
        x = np.full((n, 64), n, np.float32)
        if not np.array_equal(module(x)[0], x * SCALE):
            wrong.append(n)

    caller(100)
    assert settles_at(before + threads - 1)
    for start in range(0, 1000, 50):
        callers = [threading.Thread(target=caller, args=(1 + i % 200,)) for i in range(start, start + 50)]
        for thread in callers:
            thread.start()
        for thread in callers:
            thread.join()
    assert not wrong
    assert settles_at(before + threads - 1)
    time.sleep(0.05)
    busy = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - busy < 0.02


def test_calls_run_side_by_side(artifact: Make):
    """The interpreter lock is released: while one thread runs the model, another computes in Python."""
    module = artifact("scale").load(threads=1)
    x = np.ones((200_000, 64), np.float32)
    ticks = 0
    done = threading.Event()

    def run() -> None:
        for _ in range(10):
            module(x)
        done.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(100)  # the lock changes hands only when it is released
    try:
        thread = threading.Thread(target=run)
        thread.start()
        while not done.is_set():
            ticks += 1
            time.sleep(0)
        thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert ticks > 20


def test_memory_stays(artifact: Make):
    module = artifact("scale").load(threads=2)
    rng = np.random.default_rng(0)

    def run(times: int) -> None:
        for n in rng.integers(1, 2000, times):
            module(np.ones((n, 64), np.float32))

    run(300)
    gc.collect()
    before = resident_bytes()
    run(1500)
    gc.collect()
    assert resident_bytes() - before < 8 << 20


def test_modules_come_and_go(artifact: Make):
    def once() -> None:
        assert artifact("scale").load(threads=2)(np.ones((100, 64), np.float32))[0][3, 5] == 5

    once()
    gc.collect()
    threads, files, maps = thread_count(), len(os.listdir("/proc/self/fd")), Path("/proc/self/maps").read_text()
    for _ in range(50):
        once()
    gc.collect()
    assert settles_at(threads)
    assert len(os.listdir("/proc/self/fd")) <= files
    assert Path("/proc/self/maps").read_text().count("model.so") <= maps.count("model.so")


def test_after_a_fork(artifact: Make, tmp_path: Path):
    """The child of a fork has none of the threads; it starts its own."""
    path = tmp_path / "scale.dscc"
    artifact("scale").save(path)
    program = f"""
        import os, signal
        import numpy as np
        import dscc
        module = dscc.load({str(path)!r}, threads=3)
        x = np.ones((100, 64), np.float32)
        want = module(x)[0]
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            os._exit(0 if np.array_equal(module(x)[0], want) else 1)
        status = os.waitpid(child, 0)[1]
        assert np.array_equal(module(x)[0], want)
        raise SystemExit(status != 0)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
