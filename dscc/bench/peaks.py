"""What this machine can do at most: arithmetic on registers and reading from memory, by kernels of our own."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tvm
from tvm import tirx

from dscc import kernel_pipeline, llvm
from dscc.runtime import ffi
from dscc.runtime.ffi import ALIGN
from dscc.runtime.program import load_library
from dscc.schedule.code import Code, broadcast, index
from dscc.targets.base import Target

_STEPS = 1 << 18  # of the arithmetic loop: a few milliseconds
_READ_BYTES = 256 << 20  # more than caches hold
_TASKS = 64
_VECTORS = 8  # loads in flight
_REPEATS = 9


@dataclass(frozen=True)
class Peaks:
    """Roofs in float32 operations and in bytes per second."""

    flops: float
    bytes: float


def measure(target: Target, threads: int) -> Peaks:
    """The peaks of this machine with `threads` threads, through the parallel loops that artifacts have: medians.

    Raises:
        TargetError: the kernels cannot be linked.
    """
    lanes, accumulators = target.machine.lanes(), max(4, target.machine.vector_registers * 3 // 4)
    library = ffi.runtime()
    kernels = {"arithmetic": _arithmetic(lanes, accumulators, threads), "reading": _reading(lanes)}
    module = _build(library, target, kernels, threads)
    get = library.function("ffi.ModuleGetFunction")

    def timed(name: str, *sizes: int) -> float:
        function = library.invoke(get, module, name, 1)
        assert isinstance(function, ffi.Ref)  # the library has just been made of it
        arrays = [np.full(size + ALIGN // 4, 0.5, np.float32) for size in sizes]
        starts = [-(-array.__array_interface__["data"][0] // ALIGN) * ALIGN for array in arrays]
        code = library.dtype("float32")
        tensors = [library.tensor(at, code, (size,)) for at, size in zip(starts, sizes, strict=True)]
        return _median_s(lambda: library.invoke(function, *tensors))

    operations = 2 * threads * _STEPS * accumulators * lanes
    return Peaks(
        operations / timed("arithmetic", 2, threads * lanes),
        _READ_BYTES / timed("reading", _READ_BYTES // 4, _TASKS * lanes),
    )


def _median_s(run: Callable[[], object]) -> float:
    run()
    times = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def _build(library: ffi.Library, target: Target, kernels: dict[str, tirx.PrimFunc], threads: int) -> ffi.Ref:
    named = {
        name: func.with_attrs({"global_symbol": name, "tirx.noalias": True, "tirx.is_scheduled": True})
        for name, func in kernels.items()
    }
    built = llvm.build(tvm.IRModule(named), target.tvm_target, kernel_pipeline.NAME)
    with tempfile.TemporaryDirectory(prefix="dscc-") as folder:
        made, linked = Path(folder) / "peaks.o", Path(folder) / "peaks.so"
        target.write_object(built, made)
        target.link([made], linked)
        module = load_library(library, memoryview(linked.read_bytes()))
    set_threads = library.invoke(library.function("ffi.ModuleGetFunction"), module, "dscc_set_threads", 1)
    if isinstance(set_threads, ffi.Ref):
        library.invoke(set_threads, threads)
    return module


def _arithmetic(lanes: int, accumulators: int, threads: int) -> tirx.PrimFunc:
    """Multiply-adds on registers, as many independent ones as hide their latency."""
    factors = tirx.decl_buffer((2,), "float32", "factors")
    out = tirx.decl_buffer((threads * lanes,), "float32", "out")
    code = Code()
    with code.loop(threads, "task", "parallel") as task:
        registers = [code.stack("acc", lanes) for _ in range(accumulators)]
        a, b = (code.bind(name, tirx.BufferLoad(factors, [index(i)])) for i, name in enumerate("ab"))
        for i, register in enumerate(registers):
            register.store(code, 0, broadcast(tirx.const(float(i), "float32"), lanes))
        with code.loop(_STEPS, "step"):
            for register in registers:
                register.store(code, 0, register.load(0, lanes) * broadcast(a, lanes) + broadcast(b, lanes))
        total = registers[0].load(0, lanes)
        for register in registers[1:]:
            total = total + register.load(0, lanes)
        code.add(tirx.BufferStore(out, total, [tirx.Ramp(task * lanes, index(1), lanes)]))
    return tirx.PrimFunc([factors, out], code.stmt())


def _reading(lanes: int) -> tirx.PrimFunc:
    """Sums of the elements of a buffer that no cache holds."""
    count = _READ_BYTES // 4
    data = tirx.decl_buffer((count,), "float32", "data")
    out = tirx.decl_buffer((_TASKS * lanes,), "float32", "out")
    each = count // _TASKS
    code = Code()
    with code.loop(_TASKS, "task", "parallel") as task:
        sums = [code.stack("sum", lanes) for _ in range(_VECTORS)]
        for each_sum in sums:
            each_sum.store(code, 0, broadcast(tirx.const(0.0, "float32"), lanes))
        with code.loop(each // (lanes * _VECTORS), "step") as step:
            for i, each_sum in enumerate(sums):
                at = task * each + (step * _VECTORS + i) * lanes
                value = tirx.BufferLoad(data, [tirx.Ramp(at, index(1), lanes)])
                each_sum.store(code, 0, each_sum.load(0, lanes) + value)
        total = sums[0].load(0, lanes)
        for each_sum in sums[1:]:
            total = total + each_sum.load(0, lanes)
        code.add(tirx.BufferStore(out, total, [tirx.Ramp(task * lanes, index(1), lanes)]))
    return tirx.PrimFunc([data, out], code.stmt())
