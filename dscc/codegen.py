"""From a scheduled module to the object files of one shared library.

The Relax function becomes bytecode of TVM's virtual machine; the kernels are split into groups that are compiled side
by side, since TVM generates code serially but releases the GIL while it does.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.relax import vm_build

from dscc import device_code, kernel_pipeline, library, llvm, memory, placement
from dscc.artifact import host
from dscc.targets.base import Target
from dscc.targets.device import DeviceTarget


@tvm.transform.module_pass(opt_level=0, name="OrderShapes")
def order_shapes(mod: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
    """The shape functions of VMShapeLower, with their stores in the order of the places that they write.

    TVM 0.27 writes them in the order of a hash table of pointers: the same model gave other bytes every other time.
    """
    out = mod.clone()
    for gvar, func in mod.functions_items():
        body = func.body if isinstance(func, tirx.PrimFunc) else None
        if isinstance(body, tirx.SeqStmt) and all(isinstance(s, tirx.BufferStore) for s in body.seq):
            if gvar.name_hint.startswith("shape_func") and func.attrs and "tirx.is_host_func" in func.attrs:
                # A place is computed from the dimensions of the inputs alone, never from another place.
                out[gvar] = func.with_body(tirx.SeqStmt(sorted(body.seq, key=lambda store: int(store.indices[0]))))
    return out


@tvm.transform.module_pass(opt_level=0, name="DivideSizes")
def divide_sizes(mod: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
    """Functions of sizes alone divide by 1 where a size is 0: the processor's exception would end the process.

    They run before the checks of the sizes that they make, which then say what is wrong with the inputs.
    """

    def divide(quotient: Any) -> Any:
        by = quotient.b
        if isinstance(by, tirx.IntImm):
            return quotient
        return type(quotient)(
            quotient.a, tirx.Select(tirx.EQ(by, tirx.const(0, by.ty.dtype)), tirx.const(1, by.ty.dtype), by)
        )

    out = mod.clone()
    for gvar, func in mod.functions_items():
        if isinstance(func, tirx.PrimFunc) and func.attrs and "tirx.is_host_func" in func.attrs:
            kinds = (tirx.FloorDiv, tirx.FloorMod, tirx.Div, tirx.Mod)
            out[gvar] = func.with_body(tvm_ffi.structural_map(func.body, (kinds, divide)))
    return out


# TVM's own order (relax/backend/cpu_generic/pipeline.py in 0.27), less what the stages before this one have done, and
# with what calls of our functions in C need. Memory is planned between these two parts.
CALLING = (
    relax.transform.ToNonDataflow,
    relax.transform.RemovePurityChecking,
    lambda: tvm.transform.module_pass(lambda mod, _: library.pass_context(mod), opt_level=0, name="PassContext"),
    relax.transform.CallTIRRewrite,
)
TVMS_MEMORY = (relax.transform.StaticPlanBlockMemory, relax.transform.LowerAllocTensor)
OWN_MEMORY = (lambda: tvm.transform.module_pass(lambda mod, _: memory.own_memory(mod), opt_level=0, name="OwnMemory"),)
LOWERING = (
    relax.transform.KillAfterLastUse,
    relax.transform.LowerRuntimeBuiltin,
    relax.transform.ComputePrimValue,
    relax.transform.VMShapeLower,
    lambda: order_shapes,
    lambda: divide_sizes,
    relax.transform.AttachGlobalSymbol,
)


def lower_to_vm(mod: tvm.IRModule, target: Target) -> tvm.IRModule:
    """Allocations, shapes and calls in the terms of TVM's virtual machine, and copies between host and device."""
    planning: Sequence[Any] = OWN_MEMORY
    if isinstance(target, DeviceTarget):
        mod, planning = placement.place(mod, target), TVMS_MEMORY
    passes = (*CALLING, *planning, *LOWERING)
    with target.tvm_target:
        return tvm.transform.Sequential([make() for make in passes])(mod)


def compile_kernels(mod: tvm.IRModule, target: Target, jobs: int = 0) -> list[tvm.runtime.Module]:
    """Machine code of the TIR functions of `mod`, in groups compiled at once: `jobs` of them, a core each if 0."""
    # In TVM 0.27 one function without `tirx.noalias`, such as the VM's shape functions, takes it from the parallel
    # loops of the others in its module: accumulators then live in memory (vmovups after every vfmadd231ps), at half
    # the speed. No kernel is called with an output that overlaps another argument.
    kernels = [
        (gvar, kernel_pipeline.with_plain_parameters(func).with_attr("tirx.noalias", True))
        for gvar, func in mod.functions.items()
        if isinstance(func, tirx.PrimFunc)
    ]
    jobs = jobs or host.cores()
    work = []
    for on_device, blocks in itertools.product((False, True), repeat=2):
        alike = [
            (gvar, func)
            for gvar, func in kernels
            if placement.on_device(func) == on_device and kernel_pipeline.has_blocks(func) == blocks
        ]
        passes = "default" if blocks else kernel_pipeline.NAME
        work += [(on_device, passes, tvm.IRModule(dict(group))) for group in _balance(alike, jobs)]

    def compiled(item: tuple[bool, str, tvm.IRModule]) -> tvm.runtime.Module:
        on_device, passes, group = item
        if on_device and isinstance(target, DeviceTarget):
            return device_code.compile_kernels(group, target, passes)
        return llvm.build(group, target.host.tvm_target, passes)

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(compiled, work))


def build(mod: tvm.IRModule, target: Target, folder: Path, jobs: int = 0) -> list[Path]:
    """Object files in `folder` that, linked into a shared library, TVM's runtime loads as an executable.

    Args:
        mod: scheduled module without tensor constants in `main`.
        jobs: cores that may be used; 0 means all.
    """
    mod = lower_to_vm(mod, target)
    builder = relax.ExecBuilder()
    leftover = vm_build._vmcodegen(builder, mod, "bytecode")
    kernels = compile_kernels(leftover, target, jobs)
    objects = [folder / f"kernels{i}.o" for i in range(len(kernels))]
    with ThreadPoolExecutor(len(kernels) or 1) as pool:
        list(pool.map(target.write_object, kernels, objects))
    for module in kernels[1:]:
        kernels[0].import_module(module)
    first = kernels[0] if kernels else None
    executable = relax.vm_build._ffi_api.VMLink(builder, target.tvm_target, first, [], {})
    loader = folder / "loader.o"
    if isinstance(target, DeviceTarget):
        device_code.pack(executable, target, loader, jobs or host.cores())
        return [*objects, loader]
    tvm.runtime._ffi_api.ModulePackImportsToLLVM(executable, False, str(target.loader_target), "").write_to_file(
        str(loader)
    )
    return [*objects, loader]


def _balance(
    kernels: Iterable[tuple[tvm.ir.GlobalVar, tirx.PrimFunc]], count: int
) -> Sequence[list[tuple[tvm.ir.GlobalVar, tirx.PrimFunc]]]:
    """At most `count` groups of about the same compile time, for which the length of the printed function stands."""
    weighed = sorted(((len(func.script()), gvar.name_hint, (gvar, func)) for gvar, func in kernels), reverse=True)
    heap: list[tuple[int, int, list[tuple[tvm.ir.GlobalVar, tirx.PrimFunc]]]] = [(0, i, []) for i in range(count)]
    for weight, _, kernel in weighed:
        total, i, group = heapq.heappop(heap)
        group.append(kernel)
        heapq.heappush(heap, (total + weight, i, group))
    return [group for _, _, group in sorted(heap, key=lambda entry: entry[1]) if group]
