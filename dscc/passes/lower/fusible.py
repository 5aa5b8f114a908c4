"""What FuseOps and FuseTIR of TVM 0.27 need in order not to fail: how sizes, symbols and bindings have to be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
import tvm_ffi
from tvm import relax, sym, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

_CALL_TIR = tvm.ir.Op.get("relax.call_tir")


def simplest_sizes(mod: tvm.IRModule) -> tvm.IRModule:
    """The sums and products in shapes as TVM's simplifier writes them: `n + 1`, and `n * 2 + 2` for `n + 2 + n`.

    FuseTIR of TVM 0.27 compares the shapes of a value in the function that makes it and in the one that reads it by
    structure: "Inconsistent buffers" says that one of them has `1 + n`, "used before its definition" that one has
    `n + 2 + n`, in which it finds no n.
    """
    analyzer = sym.Analyzer()
    out = tvm.IRModule(dict(mod.functions.items()), attrs=mod.attrs)
    for gvar, func in mod.functions.items():
        if isinstance(func, relax.Function):
            out[gvar] = _mapped(func, analyzer.simplify)
        elif isinstance(func, tirx.PrimFunc):
            dims = [dim for param in func.params if tirx.is_buffer_var(param) for dim in param.shape]
            sizes = [var for dim in dims for var in tirx.analysis.undefined_vars(dim)]
            sums = [dim for dim in dims if isinstance(dim, tirx.Add | tirx.Sub | tirx.Mul)]
            if any(not tvm_ffi.structural_equal(dim, analyzer.simplify(dim)) for dim in sums):
                out[gvar] = _mapped(func, _Simplest(analyzer, sizes))
    return out


def _mapped(func: Any, simplest: Callable[[Any], Any]) -> Any:
    for kind in (tirx.Add, tirx.Sub, tirx.Mul):
        func = tvm_ffi.structural_map(func, (kind, simplest))
    return func


class _Simplest:
    """Simplifies what consists of sizes."""

    def __init__(self, analyzer: sym.Analyzer, sizes: Sequence[tirx.Var]):
        self._analyzer = analyzer
        self._sizes = sizes

    def __call__(self, node: Any) -> tvm.ir.Expr:
        used = tirx.analysis.undefined_vars(node)
        known = all(any(var.same_as(size) for size in self._sizes) for var in used)
        return self._analyzer.simplify(node) if known else node


def join_symbols(mod: tvm.IRModule) -> tvm.IRModule:
    """Functions that take symbols both one by one and as a shape take them all in the shape.

    FuseTIR of TVM 0.27 fails on the others with "VarRemapGet(source) == nullptr".
    """
    builder = relax.BlockBuilder(mod)
    joined = {}
    for gvar, func in mod.functions.items():
        if isinstance(func, relax.Function):
            scalars = [i for i, param in enumerate(func.params) if isinstance(param.ty, tvm.ir.PrimType)]
            shapes = [i for i, param in enumerate(func.params) if isinstance(param.ty, relax.ShapeType)]
            if scalars and shapes and func.attrs and "Primitive" in func.attrs:
                joined[gvar] = (_joined(builder, gvar, func, scalars, shapes[0]), scalars, shapes[0])
    if not joined:
        return mod
    caller = _Joined(builder, joined)
    for gvar, func in mod.functions.items():
        if isinstance(func, relax.Function) and gvar not in joined:
            builder.update_func(gvar, caller.visit_expr(func))
    return relax.transform.DeadCodeElimination()(builder.get())


def _joined(
    builder: relax.BlockBuilder, gvar: tvm.ir.GlobalVar, func: relax.Function, scalars: Sequence[int], shape: int
) -> tvm.ir.GlobalVar:
    symbols = relax.ShapeType([*func.params[shape].ty.values, *(func.params[i] for i in scalars)])
    params = [p for i, p in enumerate(func.params) if i not in (*scalars, shape)]
    params.append(relax.Var(func.params[shape].name, symbols))
    new = relax.Function(params, func.body, func.ret_ty, func.is_pure).with_attrs(dict(func.attrs.items()))
    return builder.add_func(new, gvar.name_hint)


@mutator
class _Joined(PyExprMutator):
    """Calls the functions that `join_symbols` has made."""

    def __init__(self, builder: relax.BlockBuilder, joined: Mapping[tvm.ir.GlobalVar, tuple[Any, Sequence[int], int]]):
        super().__init__(builder.get())
        self._joined = joined

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if call.op not in self._joined:
            return call
        gvar, scalars, shape = self._joined[call.op]
        symbols = relax.ShapeExpr([*call.args[shape].values, *(call.args[i] for i in scalars)])
        args = [arg for i, arg in enumerate(call.args) if i not in (*scalars, shape)]
        return relax.Call(gvar, [*args, symbols], call.attrs, call.ty_args, call.span)


def sizes_of_arguments(mod: tvm.IRModule) -> tvm.IRModule:
    """Kernels to be fused whose dimensions are those of their arguments: `16 // n` where a kernel has a symbol for it.

    A kernel keeps its symbol when a pass finds out what the dimension is in the function that calls it. FuseTIR of
    TVM 0.27 compares what the kernel that makes a value says with what the one that reads it says: "Inconsistent
    buffers".
    """
    builder = relax.BlockBuilder(mod)
    for gvar, func in mod.functions.items():
        if isinstance(func, relax.Function) and func.attrs and "Primitive" in func.attrs:
            builder.update_func(gvar, _WithSizes(builder, mod).visit_expr(func))
    return builder.get()


@mutator
class _WithSizes(PyExprMutator):
    """Calls copies of the kernels of a function that have the dimensions of the arguments."""

    def __init__(self, builder: relax.BlockBuilder, mod: tvm.IRModule):
        super().__init__(mod)
        self._builder = builder
        self._mod = mod

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if call.op != _CALL_TIR:
            return call
        func = self._mod[call.args[0]]
        outputs = call.ty.fields if isinstance(call.ty, relax.TupleType) else [call.ty]
        values = [*(arg.ty for arg in call.args[1]), *outputs]
        pairs = [
            (dim, wanted)
            for param, ty in zip(func.params, values, strict=False)
            if tirx.is_buffer_var(param) and isinstance(ty, relax.TensorType)
            for dim, wanted in zip(param.shape, ty.shape.values, strict=True)
            if isinstance(dim, tirx.Var)
        ]
        symbols = {wanted: dim for dim, wanted in pairs if isinstance(wanted, tirx.Var)}
        sizes = {
            dim: tvm_ffi.structural_map(wanted, (tirx.Var, lambda var: symbols.get(var, var)))
            for dim, wanted in pairs
            if not isinstance(wanted, tirx.Var) and dim not in symbols.values()
        }
        if not sizes:
            return call
        sized = tvm_ffi.structural_map(func, (tirx.Var, lambda var: sizes.get(var, var)))
        gvar = self._builder.add_func(sized, call.args[0].name_hint)
        return relax.Call(call.op, [gvar, *call.args[1:]], call.attrs, call.ty_args, call.span)


def define_first(mod: tvm.IRModule) -> tvm.IRModule:
    """The bindings of each function in an order in which symbols are defined before they are used, and what a
    match_cast checks is checked at once.

    FuseOps of TVM 0.27 heeds variables only. It may put a kernel whose shape is a symbol before the match_cast that
    defines it; VMShapeLower then fails with "has not been computed". And it may put one whose shape would be negative
    before the check that it is not.
    """
    out = tvm.IRModule(dict(mod.functions.items()), attrs=mod.attrs)
    for gvar, func in mod.functions.items():
        if isinstance(func, relax.Function):
            out[gvar] = _in_order(func)
    return out


def _in_order(func: relax.Function) -> relax.Function:
    blocks, moved = [], False
    given = set().union(*(_variables(dim) for param in func.params for dim in _dims(param.ty)))
    for block in func.body.blocks:
        bindings = _ordered(block.bindings, given)
        moved = moved or any(a is not b and not a.same_as(b) for a, b in zip(bindings, block.bindings, strict=True))
        kind = relax.DataflowBlock if isinstance(block, relax.DataflowBlock) else relax.BindingBlock
        blocks.append(kind(bindings))
    if not moved:
        return func
    attrs = dict(func.attrs.items()) if func.attrs else {}
    body = relax.SeqExpr(blocks, func.body.body)
    return relax.Function(func.params, body, func.ret_ty, func.is_pure).with_attrs(attrs)


def _ordered(bindings: Sequence[relax.Binding], given: set[int]) -> list[relax.Binding]:
    """Args:
    given: symbols that the parameters define; a match_cast may state them again, and is no condition for their use.
    """
    defines = [_defined(binding) - given for binding in bindings]
    missing = set().union(*defines)
    waiting = [_Waiting(binding, _used(binding), made) for binding, made in zip(bindings, defines, strict=True)]
    done: list[relax.Binding] = []

    def place(each: _Waiting) -> None:
        done.append(each.binding)
        missing.difference_update(each.made)
        each.placed = True
        for check in checks:
            if not check.placed and each.made & check.used and not check.used & missing:
                place(check)

    checks = [each for each in waiting if isinstance(each.binding, relax.MatchCast)]
    for check in checks:
        if not check.placed and not check.used & missing:
            place(check)
    while waiting:
        for each in waiting:
            if not each.placed and not each.used & missing:
                place(each)
        held = [each for each in waiting if not each.placed]
        if len(held) == len(waiting):  # none can be first: leave it to TVM to say why
            return list(bindings)
        waiting = held
    return done


@dataclass
class _Waiting:
    """A binding that has its place when what it uses has one."""

    binding: relax.Binding
    used: set[int]
    made: set[int]
    placed: bool = False


def _defined(binding: relax.Binding) -> set[int]:
    """The variable that a binding binds, and the symbols that stand alone in the shape it states; not those in what
    it reads, which it checks.
    """
    alone = {hash(dim) for dim in _stated(binding) if isinstance(dim, tvm.ir.Var)}
    return {hash(binding.var)} | (alone - _variables(binding.value))


def _used(binding: relax.Binding) -> set[int]:
    """The variables and symbols that have to be there before a binding."""
    return _variables(binding.value).union(*map(_variables, _stated(binding))) - _defined(binding)


def _variables(part: Any) -> set[int]:
    found: list[tvm.ir.Var] = []
    tvm_ffi.structural_walk(part, (tvm.ir.Var, found.append))
    return {hash(var) for var in found}


def _stated(binding: relax.Binding) -> list[tvm.ir.Expr]:
    """The dimensions that a match_cast states, those in a tuple too."""
    return _dims(binding.ty) if isinstance(binding, relax.MatchCast) else []


def _dims(ty: relax.Type) -> list[tvm.ir.Expr]:
    if isinstance(ty, relax.TupleType):
        return [dim for field in ty.fields for dim in _dims(field)]
    values = getattr(ty.shape if isinstance(ty, relax.TensorType) else ty, "values", None)
    return list(values) if values is not None else []
