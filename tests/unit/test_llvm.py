"""What threads that generate code at once do to each other."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest

import dscc
from dscc import emit, llvm
from dscc.options import CompileOptions

TILE = """<ir_version: 10, opset_import: ["": 20]> f (float[3, 8, 8] x) => (float[6, 16, 24] y)
    <int64[3] times = {2, 2, 3}> { y = Tile(x, times) }"""


def test_every_thread_generates_the_same_code(monkeypatch: pytest.MonkeyPatch) -> None:
    build, asked = llvm.build, []

    def recorded(*args: Any) -> Any:
        asked.append(args)
        return build(*args)

    monkeypatch.setattr(llvm, "build", recorded)
    emit.emit(onnx.parser.parse_model(TILE), CompileOptions(), "asm")
    (args,) = asked
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: build(*args).inspect_source("ll"), range(200)))
    assert len(set(found)) == 1


def test_calls_of_several_threads_take_turns() -> None:
    model = onnx.parser.parse_model(TILE)
    x = np.random.default_rng(0).standard_normal((3, 8, 8)).astype(np.float32)
    found: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: found.append(dscc.compile(model).load()(x)[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(np.array_equal(y, np.tile(x, (2, 2, 3))) for y in found)
