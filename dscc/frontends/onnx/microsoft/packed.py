"""Products with weights of 2, 4 or 8 bits, which stay packed in the artifact and are expanded as they are multiplied.

Weights are rearranged once, while compiling: codes that are neighbours along the sum share a byte, and neighbouring
bytes belong to neighbouring columns, so that a panel of columns is expanded with whole vectors.

    codes (ceil(depth / per byte), columns) uint8    scales (blocks, columns)    zeros (blocks, columns), the same type
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import te, tirx

from dscc.frontends.onnx.compose import Standard
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.values import Array, Value


@dataclass(frozen=True)
class Packed:
    """A matrix (depth, columns) of which element (k, n) is (code(k, n) - zero) * scale, or table[code] * scale.

    Attributes:
        codes: (ceil(depth * bits / 8), columns). scales, zeros: (blocks, columns), float32.
        block: rows that share a scale. groups: (depth,), the block of each row, where it is not row // block.
        table: (2 ** bits,), what the codes stand for, if not for themselves.
    """

    depth: int
    bits: int
    block: int
    codes: Array
    scales: Array
    zeros: Array | None = None
    groups: Array | None = None
    table: Array | None = None


def multiply(node: Node, x: Value, weight: Packed) -> Value:
    """x (.., depth) @ weight, in float32: (.., columns)."""
    op, per = Standard(node), 8 // weight.bits
    node.require_equal(x.shape[-1], weight.depth, "the last dimension of the first operand")
    optional = {"zeros": weight.zeros, "groups": weight.groups, "table": weight.table}
    names = [name for name, array in optional.items() if array is not None]

    def compute(data: te.Tensor, codes: te.Tensor, scales: te.Tensor, *rest: te.Tensor) -> te.Tensor:
        given = dict(zip(names, rest, strict=True))
        k = te.reduce_axis((0, weight.depth), name="k")

        def element(*at: Any) -> Any:
            *rows, n = at
            code = tirx.Cast("int32", codes[k // per, n])
            if per > 1:
                shift = tirx.Cast("int32", (k % per) * weight.bits)
                code = tirx.bitwise_and(tirx.shift_right(code, shift), tirx.const(2**weight.bits - 1, "int32"))
            block = tirx.Cast("int64", given["groups"][k]) if "groups" in given else k // weight.block
            number = given["table"][code] if "table" in given else tirx.Cast("float32", code)
            if "zeros" in given:
                number = number - given["zeros"][block, n]
            return te.sum(data[(*rows, k)] * (number * scales[block, n]), axis=k)

        return te.compute((*data.shape[:-1], codes.shape[1]), element, name="matmul")

    wide = op.cast(x, "float32")
    constants = [node.value(array).expr for array in (weight.codes, weight.scales, *(optional[n] for n in names))]
    product = node.te(compute, wide.expr, *constants, name=f"matmul_of_{weight.bits}_bits")
    return op.cast(node.value(product), x.dtype)


def known(node: Node, value: Value, what: str) -> Array:
    """The content of a weight, which has to be a constant."""
    if value.constant is None:
        raise node.unsupported(f"{what} ('{value.name}') is computed when the model runs, which is not supported")
    return value.constant


def unpack(packed: Array, bits: int, count: int) -> Array:
    """The first `count` codes along the last axis, which share bytes from the low bits on."""
    per = 8 // bits
    shifts = np.arange(per, dtype=np.uint8) * np.uint8(bits)
    codes = (packed[..., None] >> shifts) & np.uint8(2**bits - 1)
    return codes.reshape(*packed.shape[:-1], -1)[..., :count]


def pack(codes: Array, bits: int) -> Array:
    """Codes (.., depth, columns), one a byte, with neighbours along the last axis but one sharing a byte."""
    per = 8 // bits
    short = -codes.shape[-2] % per
    padded = np.pad(codes, [*[(0, 0)] * (codes.ndim - 2), (0, short), (0, 0)]) if short else codes
    parts = padded.reshape(*padded.shape[:-2], padded.shape[-2] // per, per, padded.shape[-1])
    out = parts[..., 0, :].copy()
    for index in range(1, per):
        out |= parts[..., index, :] << np.uint8(index * bits)
    return out
