"""Runs on inputs of shapes that came before, replayed as a CUDA graph: one launch for all kernels of a model.

The third run on the same tensors is captured; by then TVM's allocator has every block that the run needs. A graph reads
those tensors and writes a result that it keeps. Other runs may use the same memory in between: all of them, and all
replays, follow one another on one stream.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import byref, c_int, c_ulonglong, c_void_p
from typing import Any

from dscc.runtime import ffi

_BEFORE = 2  # runs before one is captured
_MOST = 8  # graphs that a session keeps
_CUDA = 2  # DLPack's number of the device type
_NON_BLOCKING, _RELAXED = 1, 2  # cudaStreamNonBlocking, cudaStreamCaptureModeRelaxed


class Cudart:
    """As much of NVIDIA's runtime library as graphs take; every function gives 0, or an error's number."""

    def __init__(self, library: ctypes.CDLL):
        def declare(name: str, *arguments: Any) -> Any:
            function = library[name]
            function.argtypes = arguments
            return function

        self.create_stream = declare("cudaStreamCreateWithFlags", c_void_p, c_int)
        self.destroy_stream = declare("cudaStreamDestroy", c_void_p)
        self.begin_capture = declare("cudaStreamBeginCapture", c_void_p, c_int)
        self.end_capture = declare("cudaStreamEndCapture", c_void_p, c_void_p)
        self.instantiate = declare("cudaGraphInstantiate", c_void_p, c_void_p, c_ulonglong)
        self.destroy_graph = declare("cudaGraphDestroy", c_void_p)
        self.destroy = declare("cudaGraphExecDestroy", c_void_p)
        self.launch = declare("cudaGraphLaunch", c_void_p, c_void_p)
        self.forget_error = declare("cudaGetLastError")


class Graphs:
    """The graphs of one session.

    Args:
        library: TVM's runtime.
        cudart: NVIDIA's.
        launch: runs the model on the session's inputs, its result into a value, and gives TVM's status.
    """

    def __init__(self, library: ffi.Library, cudart: Cudart, launch: Callable[[ffi.Value], int]):
        self._library, self._cudart, self._launch = library, cudart, launch
        self._seen: dict[tuple[int, ...], int] = {}
        self._graphs: dict[tuple[int, ...], _Graph | None] = {}

    def run(self, inputs: Sequence[int], result: ffi.Value) -> int:
        """Run the model; `result` gets a reference of its own. Gives TVM's status.

        Args:
            inputs: the handles of the tensors that hold the inputs.
        """
        key = tuple(inputs)
        graph = self._graphs.get(key)
        if graph is None:
            seen = self._seen[key] = self._seen.get(key, 0) + 1
            if seen <= _BEFORE or key in self._graphs or len(self._graphs) == _MOST:
                return self._launch(result)
            graph = self._graphs[key] = self._captured(key)
            if graph is None:
                return self._launch(result)
        if graph.replay() != 0:
            raise ffi.RuntimeFailure("InternalError", "a CUDA graph could not be launched")
        self._library.incref(graph.result.bits)
        result.kind, result.bits = graph.result.kind, graph.result.bits
        return 0

    def _captured(self, inputs: tuple[int, ...]) -> _Graph | None:
        """The run as a graph; None if it does something that no graph can hold."""
        cudart, result, stream, graph = self._cudart, ffi.Value(), c_void_p(), c_void_p()
        if cudart.create_stream(byref(stream), _NON_BLOCKING) != 0:
            return None
        before = self._library.set_stream(_CUDA, stream.value)
        try:
            cudart.begin_capture(stream, _RELAXED)
            ran = self._library.succeeds(self._launch(result))
            captured = cudart.end_capture(stream, byref(graph)) == 0 and bool(graph.value)
        finally:
            self._library.set_stream(_CUDA, before)
            cudart.destroy_stream(stream)
            cudart.forget_error()
        executable = c_void_p()
        if ran and captured and cudart.instantiate(byref(executable), graph, 0) == 0:
            cudart.destroy_graph(graph)
            return _Graph(self._library, cudart, executable, inputs, result)
        if captured:
            cudart.destroy_graph(graph)
        if ran:
            self._library.decref(result.bits)
        return None


class _Graph:
    """A captured run: the tensors that it reads, and the result that it writes."""

    def __init__(
        self, library: ffi.Library, cudart: Cudart, executable: c_void_p, inputs: tuple[int, ...], result: ffi.Value
    ):
        self._library, self._cudart, self._executable, self._inputs = library, cudart, executable, inputs
        self.result = result
        for handle in inputs:
            library.incref(handle)

    def replay(self) -> int:
        """Launch it on the stream of everything else; an error's number, or 0."""
        return int(self._cudart.launch(self._executable, None))

    def __del__(self) -> None:
        self._cudart.destroy(self._executable)
        for handle in (*self._inputs, self.result.bits):
            self._library.decref(handle)
