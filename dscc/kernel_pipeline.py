"""TVM's passes from scheduled TIR to what LLVM is generated from, less those that our kernels have no use for.

Kernels that rules write out have no blocks: neither initialisers, nor block-local buffers, nor virtual threads. TVM's
default pipeline (tvm/s_tir/pipeline.py in 0.27) still looks for them, which is half of the compile time of a kernel.
Functions with blocks, which rules left as they were, take the default one.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, sym, tirx
from tvm.ir import TensorLoad as Load
from tvm.tirx import compilation_pipeline

from dscc.frames import aligned_frames

NAME = "dscc"
ALIGN = 16  # bytes; what malloc and NumPy give
_LEAST = -(1 << 30)  # less than this is no bound: what is known of any int32
_REINTERPRET = tvm.ir.Op.get("tirx.reinterpret")


def has_blocks(func: tirx.PrimFunc) -> bool:
    """Whether there is a schedulable block in `func`."""
    found: list[Any] = []
    tvm_ffi.structural_walk(func.body, (s_tir.SBlock, found.append))
    return bool(found)


def with_plain_parameters(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Parameters that may begin where NumPy's arrays do, at a multiple of 16 bytes; those of `3 * n - 2` rows have
    `max(3 * n - 2, 0)`.

    From that a size is not negative, TVM 0.27 concludes n >= 2 (MarkGlobalNonNegValue, arith/analyzer.cc, leaves the
    factor out of account), and drops what is there for n = 1. It concludes nothing from a maximum.
    """
    analyzer = sym.Analyzer()
    renamed = {}
    for buffer in filter(tirx.is_buffer_var, func.params):
        shape = [
            tirx.max(dim, tirx.const(0, dim.ty.dtype)) if _misleads(dim, analyzer) else dim for dim in buffer.shape
        ]
        renamed[buffer] = tirx.decl_buffer(shape, buffer.dtype, buffer.name, data_alignment=ALIGN)
    body = tvm_ffi.structural_map(func.body, (tirx.Var, lambda var: renamed.get(var, var)))
    return tirx.PrimFunc([renamed.get(param, param) for param in func.params], body, func.ret_type, func.attrs)


def _misleads(dim: Any, analyzer: sym.Analyzer) -> bool:
    """Whether this is a multiple of a symbol, less a number."""
    symbols = tirx.analysis.undefined_vars(dim)
    if len(symbols) != 1:
        return False
    parts = [analyzer.simplify(part) for part in sym.detect_linear_equation(dim, symbols)]
    return (
        len(parts) == 2
        and all(isinstance(part, tirx.IntImm) for part in parts)
        and int(parts[0]) > 1
        and int(parts[1]) < 0
    )


