"""Running candidates of a kernel in turns with its default, on a processor or a device, and comparing the results.

Constants are taken from as many copies as fill the caches: in a model, the weights of a kernel have to come from
memory, since all other weights were read in between.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dscc.elements import numpy_dtype
from dscc.runtime import device, ffi
from dscc.runtime.ffi import ALIGN
from dscc.runtime.program import load_library
from dscc.tune.kernel import ENTRY, Built, Kernel

_COPIES_BYTES = 64 << 20  # of constants that are used in turns, at most
_MOST_COPIES = 16
_SLICE_S = 5e-4  # that one side of a pair runs at least; short, so that some are not interrupted
TOLERANCE = 1e-4
"""Of the largest output: how far a candidate's result in float32 or wider may be from the default's."""
_IN_HALVES = {"float16": 2**-9, "bfloat16": 2**-6}  # two units in the last place of the largest


@dataclass(frozen=True)
class Measured:
    """A candidate beside the default.

    Attributes:
        error: largest difference of the outputs, as a part of the largest output; for one in halves, as many times
            `TOLERANCE` as it is times what halves may differ by.
        ratio: candidate's time over default's, both the least of all turns: what other processes add is never negative.
        time_ns: of a call of the candidate, the least.
    """

    error: float
    ratio: float
    time_ns: float


def measure(kernel: Kernel, default: Built, candidate: Built, threads: int, pairs: int, limit: float) -> Measured:
    """Time `candidate` and `default` in turns, on the same random inputs.

    Args:
        threads: of parallel loops.
        pairs: how many turns.
        limit: stop after five turns if the candidate takes longer than this many times the default.
    """
    base, tried = _Loaded(kernel, default, threads), _Loaded(kernel, candidate, threads)
    base.run(1)
    tried.run(1)
    error = largest_difference(tried.outputs(), base.outputs())
    once = max(1e-7, _timed(base.run, 1))
    count = max(1, int(_SLICE_S / once))
    theirs = mine = float("inf")
    for turn in range(pairs):
        theirs = min(theirs, _timed(base.run, count))
        mine = min(mine, _timed(tried.run, count))
        if turn >= 4 and mine > limit * theirs:
            break
    return Measured(error, mine / theirs, mine / count * 1e9)


def _timed(run: Callable[[int], None], count: int) -> float:
    begin = time.perf_counter()
    run(count)
    return time.perf_counter() - begin


def largest_difference(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> float:
    """As `Measured.error`."""
    return max((difference(a, b) for a, b in zip(found, wanted, strict=True)), default=0.0)


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    if wanted.size == 0 or found.tobytes() == wanted.tobytes():
        return 0.0
    if wanted.dtype.kind not in "fV":  # NumPy knows no bfloat16
        return np.inf
    a, b = found.astype("float64"), wanted.astype("float64")
    same = (np.isnan(a) & np.isnan(b)) | (a == b)
    with np.errstate(invalid="ignore"):
        worst = float(np.where(same, 0.0, np.abs(a - b)).max())
    finite = np.abs(b[np.isfinite(b)])
    scale = TOLERANCE / _IN_HALVES.get(str(wanted.dtype), TOLERANCE)
    return scale * worst / (float(finite.max()) or 1.0) if finite.size and np.isfinite(worst) else np.inf


def arrays(kernel: Kernel, built: Built) -> list[np.ndarray | int]:
    """Random arguments, the same for every candidate; constants in the layout that it wants."""
    rng = np.random.default_rng(0)
    made: list[np.ndarray | int] = []
    for i, argument in enumerate(kernel.arguments):
        if argument.role == "number":
            made.append(argument.size[0])
            continue
        dtype = numpy_dtype(argument.dtype)
        if argument.role == "output":
            value = np.zeros(argument.size, dtype)
        elif dtype.kind in "fV":
            value = rng.standard_normal(argument.size, np.float32).astype(dtype)
        else:
            value = rng.integers(0, 2, argument.size).astype(dtype)  # 0 and 1 are valid as indices and as masks
        if i in built.packings:
            value = np.ascontiguousarray(built.packings[i].pack(value))
        made.append(value)
    return made


class _Loaded:
    """A candidate in this process, with arguments for its calls in the memory that they run on."""

    def __init__(self, kernel: Kernel, built: Built, threads: int):
        self._library = library = ffi.runtime()
        self._device = device.opened(built.device) if built.device else None
        self._module = load_library(library, memoryview(built.library))
        get = library.function("ffi.ModuleGetFunction")
        function = library.invoke(get, self._module, ENTRY, 1)
        assert isinstance(function, ffi.Ref)  # `build` put it there
        self._function = function
        set_threads = library.invoke(get, self._module, "dscc_set_threads", 1)
        if isinstance(set_threads, ffi.Ref):
            library.invoke(set_threads, threads)
        made = arrays(kernel, built)
        self._kept: list[object] = []  # memory and its descriptions
        self._outputs: list[tuple[np.ndarray, ffi.Ref]] = []
        constants = {i for i, argument in enumerate(kernel.arguments) if argument.role == "constant"}
        size = sum(item.nbytes for i, item in enumerate(made) if i in constants and isinstance(item, np.ndarray))
        copies = max(1, min(_MOST_COPIES, _COPIES_BYTES // size)) if size else 1
        first = [self._value(item, kernel.arguments[i].role == "output") for i, item in enumerate(made)]
        self._calls = [self._pack(first)]
        for _ in range(copies - 1):
            again = [self._value(item) if i in constants else first[i] for i, item in enumerate(made)]
            self._calls.append(self._pack(again))
        self._next = 0

    def run(self, count: int) -> None:
        """Call it `count` times."""
        call, handle, result = self._library.call, self._function.handle, ffi.Value()
        address = ctypes.addressof(result)
        for _ in range(count):
            values = self._calls[self._next]
            self._next = (self._next + 1) % len(self._calls)
            status = call(handle, ctypes.addressof(values), len(values), address)
            if status != 0:
                self._library.check(status)
        if self._device is not None:
            self._device.wait()

    def outputs(self) -> list[np.ndarray]:
        """What the last call wrote."""
        if self._device is not None:
            for array, tensor in self._outputs:
                self._device.read(tensor.handle, self._library.dtype(str(array.dtype)), array)
        return [array for array, _ in self._outputs]

    def _value(self, item: np.ndarray | int, output: bool = False) -> tuple[int, int]:
        """Kind and bits of an argument; arrays are copied to memory that vectors may be loaded from."""
        if isinstance(item, int):
            return ffi.INT, item
        memory = np.empty(item.nbytes + ALIGN, np.uint8)
        start = -memory.__array_interface__["data"][0] % ALIGN
        array = memory[start : start + item.nbytes].view(item.dtype).reshape(item.shape)
        np.copyto(array, item)
        code = self._library.dtype(str(item.dtype))
        tensor = self._library.tensor(array.__array_interface__["data"][0], code, item.shape)
        if self._device is not None:
            here, tensor = tensor, self._device.tensor(code, item.shape)
            self._device.copy(here, tensor)
        if output:
            self._outputs.append((array, tensor))
        self._kept += [memory, tensor]
        return ffi.TENSOR, tensor.handle

    def _pack(self, pairs: Sequence[tuple[int, int]]) -> ctypes.Array[ffi.Value]:
        values = (ffi.Value * len(pairs))()
        for value, (kind, bits) in zip(values, pairs, strict=True):
            value.kind, value.bits = kind, bits
        return values
