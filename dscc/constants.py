"""Constants of a module as arrays, and arrays as constants, without a copy of what is large."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax

from dscc import scratch
from dscc.elements import numpy_dtype

Array = np.ndarray[Any, np.dtype[Any]]


def constant(data: Array) -> relax.Expr:
    """A Relax constant of exactly the array's type (`relax.const(array)` would turn int64 into int32).

    A large array is not copied if it is contiguous: nobody may write to it afterwards. Small ones are, to aligned
    memory.
    """
    if data.nbytes < scratch.LEAST_BYTES:
        return relax.const(tvm.runtime.tensor(np.ascontiguousarray(data).reshape(data.shape)))
    if not data.flags.c_contiguous or not data.flags.writeable:  # DLPack cannot say that memory is read-only
        data = scratch.stored(data)
    plain = data if data.dtype.isbuiltin == 1 else data.view(f"u{data.itemsize}")  # DLPack of NumPy knows no bfloat16
    tensor = tvm_ffi.from_dlpack(plain)
    return relax.const(tensor if plain is data else tensor._create_view(data.shape, data.dtype.name))


def contents(tensor: tvm.runtime.Tensor) -> Array:
    """The content of a constant's tensor; nobody may write to it."""
    dtype = numpy_dtype(str(tensor.dtype))
    if tensor.numel() * dtype.itemsize < scratch.LEAST_BYTES:
        found: Array = tensor.numpy()
        return found
    if dtype.isbuiltin == 1:
        return np.from_dlpack(tensor)
    return np.from_dlpack(tensor._create_view(tuple(tensor.shape), f"uint{8 * dtype.itemsize}")).view(dtype)
