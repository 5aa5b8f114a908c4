"""A workaround: FuseTIR gives the symbols that a fused kernel takes as numbers an order that changes from run to run.

FuseTIR of TVM 0.27 keeps them in a hash table by address: of two compilations of one model one has kernels that take
(height, width), the other (width, height), and no artifact is the same twice. To see it: print the module behind
`relax.transform.FuseTIR()` a few times for a network of strided convolutions of open height and width.

Here they come in the order in which the kernel mentions them. See also dscc/ordered_symbols.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from dscc.passes.mutate import mutated

_CALL_TIR = tvm.ir.Op.get("relax.call_tir")


def in_order(mod: tvm.IRModule, names: Collection[str]) -> tvm.IRModule:
    """`mod` with the numbers that kernels of these names take as they mention them first."""
    out = mod.clone()
    places: dict[str, Mapping[int, int]] = {}
    for gvar, func in mod.functions.items():
        if gvar.name_hint in names and isinstance(func, tirx.PrimFunc):
            numbers = [i for i, param in enumerate(func.params) if not tirx.is_buffer_var(param)]
            first = _first_mentions(func)
            wanted = sorted(numbers, key=[first[param] for param in func.params].__getitem__)
            if wanted != numbers:
                places[gvar.name_hint] = dict(zip(numbers, wanted, strict=True))
                params = _permuted(func.params, places[gvar.name_hint])
                out.update_func(gvar, tirx.PrimFunc(params, func.body, func.ret_type, func.attrs))
    return mutated(out, _Calls(out, places)) if places else mod


def _first_mentions(func: tirx.PrimFunc) -> dict[tirx.Var, int]:
    """When each variable is mentioned first: in the shapes, in the body, or only as a parameter."""
    first: dict[tirx.Var, int] = {}

    def note(var: tirx.Var) -> None:
        first.setdefault(var, len(first))

    for param in func.params:
        if tirx.is_buffer_var(param):
            tvm_ffi.structural_walk(list(param.shape), (tirx.Var, note))
    tvm_ffi.structural_walk(func.body, (tirx.Var, note))
    for param in func.params:
        note(param)
    return first


def _permuted(items: Collection[tvm.ir.Expr], places: Mapping[int, int]) -> list[tvm.ir.Expr]:
    items = list(items)
    return [items[places.get(i, i)] for i in range(len(items))]


@mutator
class _Calls(PyExprMutator):
    """Passes the numbers in the new order."""

    def __init__(self, mod: tvm.IRModule, places: Mapping[str, Mapping[int, int]]):
        super().__init__(mod)
        self._places = places

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        places = self._places.get(call.args[0].name_hint) if call.op == _CALL_TIR else None
        if places is None:
            return call
        args = relax.Tuple(_permuted(call.args[1].fields, places))
        return relax.Call(call.op, [call.args[0], args, *call.args[2:]], call.attrs, call.ty_args, call.span)
