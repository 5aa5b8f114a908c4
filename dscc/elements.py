"""Element types: their names, the ONNX codes, and what carries them where the machine has no such type.

Names are NumPy's, or ml_dtypes' for the types that NumPy lacks. Types that processors do not compute on (float8 and
narrower floats, 4- and 2-bit integers, complex64) are carried through compiled code as their bit patterns, in an
unsigned integer of the size that NumPy gives them: one byte an element for those of at most 8 bits. What only moves
elements then works on them unchanged, and what computes decodes them first.
"""

from __future__ import annotations

from typing import Any

import numpy as np

CARRIERS = {
    "float8_e4m3fn": "uint8",
    "float8_e4m3fnuz": "uint8",
    "float8_e5m2": "uint8",
    "float8_e5m2fnuz": "uint8",
    "float8_e8m0fnu": "uint8",
    "float6_e2m3fn": "uint8",
    "float6_e3m2fn": "uint8",
    "float4_e2m1fn": "uint8",
    "int4": "uint8",
    "uint4": "uint8",
    "int2": "uint8",
    "uint2": "uint8",
    "complex64": "uint64",
}
"""Element type to the type whose values are its bit patterns."""

ONNX = {
    "float32": "float",
    "float64": "double",
    "float8_e4m3fn": "float8e4m3fn",
    "float8_e4m3fnuz": "float8e4m3fnuz",
    "float8_e5m2": "float8e5m2",
    "float8_e5m2fnuz": "float8e5m2fnuz",
    "float8_e8m0fnu": "float8e8m0",
    "float6_e2m3fn": "float6e2m3",
    "float6_e3m2fn": "float6e3m2",
    "float4_e2m1fn": "float4e2m1",
}
"""Element type to ONNX's name of it, as in `tensor(float)`, where it is another one."""

BITS = {"int4": 4, "uint4": 4, "float4_e2m1fn": 4, "int2": 2, "uint2": 2, "float6_e2m3fn": 6, "float6_e3m2fn": 6}
"""Bits of an element, for the types that fill no byte."""


STRING = "string"
"""The element type of tensors of strings, which compiled code hands on as bytes (dscc/runtime/strings.py)."""


def carrier(name: str) -> str:
    """The type that carries elements of type `name` in compiled code."""
    return "uint8" if name == STRING else CARRIERS.get(name, name)


def onnx_name(name: str) -> str:
    """ONNX's name of an element type, as in `tensor(float)`."""
    return ONNX.get(name, name)


def numpy_dtype(name: str) -> np.dtype[Any]:
    """NumPy's type of this name; the types that NumPy lacks are from ml_dtypes, and strings are objects."""
    if name == STRING:
        return np.dtype(object)
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))


def coded(data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The bit patterns of an array whose type is carried by another; any other array as it is."""
    held = CARRIERS.get(data.dtype.name)
    return data if held is None else data.view(held)


def is_real(dtype: np.dtype[Any]) -> bool:
    """Whether the elements are real numbers, which ml_dtypes' types do not say of themselves."""
    return dtype.kind in "biuf" or dtype.name == "bfloat16" or (dtype.name in CARRIERS and dtype.kind != "c")
