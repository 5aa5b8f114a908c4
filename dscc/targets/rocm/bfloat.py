"""Kernels in bfloat16, which TVM 0.27 cannot write in OpenCL C: its code generator knows no such type.

It knows half, whose operations are spelled as bfloat16's would be. So functions with bfloat16 are given to it as
functions with float16, marked, and in the source of marked kernels `half` is read as `bfloat`, a type of
dscc/targets/rocm/device/opencl.h. To see whether this is still needed: leave out `as_halves` in Rocm.spelled; TVM says
"Cannot convert type bfloat16 to OpenCL type".
"""

from __future__ import annotations

import re

import tvm
from tvm import tirx

_MARK = "dscc_bfloat"
_HALF = re.compile(r"\b(convert_|as_)?half(2|3|4|8|16)?\b")
_KERNEL = re.compile(r"^__kernel void (\w+)\([^\n]*\) \{\n.*?^\}\n", re.M | re.S)


def has_both(func: tirx.PrimFunc) -> bool:
    """Whether both 16-bit types are in the function, so that one cannot stand for the other."""
    text = tvm.ir.save_json(func)
    return '"bfloat16' in text and '"float16' in text


def as_halves(kernel: tirx.PrimFunc) -> tirx.PrimFunc:
    """A kernel with float16 for bfloat16, and a mark; as it is if it has none."""
    text = tvm.ir.save_json(kernel)
    if '"bfloat16' not in text:
        return kernel
    # Types are text in it, as "bfloat16" and "bfloat16x4".
    halves = tvm.ir.load_json(text.replace('"bfloat16', '"float16'))
    mark = tirx.Evaluate(tirx.call_extern("int32", _MARK))
    return halves.with_body(tirx.SeqStmt([mark, halves.body]))


def with_bfloat(source: str) -> str:
    """The source of kernels with bfloat for half in those that are marked."""
    marked = {kernel[1] for kernel in _KERNEL.finditer(source) if f"{_MARK}();" in kernel[0]}
    if not marked:
        return source

    def renamed(found: re.Match[str]) -> str:
        if found[1] not in marked:
            return found[0]
        return _HALF.sub(lambda half: f"{half[1] or ''}bfloat{half[2] or ''}", found[0]).replace(f"{_MARK}();", "")

    declared = re.compile(r"^__kernel void (\w+)\([^\n]*\);$", re.M)
    return _KERNEL.sub(renamed, declared.sub(renamed, source))
