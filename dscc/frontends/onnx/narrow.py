"""Arithmetic on the bit patterns of types that processors lack: to a type that they have, and from one, as expressions
for kernels.

Narrow floats are decoded by placing exponent and fraction into a float32 and scaling it, which takes subnormal numbers
along. They are encoded by rounding the bits of a wider float to the nearest, ties to even; below the narrow type's
normal range the float adder rounds, by adding a number whose last bit weighs as much as the narrow type's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import tirx

from dscc.elements import BITS

Expr = Any  # a tirx expression


@dataclass(frozen=True)
class Format:
    """A narrow float.

    Attributes:
        exponent, fraction: their numbers of bits; a sign goes before them. bias: of the exponent.
        top: pattern of the largest finite number. infinity, nan: their patterns, None where the type has none.
        negative_zero: whether there is one; where there is none, its pattern is NaN.
    """

    exponent: int
    fraction: int
    bias: int
    top: int
    infinity: int | None = None
    nan: int | None = None
    negative_zero: bool = True

    @property
    def sign(self) -> int:
        """The pattern of the sign bit."""
        return 1 << (self.exponent + self.fraction)


FORMATS = {
    "float8_e4m3fn": Format(4, 3, 7, 0x7E, nan=0x7F),
    "float8_e4m3fnuz": Format(4, 3, 8, 0x7F, nan=0x80, negative_zero=False),
    "float8_e5m2": Format(5, 2, 15, 0x7B, infinity=0x7C, nan=0x7E),
    "float8_e5m2fnuz": Format(5, 2, 16, 0x7F, nan=0x80, negative_zero=False),
    "float6_e2m3fn": Format(2, 3, 1, 0x1F),
    "float6_e3m2fn": Format(3, 2, 3, 0x1F),
    "float4_e2m1fn": Format(2, 1, 1, 0x7),
}
INTEGERS = ("int4", "uint4", "int2", "uint2")
_FRACTION, _BIAS, _INFINITY = 23, 127, 0x7F800000  # of a float32
POWERS = "float8_e8m0fnu"  # a power of two and nothing else: 2 ** (pattern - 127), and 255 is NaN


def decode(pattern: Expr, element: str) -> Expr:
    """The number of type `element` that a pattern (uint8) is: int8 or uint8 for an integer, float32 for a float."""
    if element in INTEGERS:
        bits = BITS[element]
        low = pattern & _u8((1 << bits) - 1)
        if element.startswith("u"):
            return low
        sign = tirx.const(1 << (bits - 1), "int8")
        return (tirx.Cast("int8", low) ^ sign) - sign
    if element == POWERS:
        wide = tirx.Cast("uint32", pattern)
        special = tirx.Select(tirx.EQ(pattern, _u8(255)), _u32(0x7FC00000), wide << _u32(23))
        return tirx.reinterpret("float32", tirx.Select(tirx.EQ(pattern, _u8(0)), _u32(0x400000), special))
    form = FORMATS[element]
    wide = tirx.Cast("uint32", pattern & _u8(2 * form.sign - 1))
    size = wide & _u32(form.sign - 1)
    scale = tirx.const(2.0 ** (127 - form.bias), "float32")
    value = tirx.reinterpret("float32", size << _u32(23 - form.fraction)) * scale
    sign = (wide >> _u32(form.exponent + form.fraction)) << _u32(31)
    signed = tirx.reinterpret("float32", tirx.reinterpret("uint32", value) | sign)
    nan = tirx.reinterpret("float32", _u32(0x7FC00000) | sign)
    if not form.negative_zero:
        return tirx.Select(tirx.EQ(wide, _u32(form.sign)), nan, signed)
    if form.infinity is not None:
        infinite = tirx.reinterpret("float32", _u32(_INFINITY) | sign)
        return tirx.Select(
            size > _u32(form.infinity), nan, tirx.Select(tirx.EQ(size, _u32(form.infinity)), infinite, signed)
        )
    return signed if form.nan is None else tirx.Select(tirx.EQ(size, _u32(form.nan)), nan, signed)


def encode(x: Expr, element: str, saturate: bool = True, round_mode: str = "up") -> Expr:
    """The pattern (uint8) of the number of type `element` that x becomes.

    Args:
        x: for a float type a float32, for an integer type any integer, whose upper bits are dropped.
        element: the type.
        saturate: whether what is too large becomes the largest finite number, rather than infinity or NaN.
        round_mode: "up", "down" or "nearest", for the type of powers of two.
    """
    if element in INTEGERS:
        return tirx.Cast("uint8", x) & _u8((1 << BITS[element]) - 1)
    if element == POWERS:
        return _encode_power(x, saturate, round_mode)
    form = FORMATS[element]
    raw = tirx.reinterpret("uint32", x)
    size = raw & _u32(0x7FFFFFFF)
    drop = _FRACTION - form.fraction
    rounded = (size + _u32((1 << (drop - 1)) - 1) + ((size >> _u32(drop)) & _u32(1))) >> _u32(drop)
    normal = rounded - _u32((_BIAS - form.bias) << form.fraction)
    magic = _u32((_BIAS + 1 - form.bias + drop) << _FRACTION)
    added = tirx.reinterpret("float32", size) + tirx.reinterpret("float32", magic)
    below = tirx.reinterpret("uint32", added) - magic
    code = tirx.Select(size < _u32((_BIAS + 1 - form.bias) << _FRACTION), below, normal)
    beyond = form.top if saturate or form.nan is None else form.nan if form.infinity is None else form.infinity
    code = tirx.Select(code > _u32(form.top), _u32(beyond), code)
    sign = (raw >> _u32(31)) << _u32(form.exponent + form.fraction)
    if not form.negative_zero:
        code = tirx.Select(tirx.any(tirx.EQ(code, _u32(0)), tirx.EQ(code, _u32(form.sign))), code, code | sign)
        return tirx.Cast("uint8", tirx.Select(size > _u32(_INFINITY), _u32(form.sign), code))
    # A type without NaN makes it a zero of the other sign, as ml_dtypes does.
    nan = sign ^ _u32(form.sign) if form.nan is None else _u32(form.nan) | sign
    return tirx.Cast("uint8", tirx.Select(size > _u32(_INFINITY), nan, code | sign))


def _encode_power(x: Expr, saturate: bool, round_mode: str) -> Expr:
    """The exponent of |x|, rounded: "up" away from zero, "nearest" with ties up. In float64, where the numbers around
    the least power are normal.
    """
    fraction, least = 52, 1023 - 127

    def u(number: int) -> Expr:
        return tirx.const(number, "uint64")

    size = tirx.reinterpret("uint64", tirx.Cast("float64", x)) & u((1 << 63) - 1)
    step = {"up": (1 << fraction) - 1, "down": 0, "nearest": 1 << (fraction - 1)}[round_mode]
    code = ((size + u(step)) >> u(fraction)) - u(least)
    code = tirx.Select(size < u(least << fraction), u(0 if saturate else 255), code)
    infinity = u(0x7FF << fraction)
    return tirx.Cast("uint8", tirx.Select(size > infinity, u(255), tirx.min(code, u(254 if saturate else 255))))


def bfloat16(x: Expr) -> Expr:
    """A float32 as a bfloat16. TVM's own cast makes zeros and infinities of some NaNs."""
    raw = tirx.reinterpret("uint32", x)
    rounded = (raw + _u32(0x7FFF) + ((raw >> _u32(16)) & _u32(1))) >> _u32(16)
    nan = (raw >> _u32(16)) | _u32(0x40)
    code = tirx.Select((raw & _u32(0x7FFFFFFF)) > _u32(_INFINITY), nan, rounded)
    return tirx.reinterpret("bfloat16", tirx.Cast("uint16", code))


def _u8(number: int) -> Expr:
    return tirx.const(number, "uint8")


def _u32(number: int) -> Expr:
    return tirx.const(number, "uint32")
