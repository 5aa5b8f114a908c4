"""TVM's C ABI (tvm/ffi/c_api.h), as much of it as running an artifact takes, through ctypes.

Neither `tvm` nor `tvm_ffi` is imported: `tvm` brings the compiler (260 MB), and `tvm_ffi` imports torch wherever it is
installed (1.5 s), importlib.metadata and more (0.1 s). The ABI is stable by its header's promise, a call through it
takes under a microsecond, and ctypes releases the interpreter lock while it runs.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable, Sequence
from ctypes import (
    POINTER,
    Structure,
    byref,
    c_char_p,
    c_int32,
    c_int64,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)
from functools import cache
from pathlib import Path
from typing import Any

from dscc.errors import ArtifactError

NONE, INT, DTYPE, DEVICE, RAW_STRING = 0, 1, 5, 6, 8
OBJECTS = 64  # type indices from here on are objects, with a reference count
STRING, BYTES, FUNCTION, TENSOR, ARRAY, MODULE = 65, 66, 68, 70, 71, 73
ALIGN = 64  # of the data of a tensor: kernels load and store whole vectors
CELL = 24  # bytes of an object's header; its content (DLTensor, ErrorCell, SeqCell) follows

CPU_DEVICE = 1
ABI = (0, 1)


class Value(Structure):
    """TVMFFIAny: a tagged value of 16 bytes; `bits` is an int64, a pointer or an object's handle."""

    _fields_ = [("kind", c_int32), ("zero", c_uint32), ("bits", c_int64)]


class Text(Structure):
    """TVMFFIByteArray."""

    _fields_ = [("data", c_void_p), ("size", c_uint64)]

    def read(self) -> str:
        return ctypes.string_at(self.data, self.size).decode(errors="replace") if self.data else ""


class DataType(Structure):
    """DLDataType."""

    _fields_ = [("code", c_uint8), ("bits", c_uint8), ("lanes", c_uint16)]


class DLTensor(Structure):
    """DLPack's description of a tensor; `shape` and `strides` are addresses of int64 arrays, strides count elements."""

    _fields_ = [
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("dtype", DataType),
        ("shape", c_void_p),
        ("strides", c_void_p),
        ("byte_offset", c_uint64),
    ]


class ManagedTensor(Structure):
    """DLManagedTensor: a DLTensor and the function that frees it."""

    _fields_ = [("tensor", DLTensor), ("context", c_void_p), ("deleter", c_void_p)]


class _ErrorCell(Structure):
    _fields_ = [("kind", Text), ("message", Text), ("backtrace", Text)]


class _Sequence(Structure):
    """The start of TVMFFISeqCell."""

    _fields_ = [("data", c_void_p), ("size", c_int64)]


# TVMFFISafeCallType: (context, address of the arguments, their number, address of the result) to 0, or -1 if it failed.
_SafeCall = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p, c_int32, c_void_p)


class RuntimeFailure(Exception):
    """TVM raised an error. `kind` is its class, as in ValueError or InternalError."""

    def __init__(self, kind: str, message: str):
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message


class Ref:
    """Owns one reference to an object of TVM."""

    __slots__ = ("_library", "handle")

    def __init__(self, library: Library, handle: int):
        self._library = library
        self.handle = handle

    def __del__(self) -> None:
        self._library.decref(self.handle)


class Callback(Ref):
    """A function of TVM that is one of Python's; it must outlive every call."""

    __slots__ = ("_entry",)

    def __init__(self, library: Library, handle: int, entry: object):
        super().__init__(library, handle)
        self._entry = entry


