"""Which of a target's rules schedules a function, and with which choices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tvm_ffi
from tvm import s_tir, tirx

from dscc.errors import PassError
from dscc.schedule.base import Scheduled
from dscc.schedule.decisions import Decisions
from dscc.schedule.gpu.device import Device
from dscc.schedule.machine import Machine
from dscc.schedule.math import scalar_math, vector_math
from dscc.schedule.stages import is_zero

if TYPE_CHECKING:
    from dscc.targets.base import Target

ON_DEVICE = "dscc.device"
"""The attribute of kernels that run on the device; those of its host, and all of a CPU, are without."""


def plan(
    func: tirx.PrimFunc, constants: frozenset[int], target: Target, decisions: Decisions, small: bool = False
) -> tuple[Scheduled, str]:
    """The scheduled function, ready for code generation, and the name of the rule that made it.

    Args:
        func: an unscheduled function.
        constants: indices of the parameters that are compile-time constants.
        decisions: what the tuner chose, among it `rule`, which is then asked first.
        small: rules that enlarge constants are left out.

    Raises:
        PassError: no rule takes the function.
    """
    if target.host is not target:
        found = None if _as_it_is(func, target.machine) else _by_rules(func, constants, target, decisions, small)
        if found is not None:
            ready = found[0].func.with_attrs({ON_DEVICE: True, "tirx.is_scheduled": True})
            return Scheduled(ready.without_attr("global_symbol"), found[0].packings), found[1]
        scheduled, rule = plan(func, constants, target.host, decisions, small)
        return scheduled, f"host: {rule}"
    scheduled, rule = _scheduled(func, constants, target, decisions, small)
    ready = scheduled.func
    if target.spells_out_math:
        ready = scalar_math(ready) if _has_narrow_floats(ready) else vector_math(ready)
    ready = ready.with_attr("tirx.is_scheduled", True).without_attr("global_symbol")
    return Scheduled(ready, scheduled.packings), rule


def _scheduled(
    func: tirx.PrimFunc, constants: frozenset[int], target: Target, decisions: Decisions, small: bool
) -> tuple[Scheduled, str]:
    if reason := _as_it_is(func, target.machine):
        return Scheduled(_initialised(func)), reason
    found = _by_rules(func, constants, target, decisions, small)
    if found is None:
        raise PassError(
            f"pass 'schedule-kernels': no rule of target '{target}' takes a function; its last rule must take any"
        )
    return found


def _as_it_is(func: tirx.PrimFunc, machine: Machine) -> str:
    """Why no rule is asked, if none is."""
    if func.attrs and func.attrs.get("tirx.is_scheduled", False):
        return "as it was"
    if _has_narrow_floats(func, isinstance(machine, Device) and machine.bfloat16):
        return "plain loops, for its element type"
    if any(is_zero(dim) for buffer in _buffers(func) for dim in buffer.shape):
        return "plain loops, for a tensor without elements"
    return ""


def _initialised(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """The function with the initial values of its reductions outside of their loops: one over nothing gives these."""
    reductions: list[s_tir.SBlock] = []
    tvm_ffi.structural_walk(func.body, (s_tir.SBlock, lambda block: reductions.append(block) if block.init else None))
    scheduled = func.attrs and func.attrs.get("tirx.is_scheduled", False)
    if scheduled or not reductions or not any(_may_be_zero(dim) for buffer in _buffers(func) for dim in buffer.shape):
        return func
    schedule = s_tir.Schedule(func)
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        if schedule.get(block).init is not None:
            schedule.decompose_reduction(block, schedule.get_loops(block)[0])
    return schedule.mod["main"].with_attrs(dict(func.attrs or {}))


def _may_be_zero(dim: Any) -> bool:
    return not isinstance(dim, tirx.IntImm) or is_zero(dim)


def _by_rules(
    func: tirx.PrimFunc, constants: frozenset[int], target: Target, decisions: Decisions, small: bool
) -> tuple[Scheduled, str] | None:
    rules = [rule for rule in target.rules if not (small and rule.enlarges)]
    first = decisions.pick("rule", ["", *(rule.name for rule in rules)])
    for rule in sorted(rules, key=lambda rule: rule.name != first):
        scheduled = rule.apply(func, constants, target.machine, decisions)
        if scheduled is not None:
            return scheduled, rule.name
    return None


def _has_narrow_floats(func: tirx.PrimFunc, bfloat16: bool = False) -> bool:
    """Whether a buffer holds bfloat16 or float8. TVM 0.27 computes them in float32 by passes that know neither the
    bound variables nor the vectors of our kernels; it lowers plain loops over blocks. A device may have `bfloat16`.
    """
    narrow = ("float8",) if bfloat16 else ("float8", "bfloat")
    return any(str(buffer.dtype).startswith(narrow) for buffer in _buffers(func))


def _buffers(func: tirx.PrimFunc) -> list[Any]:
    """The parameters of an unscheduled function that are tensors, and its temporaries."""
    blocks: list[s_tir.SBlock] = []
    tvm_ffi.structural_walk(func.body, (s_tir.SBlock, blocks.append))
    params = [param for param in func.params if tirx.is_buffer_var(param)]
    return [*params, *(buffer for block in blocks for buffer in block.alloc_buffers)]