def _vector_conditions() -> Any:
    """`a and b` of vectors becomes the bitwise operator, which is the same machine code.

    TVM 0.27 fails where the value of a variable contains the logical one: "IntImm can only take scalar, but boolx16 was
    supplied". And it makes a product of booleans, which it has no code for, of one of numbers: f(a) * f(b) = f(a * b).
    """

    def both(node: Any) -> Any:
        return tirx.And(node.a, node.b) if str(node.ty.dtype).startswith("bool") else node

    def bitwise(node: Any) -> Any:
        kind = str(node.ty.dtype)
        if not kind.startswith("boolx"):
            return node
        return node.a & node.b if isinstance(node, tirx.And) else node.a | node.b

    @tirx.transform.prim_func_pass(opt_level=0, name="dscc.vector_conditions")
    def rewrite(func: tirx.PrimFunc, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tirx.PrimFunc:
        func = tvm_ffi.structural_map(func, (tirx.Mul, both))
        for node in (tirx.And, tirx.Or):
            func = tvm_ffi.structural_map(func, (node, bitwise))
        return func

    return rewrite


def _vectors() -> Any:
    """Vectors have the lanes that the rules wrote.

    On RISC-V, and on ARM with SVE, VectorizeLoop of TVM 0.27 makes of them loops over vectors of whatever length the
    processor has, with a condition for the rest; where it finds a call, such as that of `vscale` in this condition, the
    loop is scalar: so were the products of every tile. It does so for the target in a function's attributes.
    """
    anywhere = tvm.target.Target("llvm")

    @tvm.transform.module_pass(opt_level=0, name="dscc.vectors")
    def rewrite(mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        fixed = {gvar: func.with_attr("target", anywhere) for gvar, func in mod.functions_items()}
        done = tirx.transform.VectorizeLoop(True)(tvm.IRModule(fixed))
        own = {gvar: done[gvar].with_attr("target", func.attrs["target"]) for gvar, func in mod.functions_items()}
        return tvm.IRModule(own, attrs=mod.attrs)

    return rewrite


def _stored_conditions() -> Any:
    """Temporaries of booleans are bytes.

    StorageRewrite of TVM 0.27 makes vectors of int8 of those that are only read and written in vectors, and then stores
    these in what is bool: "dtype mismatch on BufferStore", as in a Split of a Concat of three times the same booleans.
    """

    @tirx.transform.prim_func_pass(opt_level=0, name="dscc.stored_conditions")
    def rewrite(func: tirx.PrimFunc, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tirx.PrimFunc:
        known: dict[type, list[Any]] = {tirx.AllocBuffer: [], Load: [], tirx.BufferStore: [], tirx.Var: []}
        for kind, found in known.items():
            tvm_ffi.structural_walk(func.body, (kind, found.append))
        uses = Counter([node.source for node in known[Load]])
        uses.update(node.buffer for node in (*known[tirx.AllocBuffer], *known[tirx.BufferStore]))
        mentioned = Counter(known[tirx.Var])  # one that is seen through another, or in a call, stays as it is
        old = [node.buffer for node in known[tirx.AllocBuffer] if str(node.buffer.dtype) == "bool"]
        old = [buffer for buffer in old if uses[buffer] == mentioned[buffer]]
        bytes_ = {b: tirx.decl_buffer(b.shape, "int8", b.name, scope=b.scope()) for b in old}

        def load(node: tirx.BufferLoad) -> Any:
            new = bytes_.get(node.source)
            return node if new is None else tirx.Cast(node.ty.dtype, tirx.BufferLoad(new, node.indices))

        def store(node: tirx.BufferStore) -> Any:
            new, kind = bytes_.get(node.buffer), str(node.value.ty.dtype).replace("bool", "int8")
            return node if new is None else tirx.BufferStore(new, tirx.Cast(kind, node.value), node.indices)

        def allocate(node: tirx.AllocBuffer) -> Any:
            return tirx.AllocBuffer(bytes_[node.buffer]) if node.buffer in bytes_ else node

        if not bytes_:
            return func
        body = tvm_ffi.structural_map(func.body, (Load, load))
        body = tvm_ffi.structural_map(body, (tirx.BufferStore, store))
        return func.with_body(tvm_ffi.structural_map(body, (tirx.AllocBuffer, allocate)))

    return rewrite


def _remainders() -> Any:
    """Remainders of what may be negative, `(7 - i) % 8`, become those of what is not, `(63 - i) % 8`.

    FlattenBuffer of TVM 0.27 makes `56 - i` of `(63 - i) // 8 * 8 + (7 - i) % 8`, which is 63 - i: a flattened image
    that is read from its end was read from elsewhere. It does not look into truncmod.
    """

    @tirx.transform.prim_func_pass(opt_level=0, name="dscc.remainders")
    def rewrite(func: tirx.PrimFunc, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tirx.PrimFunc:
        analyzer = sym.Analyzer()
        loops: list[tirx.For] = []
        tvm_ffi.structural_walk(func.body, (tirx.For, loops.append))
        for loop in loops:
            analyzer.bind(loop.loop_var, tvm.ir.Range(loop.min, loop.min + loop.extent))

        def positive(node: tirx.FloorMod) -> Any:
            low = analyzer.const_int_bound(node.a).min_value
            if not isinstance(node.b, tirx.IntImm) or not _LEAST < low < 0:
                return node
            by = int(node.b.value)
            return tirx.truncmod(node.a + tirx.const(-(low // by) * by, node.a.ty.dtype), node.b)

        return func.with_body(tvm_ffi.structural_map(func.body, (tirx.FloorMod, positive)))

    return rewrite


def _unsigned_arithmetic() -> Any:
    """Sums, differences and products without sign are those with sign, of the same bits.

    TVM 0.27 tells LLVM that neither kind leaves its range (`nuw`, `nsw` in codegen_llvm.cc), and min(4 * x, x) became
    x. Numbers without sign do leave theirs: below 0, as in `1 - 2`. That those with sign do not is taken for granted.
    """

    def signed(node: Any) -> Any:
        kind = str(node.ty.dtype)
        if not kind.startswith(("uint32", "uint64")):
            return node
        return _as_type(kind, type(node)(*(_as_type(kind[1:], part) for part in (node.a, node.b))))

    @tirx.transform.prim_func_pass(opt_level=0, name="dscc.unsigned_arithmetic")
    def rewrite(func: tirx.PrimFunc, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tirx.PrimFunc:
        for node in (tirx.Add, tirx.Sub, tirx.Mul):
            func = func.with_body(tvm_ffi.structural_map(func.body, (node, signed)))
        return func

    return rewrite


def _as_type(kind: str, value: Any) -> Any:
    return value.args[0] if _is_reinterpreted(value, kind) else tirx.reinterpret(kind, value)


def _is_reinterpreted(value: Any, kind: str) -> bool:
    return isinstance(value, tvm.ir.Call) and value.op == _REINTERPRET and str(value.args[0].ty.dtype) == kind


def _on_the_stack() -> Any:
    """Arrays that are local to a thread stay on its stack, where LLVM finds that their elements can be registers.

    TVM 0.27 makes allocations of the runtime's pool of them (LowerTVMBuiltin), unless they are marked; marks do not
    outlive StorageRewrite.
    """

    def marked(node: tirx.AllocBuffer) -> Any:
        if node.buffer.scope() != "local":
            return node
        return tirx.AllocBuffer(node.buffer, {"disable_lower_builtin": tirx.IntImm("int32", 1)})

    @tirx.transform.prim_func_pass(opt_level=0, name="dscc.on_the_stack")
    def rewrite(func: tirx.PrimFunc, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tirx.PrimFunc:
        return func.with_body(tvm_ffi.structural_map(func.body, (tirx.AllocBuffer, marked)))

    return rewrite


def _common_subexpressions() -> Any:
    """CommonSubexprElim, but for functions with a quotient of integers as floats: such as the ratio of two sizes.

    Where TVM 0.27 gives such a quotient a name it fails over its bounds, in `Combine<Div>` of int_set.cc: "IntImm
    supports only int or uint or bool type, but float32 was supplied".
    """
    eliminate = tirx.transform.CommonSubexprElim()

    @tirx.transform.prim_func_pass(opt_level=0, name="dscc.common_subexpressions")
    def rewrite(func: tirx.PrimFunc, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tirx.PrimFunc:
        if _has_ratio(func.body):
            return func
        gvar = tvm.ir.GlobalVar("kernel")
        return eliminate(tvm.IRModule({gvar: func}))["kernel"]

    return rewrite


def _has_ratio(body: Any) -> bool:
    quotients: list[tirx.Div] = []
    tvm_ffi.structural_walk(body, (tirx.Div, quotients.append))
    return any(_is_of_integers(node) for node in quotients if str(node.ty.dtype) in ("float32", "float64"))


def _is_of_integers(quotient: tirx.Div) -> bool:
    casts: list[tirx.Cast] = []
    tvm_ffi.structural_walk(quotient.b, (tirx.Cast, casts.append))
    return any(str(cast.value.ty.dtype).startswith("int") for cast in casts)


def _pipeline(
    name: str,
    for_device: tuple[Any, ...] = (),
    conditions: tuple[Any, ...] = (),
    frames: tuple[Any, ...] = (),
    integers: tuple[Any, ...] = (),
    bfloat16: bool = False,
) -> tuple[Any, Any, Any]:
    """TVM's passes, with those that only kernels of one kind need.

    Args:
        name: of the pass, in TVM's messages.
        bfloat16: what runs the code computes in it.
        for_device: what comes before host and device are split.
        frames: what the frame of a function begins with.
        integers: what LLVM must not take for numbers that stay in their range.
        conditions: what makes conditions of vectors into something that is generated code for.
    """
    passes = [
        _remainders(),
        tirx.transform.FlattenBuffer(),
        *(() if bfloat16 else (tirx.transform.BF16ComputeLegalize(),)),
        tirx.transform.NarrowDataType(32),
        _vectors(),
        _stored_conditions(),
        tirx.transform.StorageRewrite(),
        *frames,
        _on_the_stack(),
        tirx.transform.UnrollLoop(),
        tirx.transform.StmtSimplify(),
        tirx.transform.RemoveNoOp(),
        s_tir.transform.RewriteUnsafeSelect(),
        *conditions,
        _common_subexpressions(),
        *integers,
        tirx.transform.FP8ComputeLegalize(),
        tirx.transform.VerifyMemory(),
        tirx.transform.AnnotateEntryFunc(),
        *for_device,
        tirx.transform.SplitHostDevice(),
        tirx.transform.MakePackedAPI(),
        tirx.transform.FP8StorageLegalize(),
        *(() if bfloat16 else (tirx.transform.BF16StorageLegalize(),)),
    ]
    return (
        tvm.transform.Sequential(passes, opt_level=0, name=name),
        compilation_pipeline.finalize_host_passes,
        compilation_pipeline.finalize_device_passes,
    )


def _without_blocks() -> tuple[Any, Any, Any]:
    return _pipeline(
        "dscc.kernels",
        conditions=(_vector_conditions(),),
        frames=(aligned_frames(),),
        integers=(_unsigned_arithmetic(),),
    )


def for_devices(bfloat16: bool) -> tuple[Any, Any, Any]:
    """The same for kernels that bind threads: shared memory and barriers are as the rules have written them.

    Args:
        bfloat16: the device computes in it, in the code that is generated.
    """
    return _pipeline(
        "dscc.device_kernels",
        for_device=(s_tir.transform.LowerThreadAllreduce(), s_tir.transform.MergeSharedMemoryAllocations()),
        bfloat16=bfloat16,
    )


tirx.register_tir_pipeline(NAME, _without_blocks)
