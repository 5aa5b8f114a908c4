"""Symbols that stand for computed sizes, which TVM does not see through.

    size = R.call_pure_packed("vm.builtin.copy", R.shape([n * 4 // m]), ty_args=[R.Shape(ndim=1)])
    _ = R.match_cast(size, R.Shape([left]))

Without the call, CanonicalizeBindings of TVM 0.27 puts what the match_cast says of `left` in its place in all types and
drops the match_cast, but leaves `left` where a kernel takes it as an argument: "All shape inputs are expected to be
single tirx var", "has not been computed", or a concatenation that is not lowered since its type is not known. And the
expression, which may be long, would be part of every kernel that follows.

The call gives what it is given. It costs one more step of the virtual machine where the size is computed.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import relax, tirx

_COPY = "vm.builtin.copy"
_CALL = tvm.ir.Op.get("relax.call_pure_packed")


def bind(builder: relax.BlockBuilder, symbol: tirx.Var, size: tvm.ir.Expr) -> None:
    """Give the value of `size` to `symbol`, which is a new one."""
    value = relax.op.call_pure_packed(_COPY, relax.ShapeExpr([size]), ty_args=[relax.ShapeType(ndim=1)])
    builder.match_cast(builder.emit(value, str(symbol.name)), relax.ShapeType([symbol]))


def is_value(call: relax.Call) -> bool:
    """Whether this is the value of such a symbol on its way."""
    return bool(call.op == _CALL and isinstance(call.args[0], relax.ExternFunc) and call.args[0].global_symbol == _COPY)


def result_type(func: relax.Function) -> relax.Type:
    """The type of what a function returns, where such symbols are what they stand for.

    Relax forgets a shape that mentions a symbol of the function's own. It stays so where a size depends on content.
    """
    written = func.body.body.ty
    if not isinstance(written, relax.TupleType) or not (known := _known(func)):
        return func.ret_ty
    given = {var for param in func.params for var in _symbols(param.ty)}
    spelled = [_with(known, ty) for ty in written.fields]
    pairs = zip(spelled, func.ret_ty.fields, strict=True)
    return relax.TupleType([ty if given.issuperset(_symbols(ty)) else erased for ty, erased in pairs])


def _known(func: relax.Function) -> dict[tirx.Var, tvm.ir.Expr]:
    """What the symbols stand for, in terms of others."""
    values: dict[relax.Var, tvm.ir.Expr] = {}
    known: dict[tirx.Var, tvm.ir.Expr] = {}
    for binding in (binding for block in func.body.blocks for binding in block.bindings):
        if isinstance(binding, relax.MatchCast):
            if binding.value in values:
                known[binding.ty.values[0]] = _with(known, values[binding.value])
        elif isinstance(binding.value, relax.Call) and is_value(binding.value):
            values[binding.var] = binding.value.args[1].values[0]
    return known


def _with(known: dict[tirx.Var, tvm.ir.Expr], part: Any) -> Any:
    return tvm_ffi.structural_map(part, (tirx.Var, lambda var: known.get(var, var)))


def _symbols(part: Any) -> list[tirx.Var]:
    found: list[tirx.Var] = []
    tvm_ffi.structural_walk(part, (tirx.Var, found.append))
    return found
