"""Where the time of a run goes: every call of a kernel, timed by the virtual machine's instrument.

The instrument is called before and after every call, which costs a microsecond or two; the least that it ever measured
around a call that does nothing is taken off.
"""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dscc.runtime import ffi
from dscc.runtime.arithmetic import evaluate
from dscc.runtime.inputs import Array, InputSpecs
from dscc.runtime.program import Program
from dscc.runtime.session import Session

if TYPE_CHECKING:
    from dscc.artifact import Artifact

VALUE = ctypes.sizeof(ffi.Value)
HEADER = 4  # arguments of the instrument before those of the call: function, name, before or after, result
_BEFORE = 2  # which of them says that the call is still to come


@dataclass(frozen=True)
class Call:
    """One call of a kernel.

    Attributes:
        kernel: the name of the function.
        start_ns, time_ns: since the run began, and how long it took.
        bytes: of all its tensors.
        sizes: of every argument: a tensor's shape, or (n,) for a number.
    """

    kernel: str
    start_ns: int
    time_ns: int
    bytes: int
    sizes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Run:
    """One run of a model: its calls in order."""

    calls: tuple[Call, ...]
    time_ns: int


class Profiler:
    """Runs an artifact with its instrument set.

    Attributes:
        device: what runs the kernels, as its driver says it; empty for a processor.

    Args:
        artifact: what is run.
        threads: processor cores that its parallel loops may use.
    """

    def __init__(self, artifact: Artifact, threads: int):
        program = Program(artifact, threads)
        library = program.library
        self._inputs = InputSpecs(artifact.manifest.inputs, artifact.manifest.summary.get("may_be_empty", ()))
        self._session, self._plain = Session(program), Session(program)
        self._wanted = range(len(artifact.manifest.outputs))
        self._kernels = frozenset(artifact.manifest.kernels.get("functions", ()))
        self._device = program.device
        self.device = program.device.name if program.device else ""
        self._callback = library.callback(self._instrument)
        self._session.instrument(self._callback)
        self._open: list[int] = []
        self._calls: list[Call] = []
        self._least_ns = 1 << 62

    def bind(self, feeds: Mapping[str, Any]) -> list[Array]:
        """The inputs in the model's order.

        Raises:
            InputError: they do not fit the model.
        """
        arrays: list[Array] = self._inputs.bind((), feeds)
        self._inputs.check(tuple(array.shape for array in arrays))
        return arrays

    def run(self, arrays: Sequence[Array]) -> Run:
        """Run twice: once undisturbed, for the time that a run takes, and once with the instrument, for the calls."""
        begin = time.perf_counter_ns()
        self._plain.run(arrays, self._wanted)
        total = time.perf_counter_ns() - begin
        self._open, self._calls = [], []
        begin = time.perf_counter_ns()
        self._session.run(arrays, self._wanted)
        calls = [
            Call(call.kernel, call.start_ns - begin, max(0, call.time_ns - self._least_ns), call.bytes, call.sizes)
            for call in self._calls
        ]
        return Run(tuple(calls), total)

    def _instrument(self, arguments: int, count: int, result: int) -> None:
        if self._device is not None:
            self._device.wait()  # launches return before their kernels are done
        now = time.perf_counter_ns()
        if is_before(arguments):
            self._open.append(time.perf_counter_ns())
            return
        begin = self._open.pop()
        self._least_ns = min(self._least_ns, now - begin)
        name = ffi.text_of(arguments + VALUE)
        if name in self._kernels:
            values = [ffi.Value.from_address(arguments + i * VALUE) for i in range(HEADER, count)]
            sizes = tuple(sizes_of(value) for value in values)
            moved = sum(_bytes(value) for value in values)
            self._calls.append(Call(name, begin, now - begin, moved, sizes))


def is_before(arguments: int) -> bool:
    """Whether the instrument, with these arguments, is called before the kernel."""
    return bool(ffi.Value.from_address(arguments + _BEFORE * VALUE).bits)


def sizes_of(value: ffi.Value) -> tuple[int, ...]:
    """A tensor's shape, (n,) for a number."""
    if value.kind == ffi.TENSOR:
        tensor = ffi.tensor_of(value.bits)
        return tuple((ctypes.c_int64 * tensor.ndim).from_address(tensor.shape)) if tensor.ndim else ()
    return (int(value.bits),) if value.kind == ffi.INT else ()


def _bytes(value: ffi.Value) -> int:
    if value.kind != ffi.TENSOR:
        return 0
    dtype = ffi.tensor_of(value.bits).dtype
    return math.prod(sizes_of(value)) * ((dtype.bits * dtype.lanes + 7) // 8)


def flops(function: Mapping[str, Any], sizes: Sequence[Sequence[int]]) -> int | None:
    """Arithmetic operations of one call of a kernel, or None if that is not known.

    Args:
        function: its entry in the manifest.
        sizes: as in `Call`.
    """
    if "flops" not in function:
        return None
    dims = {name: sizes[place[0]][place[1] if len(place) > 1 else 0] for name, place in function["dims"].items()}
    return evaluate(function["flops"], dims)
