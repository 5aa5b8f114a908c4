"""One virtual machine of TVM and everything that a run of it needs, made once: a run allocates its outputs and no more.

A virtual machine serves one caller at a time, from whichever thread; `Module` hands sessions out.
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dscc.elements import STRING, carrier, numpy_dtype
from dscc.runtime import containers, ffi, strings
from dscc.runtime.inputs import Array

if TYPE_CHECKING:
    from dscc.artifact.manifest import TensorSpec
    from dscc.runtime.device import Device
    from dscc.runtime.program import Program

_SHAPES = 8  # of an input, whose tensors on the device are kept
SMALL_BYTES = 8 << 10  # up to here, copying an array is cheaper than finding out where it is or who owns it
# TVM's allocator that leaves reuse to malloc. The other one keeps all that it ever allocated, by exact size: on a model
# with a dynamic width, 150 widths took 1309 MB with it and 245 MB with malloc, at the same speed.
_NAIVE = 1


class Session:
    """Runs a program, one call at a time."""

    def __init__(self, program: Program):
        library = program.library
        self._library = library
        self._program = program  # keeps kernels and weights
        load = library.invoke(program.get_function, program.executable, "vm_load_executable", 0)
        self._machine = _object(library.invoke(_object(load)))
        start = library.invoke(program.get_function, self._machine, "vm_initialization", 0)
        device = program.device.machine if program.device else ()
        library.invoke(_object(start), *device, ffi.CPU_DEVICE, 0, _NAIVE)
        self._main = _object(library.invoke(program.get_function, self._machine, "main", 0))
        self._outputs = [
            _Output(dtype, library.dtype(carrier(spec.dtype)))
            for dtype, spec in zip(program.output_dtypes, program.outputs, strict=True)
        ]
        self._count = len(program.inputs) + len(program.weights)
        self._arguments = (ffi.Value * max(self._count, 1))()
        self._ports = [_port(program, i, self._arguments[i]) for i in range(len(program.inputs))]
        for i, weight in enumerate(program.weights, len(self._ports)):
            self._arguments[i].kind, self._arguments[i].bits = ffi.TENSOR, weight.handle
        self._result = ffi.Value()
        self._arguments_address = ctypes.addressof(self._arguments)
        self._graphs = program.device.graphs(self._launch) if program.device and program.replayable else None

    def instrument(self, function: ffi.Ref) -> None:
        """Have `function` called before and after every call that the virtual machine makes.

        Its arguments: the function, its name, whether it is before the call, the result, and the call's arguments.
        """
        library = self._library
        setter = _object(library.invoke(self._program.get_function, self._machine, "set_instrument", 0))
        library.invoke(setter, function)

    def run(self, arrays: Sequence[Array], wanted: Sequence[int]) -> list[Array]:
        """The outputs at the positions `wanted`. They own their memory.

        Args:
            arrays: one for each input, of its type and of a shape that it takes.
            wanted: positions of outputs.

        Raises:
            RuntimeFailure: TVM raised an error.
        """
        for port, array in zip(self._ports, arrays, strict=True):
            port.bind(array)
        result, library = self._result, self._library
        if self._graphs is None:
            status = self._launch(result)
        else:
            status = self._graphs.run([self._arguments[i].bits for i in range(len(self._ports))], result)
        if status != 0:
            library.check(status)
        try:
            handles = ffi.items_of(result.bits) if result.kind == ffi.ARRAY else (result.bits,)
            if self._program.plain:
                return [self._take(handles[i], self._outputs[i], handles) for i in wanted]
            return [self._take_any(i, handles) for i in wanted]
        finally:
            library.decref(result.bits)

    def _launch(self, result: ffi.Value) -> int:
        result.kind = result.bits = 0
        address = ctypes.addressof(result)
        return int(self._library.call(self._main.handle, self._arguments_address, self._count, address))

    def _take_any(self, index: int, handles: Sequence[int]) -> Any:
        spec, output = self._program.outputs[index], self._outputs[index]
        if spec.plain:
            return self._take(handles[index], output, handles)
        if spec.dtype == STRING:
            return containers.take(spec.around, handles[index], lambda handle: strings.decode(_content(handle)))
        # One tensor may be in several places: copies keep the caller's arrays apart.
        return containers.take(spec.around, handles[index], lambda handle: self._take(handle, output, (handle, handle)))

    def _take(self, handle: int, output: _Output, handles: Sequence[int]) -> Array:
        address, shape, nbytes = output.look(handle)
        device = self._program.device
        if device is not None and ffi.tensor_of(handle).device_type != ffi.CPU_DEVICE:
            return device.read(handle, output.code, np.empty(shape, output.dtype))
        if nbytes <= SMALL_BYTES:
            return np.ndarray(shape, output.dtype, bytearray(ctypes.string_at(address, nbytes)))
        owner = _Owner(self._program, handle, address, nbytes)
        array: Array = np.ndarray(shape, output.dtype, np.asarray(owner))
        # An output that is an input or a weight, or a view of it, does not own its memory: hand out a copy.
        shared = self._program.owns(address) or any(port.covers(address) for port in self._ports)
        return array.copy() if shared or handles.count(handle) > 1 else array


def _content(handle: int) -> bytes:
    """The bytes of a vector of bytes."""
    tensor = ffi.tensor_of(handle)
    return ctypes.string_at(tensor.data + tensor.byte_offset, ctypes.c_int64.from_address(tensor.shape).value)


def _port(program: Program, index: int, argument: ffi.Value) -> _Port | containers.ContainerPort | _DevicePort:
    spec = program.inputs[index]
    if not spec.plain:
        return containers.ContainerPort(program.library, spec, argument, program.alignment)
    if program.device is None or index in program.on_host:
        return _Port(program.library, spec, argument, program.alignment)
    return _DevicePort(program.library, program.device, spec, argument)


class _Port:
    """An input: an argument of `main` that is a tensor of TVM, which is made to describe the array of every run."""

    def __init__(self, library: ffi.Library, spec: TensorSpec, argument: ffi.Value, align: int):
        self._library = library
        self._argument = argument
        self._align = align
        self._dtype = numpy_dtype(spec.dtype)
        self._code = library.dtype(carrier(spec.dtype))
        self._shape: tuple[int, ...] | None = None
        self._bytes = 0
        self._data = 0
        self._buffer: Array | None = None
        self._staged: Array | None = None
        self._staged_address = 0

    def bind(self, array: Array) -> None:
        """Make the tensor describe `array`, or an aligned copy of it."""
        if array.shape != self._shape:
            self._reshape(array)
        if self._bytes > SMALL_BYTES and array.flags.c_contiguous and array.dtype.isnative:
            address = array.__array_interface__["data"][0]
            if address % self._align == 0:
                self._point(address)
                return
        if self._staged is None:
            self._stage()
        np.copyto(self._staged, array)  # type: ignore[arg-type]
        self._point(self._staged_address)

    def covers(self, address: int) -> bool:
        """Whether the address lies in what the tensor describes now."""
        return self._data <= address < self._data + self._bytes

    def _point(self, address: int) -> None:
        if address != self._data:
            self._tensor.data = self._data = address

    def _reshape(self, array: Array) -> None:
        ref = self._library.tensor(0, self._code, array.shape)
        self._argument.kind, self._argument.bits = ffi.TENSOR, ref.handle
        self._ref = ref
        self._tensor = ffi.tensor_of(ref.handle)
        self._bytes = array.size * self._dtype.itemsize
        self._staged = None
        self._data = 0
        self._shape = array.shape

    def _stage(self) -> None:
        assert self._shape is not None  # bind has set it
        if self._buffer is None or not self._bytes + ffi.ALIGN <= self._buffer.nbytes <= 2 * (self._bytes + ffi.ALIGN):
            self._buffer = np.empty(self._bytes + ffi.ALIGN, np.uint8)
        address = self._buffer.__array_interface__["data"][0]
        start = -address % ffi.ALIGN
        self._staged = self._buffer[start : start + self._bytes].view(self._dtype).reshape(self._shape)
        self._staged_address = address + start


class _DevicePort:
    """An input that is copied to the device: the argument is a tensor there."""

    def __init__(self, library: ffi.Library, device: Device, spec: TensorSpec, argument: ffi.Value):
        self._device, self._argument = device, argument
        self._here = ffi.Value()
        self._port = _Port(library, spec, self._here, ffi.ALIGN)
        self._dtype = library.dtype(carrier(spec.dtype))
        self._shape: tuple[int, ...] | None = None
        self._kept: dict[tuple[int, ...], ffi.Ref] = {}

    def bind(self, array: Array) -> None:
        """Copy the array to the tensor."""
        self._port.bind(array)
        if array.shape != self._shape:
            if array.shape not in self._kept:
                if len(self._kept) == _SHAPES:
                    del self._kept[next(iter(self._kept))]
                self._kept[array.shape] = self._device.tensor(self._dtype, array.shape)
            self._there = self._kept[array.shape]
            self._argument.kind, self._argument.bits = ffi.TENSOR, self._there.handle
            self._shape = array.shape
        self._device.copy(self._here, self._there)

    def covers(self, address: int) -> bool:
        """Whether the caller's memory is what the model works on: never."""
        return False


