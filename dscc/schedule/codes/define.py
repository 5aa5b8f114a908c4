"""A weight of few bits, and the product with it.

Codes that are neighbours along the sum share a byte, and neighbouring bytes belong to neighbouring columns, so that a
panel of columns is expanded with whole vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import te, tirx

Array = np.ndarray

ROW_BITS = "dscc.row_bits"
"""Annotation of a product: see `Packed.product`."""
FLOAT_BITS, HALF_BITS = 24, 11


@dataclass(frozen=True)
class Packed:
    """A matrix (depth, columns) of which element (k, n) is (code(k, n) - zero) * scale, or table[code] * scale.

    Attributes:
        codes: (ceil(depth * bits / 8), columns), uint8.
        scales: (blocks, columns), float32 or float16.
        zeros: (blocks, columns), float32 or uint8; or one number for all.
        block: rows that share a scale. groups: (depth,), the block of each row, where it is not row // block.
        table: (2 ** bits,), what the codes stand for, if not for themselves.
    """

    depth: int
    bits: int
    block: int
    codes: Array
    scales: Array
    zeros: Array | float = 0.0
    groups: Array | None = None
    table: Array | None = None

    @property
    def arrays(self) -> list[Array]:
        """What `product` takes behind the data."""
        optional = (self.zeros if isinstance(self.zeros, np.ndarray) else None, self.groups, self.table)
        return [self.codes, self.scales, *(array for array in optional if array is not None)]

    def product(self, row_bits: int = FLOAT_BITS) -> Callable[..., te.Tensor]:
        """x (.., depth) and `arrays` to x @ weight, (.., columns), in float32.

        Args:
            row_bits: of the numbers in x, that a schedule has to keep of the largest of a block.
        """
        optional = {"zeros": isinstance(self.zeros, np.ndarray), "groups": self.groups is not None}
        names = [*(name for name, is_there in optional.items() if is_there), *(["table"] * (self.table is not None))]
        per = 8 // self.bits

        def compute(data: te.Tensor, codes: te.Tensor, scales: te.Tensor, *rest: te.Tensor) -> te.Tensor:
            given = dict(zip(names, rest, strict=True))
            k = te.reduce_axis((0, self.depth), name="k")

            def element(*at: Any) -> Any:
                *rows, n = at
                code = tirx.Cast("int32", codes[k // per, n])
                if per > 1:
                    shift = tirx.Cast("int32", (k % per) * self.bits)
                    code = tirx.bitwise_and(tirx.shift_right(code, shift), tirx.const(2**self.bits - 1, "int32"))
                block = tirx.Cast("int64", given["groups"][k]) if "groups" in given else k // self.block
                number = given["table"][code] if "table" in given else tirx.Cast("float32", code)
                if "zeros" in given:
                    number = number - _real(given["zeros"], block, n)
                elif self.zeros:
                    number = number - tirx.const(self.zeros, "float32")
                return te.sum(data[(*rows, k)] * (number * _real(scales, block, n)), axis=k)

            shape = (*data.shape[:-1], codes.shape[1])
            return te.compute(shape, element, name="matmul", attrs={ROW_BITS: row_bits})

        return compute


def bits_of(dtype: str) -> int:
    """Of the numbers of a type, as ROW_BITS: of halves less than of float32."""
    return HALF_BITS if dtype in ("float16", "bfloat16") else FLOAT_BITS


def _real(table: te.Tensor, *at: Any) -> Any:
    return table[at] if table.dtype == "float32" else tirx.Cast("float32", table[at])


def reals(scales: Array) -> Array:
    """Scales of any float as float16, if that is what they are, else as float32."""
    return np.ascontiguousarray(scales if scales.dtype == np.float16 else scales.astype(np.float32))


def compact(zeros: Array) -> Array | float:
    """Zeros of float32 as what takes the least memory: one number if they are all the same, bytes if they fit."""
    if zeros.size and (zeros == zeros.flat[0]).all():
        return float(zeros.flat[0])
    bytes_ = np.clip(np.nan_to_num(zeros), 0, 255).astype(np.uint8)
    return bytes_ if (bytes_ == zeros).all() else zeros


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