class Library:
    """libtvm_ffi.so and libtvm_runtime.so, loaded into this process."""

    def __init__(self) -> None:
        # libtvm_runtime.so refers to libtvm_ffi.so, and kernels refer to both, without saying where they are.
        self._ffi = _open("tvm_ffi", "libtvm_ffi.so")
        self.call = self._declare("TVMFFIFunctionCall", c_void_p, c_void_p, c_int32, c_void_p)
        self.incref = self._declare("TVMFFIObjectIncRef", c_void_p)
        self.decref = self._declare("TVMFFIObjectDecRef", c_void_p)
        self._get_global = self._declare("TVMFFIFunctionGetGlobal", POINTER(Text), POINTER(c_void_p))
        self._from_dlpack = self._declare("TVMFFITensorFromDLPack", c_void_p, c_int32, c_int32, POINTER(c_void_p))
        self._dtype = self._declare("TVMFFIDataTypeFromString", POINTER(Text), POINTER(DataType))
        self._create = self._declare("TVMFFIFunctionCreate", c_void_p, c_void_p, c_void_p, POINTER(c_void_p))
        self._raise = self._declare("TVMFFIErrorSetRaisedFromCStr", c_char_p, c_char_p)
        self._move_raised = self._declare("TVMFFIErrorMoveFromRaised", POINTER(c_void_p))
        self._set_stream = self._declare("TVMFFIEnvSetStream", c_int32, c_int32, c_void_p, POINTER(c_void_p))
        self._check_version()
        self._runtime = _open("tvm", "lib/libtvm_runtime.so")
        libc = ctypes.CDLL(None)
        self._malloc = libc.malloc
        self._malloc.argtypes, self._malloc.restype = [ctypes.c_size_t], c_void_p
        self._free = ctypes.cast(libc.free, c_void_p).value

    def _declare(self, name: str, *arguments: Any) -> Any:
        function = self._ffi[name]
        function.argtypes = arguments
        return function

    def _check_version(self) -> None:
        found = (c_uint32 * 3)()
        self._ffi.TVMFFIGetVersion(found)
        if tuple(found[:2]) != ABI:
            have, want = ".".join(map(str, found)), ".".join(map(str, ABI))
            raise ArtifactError(
                f"the installed apache-tvm-ffi has ABI version {have}, and dscc needs {want}; "
                "install the version that dscc asks for: pip install --force-reinstall dscc"
            )

    def load_extra(self) -> None:
        """Load the functions that most artifacts do not call, and that TVM keeps in a library of their own."""
        _open("tvm", "lib/libtvm_runtime_extra.so")

    def load_backend(self, name: str) -> None:
        """Load TVM's runtime for a kind of device, as in `cuda`.

        Raises:
            OSError: a library that it needs is missing.
        """
        _open("tvm", f"lib/libtvm_runtime_{name}.so")

    def function(self, name: str) -> Ref:
        """A function that TVM registers under a global name."""
        handle = c_void_p()
        raw = name.encode()
        self.check(self._get_global(byref(Text(ctypes.cast(c_char_p(raw), c_void_p), len(raw))), byref(handle)))
        if not handle.value:
            raise RuntimeFailure("ValueError", f"TVM has no function '{name}'")
        return Ref(self, handle.value)

    def invoke(self, function: Ref, *arguments: int | str | Ref | Value | None) -> Ref | int | None:
        """Call a function of TVM; for setting up, not for the fast path."""
        result = self._invoke(function, arguments)
        if result.kind >= OBJECTS:
            return Ref(self, result.bits)
        return None if result.kind == NONE else int(result.bits)

    def text(self, function: Ref, *arguments: int | str | Ref) -> str:
        """Call a function of TVM whose result is a string."""
        result = self._invoke(function, arguments)
        text = text_of(ctypes.addressof(result))
        if result.kind >= OBJECTS:
            self.decref(result.bits)
        return text

    def _invoke(self, function: Ref, arguments: Sequence[int | str | Ref | Value | None]) -> Value:
        values = (Value * max(len(arguments), 1))()
        texts = []
        for value, argument in zip(values, arguments, strict=False):
            if isinstance(argument, Ref):
                value.kind, value.bits = type_of(argument.handle), argument.handle
            elif isinstance(argument, str):
                texts.append(c_char_p(argument.encode()))
                value.kind, value.bits = RAW_STRING, ctypes.cast(texts[-1], c_void_p).value
            elif isinstance(argument, Value):
                value.kind, value.bits = argument.kind, argument.bits
            elif argument is not None:
                value.kind, value.bits = INT, argument
        result = Value()
        self.check(self.call(function.handle, values, len(arguments), byref(result)))
        return result

    def callback(self, function: Callable[[int, int, int], None]) -> Callback:
        """A function of TVM that calls `function` with the addresses of its arguments, their number, and the address
        of its result, which is None so far: arrays of `Value`.
        """

        def call(_: object, arguments: int, count: int, result: int) -> int:
            try:
                function(arguments, count, result)
            except BaseException as err:  # noqa: BLE001  no exception may cross the C frames that called us
                self._raise(type(err).__name__.encode(), str(err).encode())
                return -1
            return 0

        entry = _SafeCall(call)
        handle = c_void_p()
        self.check(self._create(None, ctypes.cast(entry, c_void_p), None, byref(handle)))
        assert handle.value is not None  # the call succeeded
        return Callback(self, handle.value, entry)

    def check(self, status: int) -> None:
        """Raise what TVM raised, if `status`, the result of one of its functions, says so.

        Raises:
            RuntimeFailure: it failed.
        """
        if status != 0:
            handle = c_void_p()
            self._move_raised(byref(handle))
            if not handle.value:
                raise RuntimeFailure("InternalError", "TVM failed without a message")
            error = Ref(self, handle.value)
            cell = _ErrorCell.from_address(error.handle + CELL)
            raise RuntimeFailure(cell.kind.read(), cell.message.read())

    def succeeds(self, status: int) -> bool:
        """Whether `status` says so; what TVM raised is dropped."""
        try:
            self.check(status)
        except RuntimeFailure:
            return False
        return True

    def set_stream(self, device_type: int, stream: int | None) -> int | None:
        """Have this thread's kernels of the first device of a type launched on a stream; gives the one before."""
        before = c_void_p()
        self.check(self._set_stream(device_type, 0, stream, byref(before)))
        return before.value

    def dtype(self, name: str) -> DataType:
        """DLPack's code of an element type."""
        result = DataType()
        raw = name.encode()
        self.check(self._dtype(byref(Text(ctypes.cast(c_char_p(raw), c_void_p), len(raw))), byref(result)))
        return result

    def tensor(self, data: int, dtype: DataType, shape: tuple[int, ...]) -> Ref:
        """A tensor of TVM over memory that the caller keeps alive; shape and strides can be changed in place.

        The description is freed by whoever drops the tensor last, which may be TVM.
        """
        return self._describe(self._block(len(shape), 0), data, dtype, shape)

    def own_tensor(self, dtype: DataType, shape: tuple[int, ...], nbytes: int) -> tuple[Ref, int]:
        """A tensor of TVM with memory of its own, and the address of that memory, which nothing has been written to."""
        block = self._block(len(shape), nbytes + ALIGN)
        start = block + _described(len(shape))
        data = start + -start % ALIGN
        return self._describe(block, data, dtype, shape), data

    def _block(self, rank: int, more_bytes: int) -> int:
        block = self._malloc(_described(rank) + more_bytes)
        if not block:
            raise MemoryError
        return int(block)

    def _describe(self, block: int, data: int, dtype: DataType, shape: tuple[int, ...]) -> Ref:
        rank = len(shape)
        managed = ManagedTensor.from_address(block)
        numbers = block + ctypes.sizeof(ManagedTensor)
        managed.tensor = DLTensor(data, CPU_DEVICE, 0, rank, dtype, numbers, numbers + 8 * rank, 0)
        managed.context, managed.deleter = None, self._free
        write_shape(managed.tensor, shape)
        handle = c_void_p()
        self.check(self._from_dlpack(block, 0, 0, byref(handle)))
        assert handle.value is not None  # the call succeeded
        return Ref(self, handle.value)