class _Output:
    """An output's type, and the shape that it had last."""

    def __init__(self, dtype: np.dtype[Any], code: ffi.DataType):
        self.dtype, self.code = dtype, code
        self._raw = b"none yet"
        self._shape: tuple[int, ...] = ()
        self._bytes = 0

    def look(self, handle: int) -> tuple[int, tuple[int, ...], int]:
        """Address, shape and size in bytes of a tensor that is this output."""
        data, rank, shape, offset = _TENSOR.unpack(ctypes.string_at(handle + ffi.CELL, _TENSOR.size))
        raw = ctypes.string_at(shape, 8 * rank) if rank else b""
        if raw != self._raw:
            self._raw = raw
            self._shape = struct.unpack(f"={rank}q", raw)
            self._bytes = math.prod(self._shape) * self.dtype.itemsize
        return data + offset, self._shape, self._bytes


# DLTensor's data, ndim, shape and byte_offset; read as bytes, since ctypes' structures take five times as long.
_TENSOR = struct.Struct("=Q8xi4xQ8xQ")


class _Owner:
    """The memory of an output, given back when the last array over it is dropped; what frees it may be a function of
    the model's library, which `program` keeps.
    """

    __slots__ = ("__array_interface__", "_handle", "_program")

    def __init__(self, program: Program, handle: int, address: int, nbytes: int):
        program.library.incref(handle)
        self._program = program
        self._handle = handle
        self.__array_interface__ = {"data": (address, False), "shape": (nbytes,), "typestr": "|u1", "version": 3}

    def __del__(self) -> None:
        self._program.library.decref(self._handle)


def _object(value: Any) -> ffi.Ref:
    if not isinstance(value, ffi.Ref):
        raise ffi.RuntimeFailure("InternalError", f"TVM answered {value!r} where an object was expected")
    return value
