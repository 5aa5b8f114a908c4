"""Depthwise convolutions over channels-last data: a window whose taps are vectors of weights.

    acc[t] += data[y * stride + ry, (x + t) * stride + rx, c] * weight[ry, rx, c]

The weight is packed as [ry, rx][c] at compile time; see dscc.schedule.sliding for the loops, and dscc.schedule.planes
for those of large windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.ir import Expr

from dscc.schedule import planes
from dscc.schedule.base import Packing, Rule, Scheduled
from dscc.schedule.code import Code, Flat
from dscc.schedule.convolution import Convolution
from dscc.schedule.decisions import Decisions
from dscc.schedule.epilogue import Fused
from dscc.schedule.machine import Machine
from dscc.schedule.sliding import Tap, Window, WindowWriter


@dataclass(frozen=True)
class TapPacking(Packing):
    """(channel, ry, rx, 1) to [ry * rx][channel]."""

    def pack(self, weight: np.ndarray) -> np.ndarray:
        channels, rows, columns, _ = weight.shape
        return np.ascontiguousarray(weight.reshape(channels, rows * columns).T)


class Depthwise(Rule):
    """Convolutions with one input and one output channel per group; see the module."""

    name = "depthwise"

    def apply(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: Machine, decisions: Decisions
    ) -> Scheduled | None:
        fused = Fused.of(func)
        conv = None if fused is None else Convolution.of(fused)
        if fused is None or conv is None or conv.source is None or conv.inputs != 1 or conv.outputs != 1:
            return None
        params = list(func.params)
        if conv.weight.source not in params:
            return None
        which = params.index(conv.weight.source)
        code = Code()
        taps, channels = conv.height.kernel * conv.width.kernel, conv.groups
        if which in constants:
            packed = tirx.decl_buffer((taps, channels), "float32", conv.weight.source.name)
            params[which] = packed
            weight = code.view(packed)
        else:
            weight = _packed_here(code, conv, taps)

        def update(acc: Expr, value: Expr, tap: Tap) -> Expr:
            return acc + value * weight.load(tap.number * channels + tap.c, tap.lanes)

        zero = tirx.const(0.0, "float32")
        window = Window(conv.source, conv.batch, conv.height, conv.width, channels, zero, update)
        if planes.pays(window):
            planes.PlaneWriter(code, fused, window, zero, machine, decisions).write()
        else:
            WindowWriter(code, fused, window, machine, decisions).write()
        scheduled = tirx.PrimFunc(params, code.stmt(), func.ret_type, func.attrs)
        return Scheduled(scheduled, {which: TapPacking()} if which in constants else {})


def _packed_here(code: Code, conv: Convolution, taps: int) -> Flat:
    """The weight in our layout, when it is known only at run time."""
    source, packed = code.view(conv.weight.source), code.heap("packed", taps * conv.groups)
    with code.loop(taps, "tap") as tap, code.loop(conv.groups, "c") as c:
        packed.store(code, tap * conv.groups + c, source.load(c * taps + tap))
    return packed
