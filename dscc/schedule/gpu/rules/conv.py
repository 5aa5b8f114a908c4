"""Two-dimensional convolutions over channels-last data as matrix products whose left side is read through a window.

    out[(n, y, x), f] = epilogue(sum over k of window[(n, y, x), k] * weight[k, f]),    k = (ry, rx, channel)

Implicit GEMM: nothing is unfolded in memory; see dscc.schedule.gpu.gemm. Groups are a batch of products. A constant
weight is stored as [group][k][f].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.base import Packing, Scheduled
from dscc.schedule.code import index, product, quotient, remainder
from dscc.schedule.convolution import Axis, Convolution
from dscc.schedule.decisions import Decisions
from dscc.schedule.epilogue import Fused
from dscc.schedule.gpu.device import Device, DeviceRule
from dscc.schedule.gpu.gemm import Element, Gemm, choose, write
from dscc.schedule.gpu.kernel import Kernel
from dscc.schedule.stages import substitute


@dataclass(frozen=True)
class ByDepth(Packing):
    """(filter, ry, rx, channel) to [group][ry, rx, channel][filter]."""

    groups: int

    def pack(self, weight: np.ndarray) -> np.ndarray:
        grouped = weight.reshape(self.groups, weight.shape[0] // self.groups, -1)
        return np.ascontiguousarray(grouped.transpose(0, 2, 1))


class Conv(DeviceRule):
    """Dense and grouped two-dimensional convolutions; see the module."""

    name: ClassVar[str] = "conv"
    depth_last: ClassVar[bool] = False  # constant weights are left as they are, the depth last

    def write(self, code: Kernel, gemm: Gemm, device: Device, decisions: Decisions) -> bool:
        """Write the launch; False if this rule does not take such a product."""
        write(code, gemm, choose(gemm, device, decisions))
        return True

    def schedule(
        self, func: tirx.PrimFunc, constants: frozenset[int], device: Device, decisions: Decisions
    ) -> Scheduled | None:
        fused = Fused.of(func)
        conv = None if fused is None else Convolution.of(fused, converted=True)
        if fused is None or conv is None or conv.inputs * conv.outputs == 1:
            return None
        params = list(func.params)
        if conv.weight.source not in params:
            return None
        which = params.index(conv.weight.source)
        code = Kernel()
        depth = conv.height.kernel * conv.width.kernel * conv.inputs
        packings: dict[int, Packing] = {}
        turned = which in constants and not self.depth_last
        dtypes = str(conv.data.ty.dtype), str(conv.weight.source.dtype)
        if turned:
            shape = [index(n) for n in (conv.groups, depth, conv.outputs)]
            params[which] = tirx.decl_buffer(shape, dtypes[1], conv.weight.source.name)
            packings[which] = ByDepth(conv.groups)
        packed = params[which]

        def right(group: Expr, column: Expr) -> Element:
            if turned:
                return lambda k: tirx.BufferLoad(packed, [group, k, column])
            return lambda k: tirx.BufferLoad(packed, [group * conv.outputs + column, *_taps(conv, k)])

        def store(group: Expr, row: Expr, column: Expr, value: Expr) -> tirx.Stmt:
            return fused.store([*_pixel(conv, row), group * conv.outputs + column], value)

        gemm = Gemm(
            rows=product([conv.batch, conv.height.out, conv.width.out]),
            columns=conv.outputs,
            depth=depth,
            batch=conv.groups,
            left=lambda group, row: _window(code, conv, group, row),
            right=right,
            store=store,
            left_dtype=dtypes[0],
            right_dtype=dtypes[1],
            dtype="float32",
            right_runs=not turned,
            run=conv.inputs,
        )
        if not self.write(code, gemm, device, decisions):
            return None
        return Scheduled(tirx.PrimFunc(params, code.stmt(), func.ret_type, func.attrs), packings)


def _pixel(conv: Convolution, row: Expr) -> list[Expr]:
    """Image, row and column of an output pixel."""
    line = quotient(row, conv.width.out)
    return [quotient(line, conv.height.out), remainder(line, conv.height.out), remainder(row, conv.width.out)]


def _taps(conv: Convolution, k: Expr) -> list[Expr]:
    """Row and column of the window, and the channel within the group."""
    tap = quotient(k, conv.inputs)
    return [quotient(tap, conv.width.kernel), remainder(tap, conv.width.kernel), remainder(k, conv.inputs)]


def _window(code: Kernel, conv: Convolution, group: Expr, row: Expr) -> Element:
    """The data that an output pixel sees, by depth."""
    image, y, x = _pixel(conv, row)
    image = code.opaque("image", image)
    top = code.opaque("top", y * conv.height.stride - conv.height.before)
    start = code.opaque("start", x * conv.width.stride - conv.width.before)

    def element(k: Expr) -> Expr:
        ry, rx, channel = _taps(conv, k)
        down = code.bind("down", top + ry * conv.height.dilation)
        along = code.bind("along", start + rx * conv.width.dilation)
        places = (image, down, along, group * conv.inputs + channel)
        value = substitute(conv.data, dict(zip(conv.at, places, strict=True)))
        conditions = [*_inside(conv.height, down), *_inside(conv.width, along)]
        if not conditions:
            return value
        every = conditions[0]
        for condition in conditions[1:]:
            every = tirx.And(every, condition)
        return tirx.if_then_else(every, value, tirx.const(0, value.ty.dtype))

    return element


def _inside(axis: Axis, at: Expr) -> list[Expr]:
    return [at >= index(0), at < index(axis.size)] if axis.padded else []
