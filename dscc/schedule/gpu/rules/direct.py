"""One reduction with what is fused around it, a thread for every result: depthwise convolutions, pools, odd ranks.

    y[i] = epilogue(sum over r of f(pad(x)[i, r]))   ->   thread t: loop over r in a register, then the epilogue

What prepares the operands is computed where it is read (padding becomes a condition), so that nothing is written in
between; a producer that calls an elementary function is left to the last rule instead, which computes it once.
"""

from __future__ import annotations

from typing import ClassVar

import tvm_ffi
from tvm import tirx
from tvm.ir import Expr
from tvm.ir import TensorLoad as Load

from dscc.schedule.base import Scheduled
from dscc.schedule.code import index, product
from dscc.schedule.decisions import Decisions
from dscc.schedule.epilogue import Fused
from dscc.schedule.gpu.device import Device, DeviceRule, with_threads
from dscc.schedule.gpu.kernel import Kernel
from dscc.schedule.rowwise.formulas import is_costly
from dscc.schedule.stages import loads, substitute, unravel


class Direct(DeviceRule):
    """A single reduction in the middle of elementwise formulas; see the module."""

    name: ClassVar[str] = "direct"

    def schedule(
        self, func: tirx.PrimFunc, constants: frozenset[int], device: Device, decisions: Decisions
    ) -> Scheduled | None:
        fused = Fused.of(func)
        if fused is None or fused.anchor.init is None:
            return None
        device = with_threads(device, decisions)
        anchor = fused.anchor
        operand = fused.inline(anchor.value)
        own = [load for load in loads(operand) if load.source.same_as(anchor.buffer)]
        params = [param for param in func.params if tirx.is_buffer_var(param)]
        rest = [load for load in loads(operand) if not load.source.same_as(anchor.buffer)]
        if len(own) != 1 or any(load.source not in params for load in rest) or is_costly(operand):
            return None
        code = Kernel()
        extents = [anchor.extents[var] for var in anchor.spatial]
        steps = [anchor.extents[var] for var in anchor.reduce]
        with code.each(product(extents), device.threads) as i:
            at = [code.opaque("at", part) for part in unravel(i, [index(n) for n in extents])] if extents else []
            acc = code.local("acc", 1, str(anchor.buffer.dtype))
            acc.store(code, 0, anchor.init)
            with code.nest(steps, "r") as inner:
                places = dict(zip((*anchor.spatial, *anchor.reduce), (*at, *inner), strict=True))

                def swap(load: Load) -> Expr:
                    return acc.load(0) if load.source.same_as(anchor.buffer) else load

                value = tvm_ffi.structural_map(operand, (Load, swap))
                acc.store(code, 0, substitute(value, places))
            code.add(fused.store(at, acc.load(0)))
        return Scheduled(func.with_body(code.stmt()))
