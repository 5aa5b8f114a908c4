"""A state as steps of 8 bits, as DynamicQuantizeLinear computes them, less their zero point."""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.code import Code, Flat, Index, broadcast, ceildiv, first_lanes, index


def quantize_rows(
    code: Code, source: Flat, target: Flat, start: Expr, rows: Index, pitch: int, hidden: int, lanes: int
) -> Expr:
    """Write steps of all `rows` x `hidden` values (at `start + row * pitch` of source) to target, as whole floats from
    -255 to 255; return the size of a step: a uint8 over the range of the values, which is widened to hold 0.
    """

    def const(value: float) -> Expr:
        return tirx.const(value, "float32")

    def all_(value: Expr | float) -> Expr:
        return broadcast(const(value) if isinstance(value, float) else value, lanes)

    def values(row: Expr, at: Expr) -> Expr:
        vector = source.load(start + row * pitch + at, lanes)
        if hidden % lanes == 0:
            return vector
        return tirx.Select(first_lanes(index(hidden) - at, lanes), vector, all_(0.0))

    low, high = code.stack("low", lanes), code.stack("high", lanes)
    low.store(code, 0, all_(0.0))
    high.store(code, 0, all_(0.0))
    vectors = ceildiv(hidden, lanes)
    with code.loop(rows, "row") as row, code.loop(vectors, "v") as v:
        vector = code.bind("vector", values(row, v * lanes))
        low.store(code, 0, tirx.min(low.load(0, lanes), vector))
        high.store(code, 0, tirx.max(high.load(0, lanes), vector))
    least = code.fold(low.load(0, lanes), tirx.min)
    most = code.fold(high.load(0, lanes), tirx.max)
    scale = code.bind("scale", (most - least) / const(255.0))
    divisor = code.bind("divisor", tirx.Select(tirx.EQ(scale, const(0.0)), const(1.0), scale))
    zero = tirx.min(const(255.0), tirx.max(const(0.0), (const(0.0) - least) / divisor))
    zero = code.bind("zero", tirx.nearbyint(zero))
    with code.loop(rows, "row") as row, code.loop(vectors, "v") as v:
        steps = tirx.nearbyint(values(row, v * lanes) / all_(divisor)) + all_(zero)
        steps = tirx.min(all_(255.0), tirx.max(all_(0.0), steps))
        target.store(code, row * pitch + v * lanes, steps - all_(zero))
    return scale
