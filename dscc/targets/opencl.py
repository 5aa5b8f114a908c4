"""Elementary functions in OpenCL C, by their names, where TVM's code generator writes those of C.

TVM 0.27 knows some of OpenCL's functions (intrin_rule_opencl.cc) and gives others the names of C's for float, `atanf`,
which no OpenCL compiler has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import tvm_ffi
from tvm import ir, tirx

UNKNOWN_TO_TVM = ("asin", "acos", "atan", "tan", "asinh", "acosh", "atanh", "log1p")


def by_name(names: Iterable[str]) -> Callable[[ir.Call], ir.Expr]:
    """What makes of a call of one of TIR's functions a call of OpenCL's of that name; others stay as they are."""
    known = {f"tirx.{name}": name for name in names}

    def replaced(call: ir.Call) -> ir.Expr:
        name = known.get(call.op.name) if isinstance(call.op, ir.Op) else None
        return call if name is None else tirx.call_pure_extern(str(call.ty.dtype), name, *call.args)

    return replaced


def with_functions(func: tirx.PrimFunc, replaced: Callable[[ir.Call], ir.Expr]) -> tirx.PrimFunc:
    """`func` with its calls replaced."""
    return tvm_ffi.structural_map(func, (ir.Call, replaced))
