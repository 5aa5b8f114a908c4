"""Maximum and average pooling over channels-last data: a window without weights.

    acc[t] = max(acc[t], data[y * stride + ry, (x + t) * stride + rx, c])

What lies outside the data is left out: it is the neutral element. An average is a sum whose division is in the
epilogue. See dscc.schedule.sliding for the loops.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.ir import Expr
from tvm.ir import TensorLoad as Load

from dscc.schedule.base import Rule, Scheduled
from dscc.schedule.code import Code, constant
from dscc.schedule.convolution import Axis, unpadded, window
from dscc.schedule.decisions import Decisions
from dscc.schedule.epilogue import Fused
from dscc.schedule.machine import Machine
from dscc.schedule.sliding import Tap, Window, WindowWriter


class Pool(Rule):
    """Pools of two dimensions; see the module."""

    name = "pool"

    def apply(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: Machine, decisions: Decisions
    ) -> Scheduled | None:
        fused = Fused.of(func)
        found = None if fused is None else _window(fused)
        if fused is None or found is None:
            return None
        code = Code()
        WindowWriter(code, fused, found, machine, decisions).write()
        return Scheduled(func.with_body(code.stmt()))


def _window(fused: Fused) -> Window | None:
    """The window, or None if the anchor is no pool: out[n, y, x, c] = max(out[n, y, x, c], pad[n, .., .., c])."""
    anchor = fused.anchor
    if len(anchor.spatial) != 4 or len(anchor.reduce) != 2 or str(anchor.buffer.dtype) != "float32":
        return None
    n, y, x, c = anchor.spatial
    ry, rx = anchor.reduce
    combined = _combined(anchor.value, anchor.buffer)
    if combined is None or not isinstance(anchor.init, tirx.FloatImm):
        return None
    load, update, is_neutral = combined
    kernel = [constant(anchor.extents[var]) for var in (ry, rx)]
    channels = constant(load.source.shape[-1])
    plain = len(load.indices) == 4 and load.indices[0].same_as(n) and load.indices[3].same_as(c)
    if not plain or None in kernel or channels is None or not is_neutral(float(anchor.init.value)):
        return None
    down, along = window(load.indices[1], y, ry), window(load.indices[2], x, rx)
    data = unpadded(fused, load.source, is_neutral)
    if down is None or along is None or data is None or data.source is None:
        return None
    (top, tall), (left, wide) = data.bounds
    height = Axis(anchor.extents[y], tall, top, int(kernel[0] or 0), *down, data.padded)
    width = Axis(anchor.extents[x], wide, left, int(kernel[1] or 0), *along, data.padded)
    return Window(data.source, anchor.extents[n], height, width, channels, anchor.init, update)


def _combined(
    value: Expr, result: Expr
) -> tuple[Load, Callable[[Expr, Expr, Tap], Expr], Callable[[float], bool]] | None:
    """What is combined with the result so far, how, and which values make no difference to it."""
    if not isinstance(value, tirx.Max | tirx.Add):
        return None
    so_far, new = value.a, value.b
    if not (isinstance(so_far, Load) and so_far.source.same_as(result) and isinstance(new, Load)):
        return None
    if isinstance(value, tirx.Max):
        return new, lambda acc, v, tap: tirx.max(acc, v), lambda constant: constant <= -3.4e38
    return new, lambda acc, v, tap: acc + v, lambda constant: constant == 0.0
