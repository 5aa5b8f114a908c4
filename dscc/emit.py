"""The forms that a model passes through: `dscc compile --emit ir|tir|source|asm|binary`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tvm import tirx

from dscc import codegen, device_code
from dscc.compiler import Progress, lowering, optimize, target_of
from dscc.errors import TargetError
from dscc.options import CompileOptions
from dscc.passes.lower.lift_constants import lift_constants
from dscc.targets.device import DeviceTarget


def emit(
    model: Path | str | Any, options: CompileOptions, form: str, *, progress: Progress = lambda stage: None
) -> str | bytes:
    """`ir`: Relax after the graph passes. `tir`: the scheduled kernels and their calls. Others: what the target has.

    Raises:
        TargetError: the target has no such form.
    """
    target = target_of(options)
    if form not in ("ir", "tir", *target.forms):
        raise TargetError(f"target '{target}' has no form '{form}'; it has: ir, tir, {', '.join(target.forms)}")
    if form == "ir":
        return str(optimize(model, options, "", progress).mod.script())
    if form == "tir":
        return str(optimize(model, options, lowering(options), progress).mod.script())
    kernels = _kernels(model, options, progress)
    if isinstance(target, DeviceTarget):
        shown = [target.show(source, form) for module in kernels for source in device_code.sources(module)]
        texts = [part for part in shown if isinstance(part, str)]
        return "\n".join(texts) if texts else b"".join(part for part in shown if isinstance(part, bytes))
    return "\n".join(str(module.inspect_source(target.forms[form])) for module in kernels)


def device_sources(model: Path | str | Any, options: CompileOptions) -> list[str]:
    """What a device's compiler finishes, group by group of kernels."""
    return [source for module in _kernels(model, options, lambda stage: None) for source in device_code.sources(module)]


def _kernels(model: Path | str | Any, options: CompileOptions, progress: Progress) -> list[Any]:
    done = optimize(model, options, lowering(options), progress)
    progress("generate code")
    target = target_of(options)
    mod = codegen.lower_to_vm(lift_constants(done.mod).mod, target)
    return list(codegen.compile_kernels(_only_kernels(mod), target, jobs=1))


def _only_kernels(mod: Any) -> Any:
    return type(mod)({gvar: func for gvar, func in mod.functions.items() if isinstance(func, tirx.PrimFunc)})
