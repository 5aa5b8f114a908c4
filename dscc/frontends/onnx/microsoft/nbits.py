"""Products with and look-ups in weights that are quantized in blocks: MatMulNBits, MatMulBnb4, GatherBlockQuantized."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import te, tirx
from tvm.relax import Expr

from dscc.elements import coded
from dscc.frontends.onnx.compose import Standard
from dscc.frontends.onnx.microsoft import contrib
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.shapes import shape_expr
from dscc.frontends.onnx.values import Array, Value
from dscc.schedule.codes.define import FLOAT_BITS, HALF_BITS, Packed, bits_of, compact, pack, reals, unpack

# The sixteen numbers of NormalFloat (Dettmers et al. 2023, arXiv:2305.14314) and of bitsandbytes' FP4.
_NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
_FP4_SIZES = (0.0, 0.0052083333, 2 / 3, 1.0, 1 / 3, 0.5, 1 / 6, 0.25)
_FP4 = (*_FP4_SIZES, *(-size for size in _FP4_SIZES))


@contrib("MatMulNBits")
def matmul_nbits(
    node: Node,
    x: Value,
    weight: Value,
    scales: Value,
    zeros: Value | None = None,
    groups: Value | None = None,
    bias: Value | None = None,
) -> Value:
    """x (.., K) @ W', with the codes of W (N, blocks, bytes of a block)."""
    depth, columns = node.required("K", int), node.required("N", int)
    bits, block = node.attr("bits", 4), node.required("block_size", int)
    if bits not in (2, 4, 8):
        raise node.unsupported(f"weights of {bits} bits are not supported; 2, 4 and 8 are")
    if node.attr("weight_prepacked", 0):
        raise node.unsupported("weight_prepacked is set: the weights are laid out for one device; export them plain")
    blocks = -(-depth // block)
    rows = known(node, weight, "the weight").reshape(columns, -1)
    codes = unpack(rows, bits, depth).T if 8 % bits or depth % (8 // bits) else None
    packed = Packed(
        depth,
        bits,
        block,
        np.ascontiguousarray(rows[:, : depth * bits // 8].T) if codes is None else pack(codes, bits),
        _table(node, scales, "the scales", columns, blocks),
        _zeros(node, zeros, bits, columns, blocks),
        None if groups is None else known(node, groups, "the groups").astype(np.int32)[:depth],
    )
    # 2, 3 and 4 are float16, bfloat16 and int8: rows of two digits are more precise than either.
    result = _multiply(node, x, packed, HALF_BITS if node.attr("accuracy_level", 0) >= 2 else FLOAT_BITS)
    return result if bias is None else Standard(node).Add(result, bias)


def _multiply(node: Node, x: Value, weight: Packed, row_bits: int = FLOAT_BITS) -> Value:
    """x (.., depth) @ weight, computed in float32: (.., columns)."""
    op = Standard(node)
    node.require_equal(x.shape[-1], weight.depth, "the last dimension of the first operand")
    constants = [node.value(array).expr for array in weight.arrays]
    row_bits = min(row_bits, bits_of(x.dtype))
    product = node.te(
        weight.product(row_bits), op.cast(x, "float32").expr, *constants, name=f"matmul_of_{weight.bits}_bits"
    )
    return op.cast(node.value(product), x.dtype)


def known(node: Node, value: Value, what: str) -> Array:
    """The content of a weight, which has to be a constant."""
    if value.constant is None:
        raise node.unsupported(f"{what} ('{value.name}') is computed when the model runs, which is not supported")
    return value.constant


def _table(node: Node, value: Value, what: str, columns: int, blocks: int) -> Array:
    """(columns, blocks) of any float as float32 or float16 (blocks, columns)."""
    return reals(known(node, value, what).reshape(columns, blocks).T)


def _zeros(node: Node, zeros: Value | None, bits: int, columns: int, blocks: int) -> Array | float:
    """The zero points: (blocks, columns), or one number."""
    if zeros is None:
        return float(2 ** (bits - 1))
    if zeros.dtype != "uint8":
        return compact(_table(node, zeros, "the zero points", columns, blocks).astype(np.float32))
    codes = unpack(known(node, zeros, "the zero points").reshape(columns, -1), bits, blocks)
    return compact(np.ascontiguousarray(codes.T).astype(np.float32))


@contrib("MatMulBnb4")
def matmul_bnb4(node: Node, x: Value, weight: Value, scales: Value) -> Value:
    """x (.., K) @ W' or, without transB, x (.., N) @ W: W (N, K) has its codes and blocks in one line, and in each byte
    the high bits come first.
    """
    k, n, block = node.required("K", int), node.required("N", int), node.required("block_size", int)
    raw = known(node, weight, "the weight").reshape(-1)
    codes = np.stack([raw >> np.uint8(4), raw & np.uint8(15)], axis=-1).reshape(-1)[: n * k].reshape(n, k)
    each = known(node, scales, "the scales").reshape(-1).astype(np.float32)
    table = np.array((_FP4, _NF4)[node.required("quant_type", int)], np.float32)
    turned = bool(node.attr("transB", 1))
    depth = k if turned else n
    if turned and k % block == 0:
        factors, run = np.ascontiguousarray(each.reshape(n, -1).T), block
    else:  # a block goes on in the next row, or lies across the sum: a scale for each element
        spread = np.repeat(each, block)[: n * k].reshape(n, k)
        factors, run = np.ascontiguousarray(spread.T if turned else spread), 1
    packed = Packed(depth, 4, run, pack(codes.T if turned else codes, 4), factors, table=table)
    return _multiply(node, x, packed)


@contrib("GatherBlockQuantized", patterns=True)
def gather_block_quantized(node: Node, data: Value, indices: Value, scales: Value, zeros: Value | None = None) -> Expr:
    """Rows of a table that is quantized in blocks along `quantize_axis`; an index that is out of range gives zeros."""
    raw = known(node, data, "the table")
    if data.element.startswith("float"):
        raise node.unsupported(f"a table of {data.element} is not supported; integers of 2, 4 and 8 bits are")
    bits = node.attr("bits", 4) if data.element == "uint8" else 4
    codes = unpack(raw, bits, raw.shape[-1] * 8 // bits) if data.element == "uint8" else coded(raw) & np.uint8(15)
    signed = data.element == "int4"
    gather, along = node.axis(node.attr("gather_axis", 0), raw.ndim), node.axis(node.attr("quantize_axis", 1), raw.ndim)
    block, size = node.attr("block_size", 128), codes.shape
    blocks = -(-size[along] // block)
    factors = known(node, scales, "the scales")
    if zeros is not None:
        shifts = coded(known(node, zeros, "the zero points"))
        shifts = unpack(shifts, bits, blocks) if data.element == "uint8" and along == raw.ndim - 1 else shifts
        if data.element == "uint8" and along != raw.ndim - 1:
            shifts = unpack(shifts, bits, size[-1])
        shifts = shifts & np.uint8(2**bits - 1)
    else:
        middle = 2 ** (bits - 1) if data.element == "uint8" else 0
        shifts = np.full(factors.shape, middle, np.uint8)
    per = 8 // bits
    stored = pack(codes[..., None], bits)[..., 0]
    count, rank = size[gather], indices.ndim

    def sign(code: Any) -> Any:
        return tirx.bitwise_xor(code, tirx.const(8, "int32")) - 8 if signed else code

    def compute(table: te.Tensor, ids: te.Tensor, scale: te.Tensor, zero: te.Tensor, shape: Any) -> te.Tensor:
        def element(*at: Any) -> Any:
            index = tirx.Cast("int64", ids(*at[gather : gather + rank]))
            wrapped = tirx.Select(index < 0, index + count, index)
            inside = tirx.all(wrapped >= 0, wrapped < count)
            place = [*at[:gather], tirx.Select(inside, wrapped, tirx.const(0, "int64")), *at[gather + rank :]]
            code = tirx.Cast("int32", table(*place[:-1], place[-1] // per))
            shift = tirx.Cast("int32", (place[-1] % per) * bits)
            code = tirx.bitwise_and(tirx.shift_right(code, shift), tirx.const(2**bits - 1, "int32"))
            group = [*place[:along], place[along] // block, *place[along + 1 :]]
            number = sign(code) - sign(tirx.Cast("int32", zero(*group)))
            value = tirx.Cast("float32", number) * tirx.Cast("float32", scale(*group))
            return tirx.if_then_else(inside, tirx.Cast(scale.dtype, value), tirx.const(0, scale.dtype))

        return te.compute(list(shape), element, name="gather")

    shape = shape_expr([*size[:gather], *indices.shape, *size[gather + 1 :]])
    constants = [node.value(np.ascontiguousarray(array)).expr for array in (stored, factors, shifts)]
    return node.te(compute, constants[0], indices.expr, *constants[1:], shape, name=f"gather_of_{bits}_bits")
