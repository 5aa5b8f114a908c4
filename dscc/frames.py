"""Stack frames of kernels that begin where a cache line does.

Registers that LLVM 22 spills late get places in the frame as the caller left it, at a multiple of 16 bytes: once it has
given away the frame pointer, it is too late to align them (`canRealignStack` in TargetRegisterInfo.cpp). In every other
process a kernel then has vectors across two lines: PP-OCR's recognizer took 13.8 ms in one and 16.4 in the next, as the
environment's length had it (`setarch -R`, and a variable 16 bytes longer). A frame with an array in it that wants a
whole line is aligned from the start. LLVM makes registers of arrays unless something asks for their address, which a
prefetch does, at the cost of one instruction.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

from dscc.schedule.microkernel import prefetch

_LINE = "float32x16"  # an array of less is aligned to 16 bytes by TVM 0.27
_LANES = 4  # more than so many lanes may be a vector longer than 16 bytes


def aligned_frames() -> Any:
    """The pass; parallel loops become functions of their own, so each has its array. It comes before what keeps local
    arrays on the stack, and after StorageRewrite, which would join them.
    """

    def with_array(body: tirx.Stmt) -> tirx.Stmt:
        array = tirx.decl_buffer((1,), _LINE, "line", scope="local")
        here = prefetch(tirx.BufferLoad(array, [tirx.const(0, "int32")]), 1)
        return tirx.SeqStmt([tirx.AllocBuffer(array), tirx.Evaluate(here), body])

    def of_loop(loop: tirx.For) -> tirx.For:
        if loop.kind != tirx.ForKind.PARALLEL:
            return loop
        return tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, with_array(loop.body))

    @tirx.transform.prim_func_pass(opt_level=0, name="dscc.aligned_frames")
    def rewrite(func: tirx.PrimFunc, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tirx.PrimFunc:
        if not _has_vectors(func.body):
            return func
        return func.with_body(with_array(tvm_ffi.structural_map(func.body, (tirx.For, of_loop))))

    return rewrite


def _has_vectors(body: tirx.Stmt) -> bool:
    found: list[tirx.Ramp] = []
    tvm_ffi.structural_walk(body, (tirx.Ramp, found.append))
    # Of vectors whose length the processor decides on, the lanes are an expression; their places are not in lines.
    return any(isinstance(ramp.lanes, tirx.IntImm | int) and int(ramp.lanes) > _LANES for ramp in found)
