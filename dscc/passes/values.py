"""What is known about a value while compiling: its dimensions, its element type, and its contents if it is a
constant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, tirx

from dscc import constants, scratch
from dscc.elements import numpy_dtype

Expr: TypeAlias = relax.Expr
Dim: TypeAlias = Any  # int where the dimension is fixed, else a tirx expression


def dims(expr: Expr) -> tuple[Dim, ...] | None:
    """The dimensions of a tensor, ints where they are fixed; None if it is no tensor or its shape is not written
    down.
    """
    ty = expr.ty
    if not isinstance(ty, relax.TensorType) or not isinstance(ty.shape, relax.ShapeExpr):
        return None
    return tuple(dim(value) for value in ty.shape.values)


def dim(value: Dim) -> Dim:
    """An int if `value` is a fixed dimension, else the expression itself."""
    return int(value) if isinstance(value, int | tirx.IntImm) else value


def rank(expr: Expr) -> int | None:
    """The number of dimensions of a tensor, or None if it is not known."""
    return int(expr.ty.ndim) if isinstance(expr.ty, relax.TensorType) and expr.ty.ndim >= 0 else None


def dtype(expr: Expr) -> str:
    """The element type of a tensor as NumPy spells it; '' if it is no tensor or has none."""
    return str(expr.ty.dtype) if isinstance(expr.ty, relax.TensorType) and expr.ty.dtype is not None else ""


def same_dim(a: Dim, b: Dim) -> bool:
    """Whether two dimensions are provably the same."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    if isinstance(a, int) or isinstance(b, int):
        return bool(tvm.sym.Analyzer().can_prove_equal(a, b))
    return bool(tvm_ffi.structural_equal(a, b)) or bool(tvm.sym.Analyzer().can_prove_equal(a, b))


def at_sizes(size: Dim, sizes: Mapping[tirx.Var, int], others: int) -> int | None:
    """A dimension where its symbols have these sizes, or `others`; None where one is divided by another that is 0."""
    if isinstance(size, int):
        return size
    known = (tirx.Var, lambda var: tirx.IntImm(str(var.ty.dtype), sizes.get(var, others)))
    try:
        value = tvm.sym.Analyzer().simplify(tvm_ffi.structural_map(size, known))
    except tvm.error.InternalError as err:
        if "Divide by zero" not in str(err):
            raise
        return None
    return int(value) if isinstance(value, tirx.IntImm) else others


def is_one(value: Dim) -> bool:
    """Whether a dimension is fixed at 1."""
    return isinstance(value, int) and value == 1


def same_dims(a: tuple[Dim, ...] | None, b: tuple[Dim, ...] | None) -> bool:
    """Whether two shapes are known and provably the same."""
    return a is not None and b is not None and len(a) == len(b) and all(map(same_dim, a, b))


def constant(expr: Expr) -> np.ndarray | None:
    """The contents of a constant, which nobody may write to, or None if `expr` is none."""
    return constants.contents(expr.value) if isinstance(expr, tvm.ir.GenericConst) else None


def const(values: np.ndarray, kind: str | None = None) -> relax.Expr:
    """A constant of the array's own type, or of type `kind`; `relax.const` alone would narrow int64 and float64."""
    return constants.constant(scratch.stored(values if kind is None else values.astype(numpy_dtype(kind), copy=False)))


def scalar(expr: Expr) -> float | None:
    """The number in a constant of one element, of any rank; None for anything else."""
    if not isinstance(expr, tvm.ir.GenericConst) or any(int(d) != 1 for d in expr.ty.shape.values):
        return None
    return float(expr.value.numpy().reshape(()))


def is_scalar(expr: Expr, value: float, relative: float = 1e-6) -> bool:
    """Whether `expr` is a constant of one element that equals `value`, up to the rounding of a float32 literal."""
    found = scalar(expr)
    return found is not None and abs(found - value) <= relative * abs(value)


def unlike(wanted: Iterable[tuple[Expr | None, float]], relative: float) -> str | None:
    """Why a pattern's constants are not the numbers that they have to be, for a remark; None if they are, or if one is
    not in the pattern.
    """
    for found, value in wanted:
        if found is not None and not is_scalar(found, value, relative):
            return f"expected {value:.4g}, found {describe(found)}"
    return None


def attr(call: relax.Call, name: str) -> Any:
    """An attribute of a call as plain Python: ints, floats, strings, tuples, None."""
    return plain(getattr(call.attrs, name))


def plain(value: Any) -> Any:
    """TVM's boxed numbers, strings and arrays as Python's own."""
    if isinstance(value, tirx.IntImm):
        return int(value.value)
    if isinstance(value, tirx.FloatImm):
        return float(value.value)
    if isinstance(value, str):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple | tvm_ffi.Array):
        return tuple(plain(each) for each in value)
    return value


def numbers(expr: relax.Expr) -> tuple[float, ...] | None:
    """The numbers in an argument that is written into the call: a tuple, a shape, or one number; None if any is
    open.
    """
    if isinstance(expr, relax.Tuple):
        parts = list(expr.fields)
    elif isinstance(expr, relax.ShapeExpr):
        parts = list(expr.values)
    else:
        parts = [expr]
    known = [plain(part) for part in parts]
    return tuple(known) if all(isinstance(n, int | float) for n in known) else None


def with_attrs(call: relax.Call, changed: dict[str, Any]) -> tvm.ir.Attrs:
    """The attributes of `call` with some of them replaced."""
    kind = type(call.attrs)
    names = [field.name for field in kind.__tvm_ffi_type_info__.fields]
    return kind(**{name: changed.get(name, getattr(call.attrs, name)) for name in names})


def describe(expr: relax.Expr) -> str:
    """A value for a remark: the number in a constant of one element, else its name and type."""
    number = scalar(expr)
    if number is not None:
        return f"{number:g}"
    return f"%{expr.name}" if isinstance(expr, relax.Var) else f"a constant of {tuple(dims(expr) or ())}"