def _described(rank: int) -> int:
    """The bytes of a tensor's description, with its shape and its strides."""
    return ctypes.sizeof(ManagedTensor) + 2 * rank * 8


def write_shape(tensor: DLTensor, shape: tuple[int, ...]) -> None:
    """Set shape and the strides of a contiguous tensor."""
    rank = len(shape)
    numbers = c_int64 * rank
    sizes, strides = numbers.from_address(tensor.shape), numbers.from_address(tensor.strides)
    step = 1
    for axis in range(rank - 1, -1, -1):
        sizes[axis], strides[axis] = shape[axis], step
        step *= shape[axis]


def of_dtype(dtype: DataType) -> Value:
    """An element type as an argument."""
    return Value(DTYPE, 0, dtype.code | dtype.bits << 8 | dtype.lanes << 16)


def of_device(device_type: int) -> Value:
    """The first device of a type as an argument."""
    return Value(DEVICE, 0, device_type)


def text_of(address: int) -> str:
    """The string in the value at this address."""
    value = Value.from_address(address)
    if value.kind == RAW_STRING:
        return ctypes.string_at(value.bits).decode()
    if value.kind == STRING:
        return Text.from_address(value.bits + CELL).read()
    # Short strings are kept in the value itself, with their length where others have padding.
    return ctypes.string_at(address + Value.bits.offset, value.zero).decode()


def type_of(handle: int) -> int:
    """The type index of an object."""
    return c_int32.from_address(handle + 8).value


def tensor_of(handle: int) -> DLTensor:
    """The description inside of a tensor object."""
    return DLTensor.from_address(handle + CELL)


def items_of(handle: int) -> tuple[int, ...]:
    """The handles of the objects in an array object."""
    cell = _Sequence.from_address(handle + CELL)
    return tuple((c_int64 * (2 * cell.size)).from_address(cell.data)[1::2]) if cell.size else ()


def numbers_of(handle: int) -> tuple[int, ...]:
    """The numbers in a shape object."""
    cell = _Sequence.from_address(handle + CELL)
    return tuple((c_int64 * cell.size).from_address(cell.data)) if cell.size else ()


@cache
def runtime() -> Library:
    """The libraries of TVM that run artifacts, loaded when they are first asked for.

    Raises:
        ArtifactError: they are not installed.
    """
    return Library()


def _open(package: str, file: str) -> ctypes.CDLL:
    spec = importlib.util.find_spec(package)  # of a package at the top, it executes nothing
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in (Path(folder) / file, Path(folder) / "lib" / file):
            if path.exists():
                return ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    raise ArtifactError(f"TVM's runtime library {Path(file).name} is not installed; run 'pip install apache-tvm'")
