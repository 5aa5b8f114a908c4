"""Put elementwise and broadcast consumers into the TIR function of what they consume.

    lv = R.call_tir(cls.matmul, (x, w)); lv1 = R.call_tir(cls.add, (lv, b))
    ->  lv1 = R.call_tir(cls.fused_matmul_add, (x, w, b))

Not fused: a product with a consumer that spreads its result over a larger shape (the gate of a squeeze-and-excitation
block, multiplied with every pixel): the consumer is the larger work, and would be driven by the loops of the smaller.
And a product with the fourth of functions of functions (Mish has three): TVM 0.27's simplifier goes through each
several times, and takes minutes over four.
"""

from __future__ import annotations

from dataclasses import dataclass

import tvm
import tvm_ffi
from tvm import ir, relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from dscc.passes import origins
from dscc.passes.base import Pass, PassContext
from dscc.passes.lower.argument_order import in_order
from dscc.passes.lower.fusible import define_first, join_symbols, simplest_sizes, sizes_of_arguments
from dscc.passes.mutate import mutated
from dscc.schedule.math import is_chain

_CALL_TIR = tvm.ir.Op.get("relax.call_tir")
# TVM's OpPatternKind: a product takes consumers up to "broadcast"; "injective" ones fuse among themselves only.
_BROADCAST, _INJECTIVE, _PRODUCT = 1, 2, 4
_DEEPEST = 3  # functions within one another that are fused into a product


@dataclass(frozen=True)
class FuseOperators(Pass):
    """Producer and consumer TIR functions become one, as far as TVM's operator patterns allow."""

    name = "fuse-operators"
    stage = "lower"

    def run(self, mod: tvm.IRModule, ctx: PassContext) -> tvm.IRModule:
        mod = relax.transform.AnnotateTIROpPattern()(simplest_sizes(mod))
        single = mutated(mod, _KeepApart(mod))
        fused = origins.of_groups(single, relax.transform.FuseOps(fuse_opt_level=2)(single))
        ready = define_first(sizes_of_arguments(join_symbols(fused)))
        groups = {gvar.name_hint for gvar, func in ready.functions.items() if isinstance(func, relax.Function)}
        kernels = in_order(relax.transform.FuseTIR()(ready), groups)
        return relax.transform.DeadCodeElimination()(with_views(kernels))


def with_views(mod: tvm.IRModule) -> tvm.IRModule:
    """Reshapes that nothing was fused with become views; this reads blocks, so it goes before the rules.

    TVM 0.27 fails on slices of symbolic extents, such as the first 2n - 1 of 2n rows: "The padding factor ... is not
    divisible by", and on more than 2**31 elements: "Literal value ... exceeds range of int32". Functions that it cannot
    judge are hidden from it; those of symbolic slices are no reshapes, and a huge reshape is copied.
    """
    kernels = {gvar: func for gvar, func in mod.functions.items() if isinstance(func, tirx.PrimFunc)}
    hidden = {gvar: func for gvar, func in kernels.items() if not _is_judged(func)}
    blank = {gvar: func.with_body(tirx.Evaluate(0)) for gvar, func in hidden.items()}
    out = relax.transform.RewriteDataflowReshape()(tvm.IRModule(dict(mod.functions) | blank, attrs=mod.attrs))
    for gvar, func in hidden.items():
        out.update_func(out.get_global_var(gvar.name_hint), func)
    return out


def _is_judged(func: tirx.PrimFunc) -> bool:
    try:
        relax.analysis.has_reshape_pattern(func)
    except (tvm.error.InternalError, ValueError):
        return False
    return True


@mutator
class _KeepApart(PyExprMutator):
    """Declares a consumer injective where it spreads the result of a product, or is one function too many on it."""

    def __init__(self, mod: tvm.IRModule):
        super().__init__(mod)
        self._mod = mod
        self._deep: dict[relax.Var, int] = {}

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if call.op != _CALL_TIR or self._pattern(call) > _BROADCAST:
            return call
        products = [arg for arg in call.args[1] if self._is_product(arg)]
        spreads = any(not _same_shape(arg.ty, call.ty) for arg in products)
        if not spreads and (not products or self._depth_of(call) <= _DEEPEST):
            return call
        func = self._mod[call.args[0]].with_attr("op_pattern", _INJECTIVE)
        gvar = self.builder_.add_func(func, call.args[0].name_hint)
        return relax.Call(call.op, [gvar, *call.args[1:]], call.attrs, call.ty_args, call.span)

    def _is_product(self, expr: relax.Expr) -> bool:
        """Whether `expr` is a product, or what its elementwise consumers of the same shape make of it."""
        value = self.lookup_binding(expr) if isinstance(expr, relax.Var) else None
        if not isinstance(value, relax.Call) or value.op != _CALL_TIR:
            return False
        pattern = self._pattern(value)
        if pattern <= _BROADCAST:
            return any(self._is_product(arg) for arg in value.args[1] if _same_shape(arg.ty, value.ty))
        return pattern == _PRODUCT

    def _depth(self, expr: relax.Expr) -> int:
        """How many functions are within one another in `expr`, as far as it is elementwise."""
        if not isinstance(expr, relax.Var):
            return 0
        if expr not in self._deep:
            value = self.lookup_binding(expr)
            elementwise = isinstance(value, relax.Call) and value.op == _CALL_TIR and self._pattern(value) <= _BROADCAST
            self._deep[expr] = self._depth_of(value) if elementwise else 0
        return self._deep[expr]

    def _depth_of(self, call: relax.Call) -> int:
        functions: list[ir.Call] = []
        visit = (ir.Call, lambda node: functions.append(node) if is_chain(node) else None)
        tvm_ffi.structural_walk(self._mod[call.args[0]].body, visit)
        return len(functions) + max((self._depth(arg) for arg in call.args[1]), default=0)

    def _pattern(self, call: relax.Call) -> int:
        gvar = call.args[0]
        known = self._mod.functions.get(gvar)
        return int(known.attrs.get("op_pattern", 8)) if known is not None and known.attrs else 8


def _same_shape(a: relax.TensorType, b: relax.Type) -> bool:
    return all(isinstance(ty, relax.TensorType) for ty in (a, b)) and bool(tvm_ffi.structural_equal(a.shape, b.shape))
