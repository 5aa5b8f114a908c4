"""Functions in C that the graph calls at run time: control flow, sequences, and what no kernel can do.

A file of this folder is compiled and linked into a model's library only if the module names one of its functions, but
for memory.c, which all have. To
add a function: write `DSCC_FUNCTION(name) {...}` in a `.c` file here (`dscc.h` has the macro and helpers), and emit a
call of it with `call("name", args, type)`. That is all: the name is found in the sources.

- The function takes TVM's virtual machine as its first argument, then the arguments of the graph: tensors, shapes
  (`relax.ShapeExpr`, also the way to pass integers), arrays (tuples, sequences), closures (a `GlobalVar` of a Relax
  function of the module).
- Its result may be an argument, a view of one, or hold it: their memory is not reused while the result is in use, and
  on devices, where TVM plans memory, not at all.
- Its result needs a type that is no empty tuple. A tensor whose shape is known only when it runs has type
  `relax.TensorType(ndim=...)`; `Node.emit` gives such a result symbols for its dimensions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import tvm
import tvm_ffi
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

PREFIX = "dscc."
FOLDER = Path(__file__).parent


def call(name: str, args: Sequence[relax.Expr], ty: relax.Type) -> relax.Call:
    """A call, without side effects, of the C function `name` of this folder; `ty` is the type of its result."""
    if name not in _functions():
        raise ValueError(f"no file in dscc/library defines '{name}'; they define: {', '.join(sorted(_functions()))}")
    return relax.op.call_pure_packed(PREFIX + name, *args, ty_args=[ty])


def sources(mod: tvm.IRModule) -> list[Path]:
    """The C files that have to be linked to the module's code: that of its memory, and those it names functions of."""
    named = {"empty"}  # dscc/memory.py

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, relax.ExternFunc) and str(expr.global_symbol).startswith(PREFIX):
            named.add(str(expr.global_symbol).removeprefix(PREFIX))

    for func in mod.functions.values():
        if isinstance(func, relax.Function):
            relax.analysis.post_order_visit(func, visit)
    return sorted({_functions()[name] for name in named})


def compile_flags() -> list[str]:
    """What a C compiler needs to know for the files of this folder."""
    return [f"-I{FOLDER}", *(f"-I{folder}" for folder in tvm_ffi.libinfo.include_paths())]


def pass_context(mod: tvm.IRModule) -> tvm.IRModule:
    """Let calls of the functions of this folder pass the virtual machine, and keep TVM's memory planner from reusing
    the memory of their arguments, as it does for calls of packed functions.
    """
    out = mod.clone()
    for gvar, func in mod.functions_items():
        if isinstance(func, relax.Function):
            out[gvar] = _PassContext(mod).visit_expr(func)
    return out


@mutator
class _PassContext(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        if isinstance(call.op, relax.ExternFunc) and str(call.op.global_symbol).startswith(PREFIX):
            return relax.op.call_builtin_with_ctx(call.op, relax.Tuple(call.args), ty_args=list(call.ty_args))
        return call


@cache
def _functions() -> dict[str, Path]:
    """The file of every function."""
    return {
        name: path
        for path in sorted(FOLDER.glob("*.c"))
        for name in re.findall(r"^DSCC_FUNCTION\((\w+)\)", path.read_text(), re.MULTILINE)
    }
