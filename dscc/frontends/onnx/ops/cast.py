"""Conversions between element types."""

from __future__ import annotations

from typing import Any

from tvm import te, tirx
from tvm.relax import Expr
from tvm.relax import op as R

from dscc.elements import BITS, CARRIERS, numpy_dtype
from dscc.frontends.onnx import narrow
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.values import Value, element_type, is_float, scalar

_WIDE = ("float32", "float64")


@converter("Cast", patterns=True)
def cast(node: Node, x: Value) -> Expr | Value:
    return convert(node, x, element_type(node.required("to"), node.label), *_rounding(node))


@converter("CastLike", patterns=True)
def cast_like(node: Node, x: Value, like: Value) -> Expr | Value:
    return convert(node, x, like.element, *_rounding(node))


def _rounding(node: Node) -> tuple[bool, str]:
    mode = node.attr("round_mode", "up")
    if mode not in ("up", "down", "nearest"):
        raise node.error(f"round_mode is '{mode}'; allowed: up, down, nearest")
    return bool(node.attr("saturate", 1)), mode


@converter("BitCast", patterns=True)
def bit_cast(node: Node, x: Value) -> Value:
    """The same bits as another type of the same size."""
    target = element_type(node.required("to"), node.label)
    if (have := _bits(x.element)) != (want := _bits(target)):
        raise node.error(f"'{x.element}' has {have} bits and '{target}' {want}; they must have as many")
    if x.constant is not None:
        return node.value(x.constant.view(numpy_dtype(target)))
    kind = CARRIERS.get(target, target)
    if kind == x.dtype:
        return node.retype(x, target)
    if "bool" in (kind, x.dtype):
        return node.value(convert(node, node.retype(x, x.dtype), kind))
    return node.retype(_elementwise(node, x.expr, lambda e: tirx.reinterpret(kind, e), f"bits_as_{kind}"), target)


def _bits(element: str) -> int:
    return BITS.get(element, 8 * numpy_dtype(element).itemsize)


def convert(node: Node, x: Value, target: str, saturate: bool = True, round_mode: str = "up") -> Expr | Value:
    """x with elements of type `target`, as ONNX's Cast makes them."""
    if target == x.element:
        return x
    if "complex64" in (target, x.element):
        raise node.error(f"'{x.element}' cannot be cast to '{target}'; the standard casts real numbers only")
    if target == "bool" and not is_float(x.dtype) and not x.coded:
        return R.not_equal(x.expr, scalar(0, x.dtype))
    if _exact(x, target):
        return R.astype(x.expr, target)
    name = f"{x.element}_to_{target}"
    result = _elementwise(node, x.expr, lambda e: number_as(number(e, x.element), target, saturate, round_mode), name)
    return node.retype(result, target)


def _exact(x: Value, target: str) -> bool:
    """Whether TVM's own cast does what NumPy's does, on every machine."""
    if x.coded or target in CARRIERS or target == "bfloat16":
        return False
    if is_float(x.dtype) or target == "bool":
        return is_float(target)
    return target != "float16"  # from large integers it depends on the machine


def number(e: Expr, element: str) -> Expr:
    """An element as a number that can be computed with; patterns are decoded."""
    return narrow.decode(e, element) if element in CARRIERS else e


def number_as(e: Expr, target: str, saturate: bool = True, round_mode: str = "up") -> Expr:
    """A number as an element of type `target`, a pattern where a pattern carries it.

    Out of range for an integer type, a float becomes what x86 makes of it: its lower bits, where it fits into 32 bits
    (64 for those of 32 and more), else a fixed number.
    """
    dtype = str(e.ty.dtype)
    if target == dtype:
        return e
    if target == "bool":
        return _is_true(e)
    if target in narrow.INTEGERS:
        return narrow.encode(_whole(e, "int32"), target)
    if target in CARRIERS:
        return narrow.encode(tirx.Cast("float32", e), target, saturate, round_mode)
    if target == "bfloat16":
        return narrow.bfloat16(tirx.Cast("float32", e))
    if target == "float16" and dtype not in _WIDE:
        return tirx.Cast(target, tirx.Cast("float32", e))
    return tirx.Cast(target, e) if is_float(target) else _whole(e, target)


def _is_true(e: Expr) -> Expr:
    """Whether a number is not 0. A NaN is not, which `!=` of TVM does not see; so floats are compared by their bits."""
    dtype = str(e.ty.dtype)
    if not is_float(dtype):
        return tirx.NE(e, tirx.const(0, dtype))
    if dtype not in _WIDE:  # the bits of a bfloat16 are those of a float32 where TVM 0.27 keeps it in one
        e, dtype = tirx.Cast("float32", e), "float32"
    bits = 8 * numpy_dtype(dtype).itemsize
    kind = f"uint{bits}"
    size = tirx.reinterpret(kind, e) & tirx.const((1 << (bits - 1)) - 1, kind)
    return tirx.NE(size, tirx.const(0, kind))


def _whole(e: Expr, target: str) -> Expr:
    """A number as an integer, rounded towards zero."""
    dtype = str(e.ty.dtype)
    if not is_float(dtype):
        return tirx.Cast(target, e)
    if dtype not in _WIDE:
        e = tirx.Cast("float32", e)
    if target in ("int32", "int64"):
        return tirx.Cast(target, e)
    if target == "uint64":
        half = tirx.const(2.0**63, str(e.ty.dtype))
        upper = tirx.Cast("uint64", tirx.Cast("int64", e - half)) ^ tirx.const(1 << 63, "uint64")
        return tirx.Select(e < half, tirx.Cast("uint64", tirx.Cast("int64", e)), upper)
    return tirx.Cast(target, tirx.Cast("int64" if target == "uint32" else "int32", e))


def _elementwise(node: Node, x: Expr, function: Any, name: str) -> Expr:
    def compute(data: te.Tensor) -> te.Tensor:
        return te.compute(data.shape, lambda *i: function(data(*i)), name="cast")

    return node.te(compute, x, name=name)
