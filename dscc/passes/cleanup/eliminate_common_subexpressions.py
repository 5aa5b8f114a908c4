"""Compute once what is computed twice from the same values.

    a = R.exp(x); b = R.exp(x); R.add(a, b)   ->   a = R.exp(x); R.add(a, a)

Large constants are compared only where everything else is equal.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import tvm
import tvm_ffi
from tvm import relax

from dscc.passes.base import Pass, PassContext
from dscc.passes.graph import Graph, Node, edit_functions

# Operators that give another result, or have another effect, each time they are called.
IMPURE = ("relax.multinomial_from_uniform", "relax.call_", "relax.invoke_", "relax.builtin", "relax.memory", "relax.vm")


@dataclass(frozen=True)
class EliminateCommonSubexpressions(Pass):
    """Equal calls on the same operands become one."""

    name = "eliminate-common-subexpressions"

    def run(self, mod: tvm.IRModule, ctx: PassContext) -> tvm.IRModule:
        def edit(graph: Graph) -> None:
            seen: dict[Hashable, list[Node]] = {}
            for node in graph:
                if not node.dataflow or node.cast is not None or node.op.startswith(IMPURE):
                    continue
                if not isinstance(node.value, relax.Call | relax.TupleGetItem):
                    continue
                alike = seen.setdefault(_key(node.value), [])
                first = next((n for n in alike if n.alive and tvm_ffi.structural_equal(n.value, node.value)), None)
                if first is None:
                    alike.append(node)
                else:
                    ctx.remark(f"{self.name}: applied at {node}: it is {first}")
                    graph.replace(node, first.var)

        return edit_functions(mod, edit)


def _key(value: relax.Expr) -> Hashable:
    """Equal for equal calls; large constants count by identity, so that no weight is hashed."""
    if isinstance(value, relax.TupleGetItem):
        return ("getitem", value.tuple_value, value.index)
    return (value.op, *(_operand_key(arg) for arg in value.args))


def _operand_key(arg: relax.Expr) -> Hashable:
    if isinstance(arg, relax.Var):
        return arg
    if isinstance(arg, tvm.ir.GenericConst):
        return "constant"
    if isinstance(arg, relax.Tuple):
        return tuple(_operand_key(field) for field in arg.fields)
    return tvm_ffi.structural_hash(arg)
