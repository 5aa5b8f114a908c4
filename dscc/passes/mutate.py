"""Run one of TVM's mutators over all Relax functions of a module."""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator


def mutated(mod: tvm.IRModule, mutator: PyExprMutator) -> tvm.IRModule:
    """`mod`, which `mutator` was made of, with Relax functions as it rewrites them, and those that it added."""
    builder = mutator.builder_
    for gvar, func in mod.functions.items():
        if isinstance(func, relax.Function):
            builder.update_func(gvar, mutator.visit_expr(func))
    return builder.get()
