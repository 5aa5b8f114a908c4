"""Frames of kernels, in the assembly that comes out."""

from __future__ import annotations

import pytest
import tvm
from tvm import tirx

from dscc import codegen, targets


def assembly(lanes: int, kind: tirx.ForKind) -> str:
    """Of y[i] = x[i] + 1 over 64 rows of vectors."""
    x, y = (tirx.decl_buffer((64, lanes), "float32", name) for name in "xy")
    row, lane = tirx.Var("row", "int64"), tirx.Var("lane", "int64")
    zero, count, width = (tirx.const(n, "int64") for n in (0, 64, lanes))
    value = tirx.BufferLoad(x, [row, lane]) + tirx.const(1.0, "float32")
    inner = tirx.For(lane, zero, width, tirx.ForKind.VECTORIZED, tirx.BufferStore(y, value, [row, lane]))
    func = tirx.PrimFunc([x, y], tirx.For(row, zero, count, kind, inner)).with_attr("global_symbol", "kernel")
    (module,) = codegen.compile_kernels(tvm.IRModule({"kernel": func}), targets.resolve("x86:skylake-avx512"))
    return str(module.inspect_source("asm"))


@pytest.mark.parametrize(("kind", "frames"), [(tirx.ForKind.SERIAL, 1), (tirx.ForKind.PARALLEL, 2)])
def test_frames_of_vectors_begin_where_a_cache_line_does(kind: tirx.ForKind, frames: int) -> None:
    """To be seen on LLVM 22 without the pass: zmm registers are spilled to `n(%rsp)` of a frame that is not aligned."""
    assert assembly(16, kind).count("andq\t$-64, %rsp") == frames


def test_frames_without_long_vectors_are_left_alone() -> None:
    assert "andq" not in assembly(4, tirx.ForKind.PARALLEL)
