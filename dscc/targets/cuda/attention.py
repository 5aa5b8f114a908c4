"""Attention in halves on the tensor cores; dscc/targets/cuda/device/attention.cuh says how."""

from __future__ import annotations

from typing import ClassVar

from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.base import Scheduled
from dscc.schedule.code import Index, ceildiv, constant, index
from dscc.schedule.decisions import Decisions
from dscc.targets.cuda.kernel import CudaKernel, device_source, int32, nonempty
from dscc.targets.cuda.machine import CudaMachine, CudaRule
from dscc.targets.cuda.tensor import FILES

ELEMENTS = {"float16": ("dscc::Float16", "half"), "bfloat16": ("dscc::Bfloat16", "nv_bfloat16")}
_BLOCK = 64  # keys in a block
_WARPS = 4
_LARGEST = 128  # elements of a head: queries and results are in registers


class TensorAttention(CudaRule):
    """Functions that carry the attribute `dscc.attention`, in float16 and bfloat16."""

    name: ClassVar[str] = "tensor-attention"

    def write(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: CudaMachine, decisions: Decisions
    ) -> Scheduled | None:
        if not func.attrs or "dscc.attention" not in func.attrs:
            return None
        if not machine.has_mma:
            return None
        params = [p for p in func.params if tirx.is_buffer_var(p)]
        dtype = str(params[0].dtype)
        sizes = [constant(n) for p in (*params[:3], params[-1]) for n in p.shape[2:]]
        if dtype not in ELEMENTS or any(str(p.dtype) != dtype for p in params) or any(n is None for n in sizes):
            return None
        q, k, v, out = params[0], params[1], params[2], params[-1]
        size, value_size = int(q.shape[3]), int(v.shape[3])
        if size % 16 or value_size % 16 or max(size, value_size) > _LARGEST:
            return None
        bias = params[3] if len(params) == 5 else None
        bias_strides = _bias_strides(bias)
        causal = str(func.attrs["dscc.attention.causal"])
        queries, keys = q.shape[1], k.shape[1]
        last: Index = 0 if causal in ("", "TopLeft") else tirx.abs(index(keys) - index(queries))
        scale = tirx.FloatImm("float32", float(func.attrs["dscc.attention.scale"].value))
        heads, groups = int(q.shape[2]), int(k.shape[2])
        element, kind = ELEMENTS[dtype]
        flags = f"{str(bool(causal)).lower()}, {str(bias is not None).lower()}"
        code = CudaKernel()
        source = device_source(*FILES, "attention.cuh")
        pointers = [buffer.data for buffer in (q, k, v, out, bias if bias is not None else q)]
        counts = [int32(n) for n in (queries, keys, heads, groups)]
        fits = [tall for tall in (2, 1) if _shared_bytes(tall, size, value_size) <= machine.block_bytes]
        fits = list(decisions.pick("tall", [tuple(fits), *((tall,) for tall in fits if len(fits) > 1)]))
        with code.when(nonempty(q.shape[0])):
            for tall in fits:
                # 32 queries for each warp read keys and values half as often, and are too many for short sequences
                rows = _WARPS * 16 * tall  # one height is for all lengths where the tuner chose it
                long = index(queries) > rows // 2
                with code.when(index(queries) > 0 if len(fits) == 1 else long if tall == 2 else _short(queries, rows)):
                    name = f"dscc::attend<{element}, {kind}, {size}, {value_size}, {_WARPS}, {tall}, {flags}>"
                    with code.blocks([ceildiv(queries, rows), index(q.shape[0]) * heads], _WARPS * 32):
                        shared = code.block_bytes("tiles", _shared_bytes(tall, size, value_size))
                        at = tirx.address_of(tirx.BufferLoad(shared, [0]))
                        code.call(name, at, *pointers, *counts, scale, int32(last), *bias_strides, source=source)
        return Scheduled(func.with_body(code.stmt()))


def _short(queries: Index, rows: int) -> Expr:
    return tirx.And(index(queries) > 0, index(queries) <= rows)


def _shared_bytes(tall: int, size: int, value_size: int) -> int:
    """Shared memory of a block: its queries, and two blocks of keys and values; 16 bytes more for every row."""
    return _WARPS * 16 * tall * (2 * size + 16) + 2 * _BLOCK * (2 * size + 16 + 2 * value_size + 16)


def _bias_strides(bias: tirx.Var | None) -> list[Expr]:
    """Elements from one (batch, head, query) to the next, 0 along what the bias has only one of."""
    if bias is None:
        return [index(0)] * 3
    strides: list[Expr] = []
    step: Expr = index(bias.shape[3])
    for extent in reversed(bias.shape[:3]):
        strides.append(index(0) if constant(extent) == 1 else step)
        step = step * index(extent)
    return strides[::-1]
