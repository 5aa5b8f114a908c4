"""Memory of the values between kernels: from dscc/library/memory.c instead of TVM's allocator.

TVM's virtual machine asks for storage and then for tensors in it, in two calls with two shapes. A storage that holds
one tensor, as all do whose size is open, becomes one call here.
"""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

_STORAGE, _TENSOR, _KILL = (f"relax.memory.{name}" for name in ("alloc_storage", "alloc_tensor", "kill_storage"))


def own_memory(mod: tvm.IRModule) -> tvm.IRModule:
    """The module with calls of `dscc.empty` and `dscc.view`; for modules that compute on the processor alone."""
    out = mod.clone()
    for gvar, func in mod.functions_items():
        if isinstance(func, relax.Function):
            out[gvar] = _Allocations(mod, _held_alone(func)).visit_expr(func)
    return out


def _name(expr: relax.Expr) -> str:
    return expr.op.name if isinstance(expr, relax.Call) and isinstance(expr.op, tvm.ir.Op) else ""


def _held_alone(func: relax.Function) -> set[relax.Var]:
    """The storages in which there is one tensor."""
    tensors: dict[relax.Var, int] = {}

    def visit(expr: relax.Expr) -> None:
        if _name(expr) == _TENSOR:
            tensors[expr.args[0]] = tensors.get(expr.args[0], 0) + 1

    relax.analysis.post_order_visit(func, visit)
    return {storage for storage, count in tensors.items() if count == 1}


@mutator
class _Allocations(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, alone: set[relax.Var]):
        super().__init__(mod)
        self._alone = alone

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        value = binding.value
        if binding.var in self._alone or (_name(value) == _KILL and value.args[0] in self._alone):
            return  # its tensor is all there is
        super().visit_var_binding_(binding)

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        if _name(call) == _STORAGE:
            kind = relax.TensorType(ndim=1, dtype="uint8")
            return _call("empty", [call.args[0], _code("uint8")], kind)
        if _name(call) != _TENSOR:
            return super().visit_call_(call)
        storage, offset, shape, dtype = call.args[:4]
        if int(offset) != 0:
            raise ValueError(f"a tensor begins at byte {offset} of its storage; TVM 0.27 plans none that does")
        if storage in self._alone:
            return _call("empty", [shape, _code(str(dtype.value))], call.ty)
        return _call("view", [self.visit_expr(storage), shape, _code(str(dtype.value))], call.ty)


def _code(dtype: str) -> relax.Expr:
    """A type as the number that DLPack's 4 bytes are: an instrument of TVM's machine makes text of a type."""
    kind = tvm.DataType(dtype)
    return relax.prim_value(kind.type_code | kind.bits << 8 | kind.lanes << 16)


def _call(name: str, args: list[relax.Expr], ty: relax.Type) -> relax.Call:
    return relax.op.call_builtin_with_ctx(relax.ExternFunc(f"dscc.{name}"), relax.Tuple(args), ty_args=[ty])
