"""TVM's mutators, run over all Relax functions of a module."""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator

from dscc.passes.base import PassContext


class Rewriter(PyExprMutator):
    """What a pass derives its mutator from, which `tvm.relax.expr_functor.mutator` has to decorate; not this class:
    TVM 0.27 refuses to derive from a decorated one.
    """

    def __init__(self, mod: tvm.IRModule, ctx: PassContext):
        super().__init__(mod)
        self._ctx = ctx

    def _bound(self, expr: relax.Expr) -> relax.Expr | None:
        """What a variable stands for, None for a parameter; `expr` itself if it is no variable."""
        return self.lookup_binding(expr) if isinstance(expr, relax.Var) else expr


def mutated(mod: tvm.IRModule, mutator: PyExprMutator) -> tvm.IRModule:
    """`mod`, which `mutator` was made of, with Relax functions as it rewrites them, and those that it added."""
    builder = mutator.builder_
    for gvar, func in mod.functions.items():
        if isinstance(func, relax.Function):
            builder.update_func(gvar, mutator.visit_expr(func))
    return builder.get()
