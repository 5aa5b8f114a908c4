"""Arithmetic on the elements of shapes that the graph computes: integers, fractions and expressions over dimensions.

A product of a dimension n with 0.3 is the Ratio of n and 3/10, the floor of which is n * 3 // 10 again.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import tvm
from tvm import tirx

from dscc.frontends.onnx.shapes import Dims, is_bare
from dscc.frontends.onnx.values import Array, Ratio

Element = Any  # int, bool, float, Fraction, Ratio or a tirx expression


class Inexpressible(Exception):
    """The result has no form as dimensions."""


def is_expr(x: Element) -> bool:
    return isinstance(x, tvm.ir.Expr)


def exact(x: Element) -> Element:
    """A float as the short fraction that it was rounded from, as in 0.3333 for 1/3; whole numbers as int."""
    if isinstance(x, float | np.floating):
        if not math.isfinite(x):
            raise Inexpressible
        fraction = Fraction(float(x)).limit_denominator(4096)
        if abs(float(fraction) - float(x)) > 1e-6 * abs(float(x)):
            raise Inexpressible
        return int(fraction) if fraction.denominator == 1 else fraction
    if isinstance(x, Fraction) and x.denominator == 1:
        return int(x)
    return x


def _ratio(x: Element) -> Ratio:
    return x if isinstance(x, Ratio) else Ratio(x, Fraction(1))


class Arithmetic:
    """Sums, products, comparisons ... of elements; `dims` proves what is known of the symbols.

    All raise Inexpressible where the result would be neither a number, nor a dimension, nor a multiple of one.
    """

    def __init__(self, dims: Dims) -> None:
        self.dims = dims

    def binary(self, function: Callable[[Element, Element], Element], a: Array, b: Array) -> Array:
        """`function` of every pair of elements, broadcast."""
        a, b = np.broadcast_arrays(a, b)
        out = np.empty(a.shape, dtype=object)
        for index in np.ndindex(a.shape):
            out[index] = function(exact(a[index]), exact(b[index]))
        return out

    def unary(self, function: Callable[[Element], Element], a: Array) -> Array:
        return self.binary(lambda x, _: function(x), a, np.zeros((), dtype=object))

    def add(self, a: Element, b: Element) -> Element:
        if isinstance(a, Ratio | Fraction) or isinstance(b, Ratio | Fraction):
            left, right = _ratio(a), _ratio(b)
            if not (is_expr(left.dim) or is_expr(right.dim)):
                return exact(left.dim * left.factor + right.dim * right.factor)
            raise Inexpressible
        return a + b

    def mul(self, a: Element, b: Element) -> Element:
        if not (is_expr(a) or is_expr(b) or isinstance(a, Ratio) or isinstance(b, Ratio)):
            return exact(a * b)
        left, right = _split(a), _split(b)
        factor, dim = left[1] * right[1], self.dims.simplify(left[0] * right[0])
        return self._scaled(dim, factor)

    def div(self, a: Element, b: Element, floating: bool) -> Element:
        """a / b, rounded towards zero unless `floating`."""
        if isinstance(b, int) and b == 0:
            raise Inexpressible
        if floating:
            if isinstance(b, int | Fraction):
                return self.mul(a, Fraction(1) / b) if is_expr(a) or isinstance(a, Ratio) else exact(Fraction(a) / b)
            (top, f), (bottom, g) = _split(a), _split(b)
            if is_expr(top) and self.dims.equal(top, bottom):
                return exact(f / g)
            quotient = self.dims.floordiv(top, bottom)
            if self.dims.equal(quotient * bottom, top):
                return self._scaled(quotient, f / g)
            raise Inexpressible
        if not (is_expr(a) or is_expr(b)):
            return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        b = self.divisor(b)
        if self.dims.at_least(a, 0) and self.dims.at_least(b, 1):
            return self.dims.floordiv(a, b)
        return tirx.truncdiv(_as_expr(a), _as_expr(b))

    def divisor(self, b: Element) -> Element:
        """`b`, or 1 where a size that was computed is 0: every kernel that divides by it would end the process."""
        return self.dims.maximum(b, 1) if is_expr(b) and not is_bare(b) and self.dims.at_least(b, 0) else b

    def _scaled(self, dim: Element, factor: Fraction) -> Element:
        if not is_expr(dim):
            return exact(dim * factor)
        if factor.denominator == 1:
            return self.dims.simplify(dim * int(factor))
        return Ratio(dim, factor)

    def floor(self, x: Element) -> Element:
        if isinstance(x, Ratio):
            return self.dims.floordiv(x.dim * x.factor.numerator, x.factor.denominator)
        return math.floor(x) if isinstance(x, Fraction | float) else x

    def ceil(self, x: Element) -> Element:
        if isinstance(x, Ratio):
            return self.dims.ceildiv(x.dim * x.factor.numerator, x.factor.denominator)
        return math.ceil(x) if isinstance(x, Fraction | float) else x

    def trunc(self, x: Element) -> Element:
        if isinstance(x, Ratio):
            if not self.dims.at_least(x.dim, 0) or x.factor < 0:
                raise Inexpressible
            return self.floor(x)
        return int(x) if isinstance(x, Fraction | float) else x

    def compare(self, function: Callable[[Any, Any], Any]) -> Callable[[Element, Element], Element]:
        def compared(a: Element, b: Element) -> Element:
            if isinstance(a, Ratio) or isinstance(b, Ratio):
                raise Inexpressible
            if not (is_expr(a) or is_expr(b)):
                return bool(function(a, b))
            condition = _as_condition(function, _as_expr(a), _as_expr(b))
            if self.dims.proved(condition):
                return True
            return False if self.dims.proved(tirx.Not(condition)) else condition

        return compared

    def select(self, condition: Element, a: Element, b: Element) -> Element:
        if not is_expr(condition):
            return a if condition else b
        if isinstance(a, Ratio | Fraction) or isinstance(b, Ratio | Fraction):
            raise Inexpressible
        return tirx.Select(condition, _as_expr(a), _as_expr(b))

    def maximum(self, a: Element, b: Element) -> Element:
        return self._bound(max, self.dims.maximum, a, b)

    def minimum(self, a: Element, b: Element) -> Element:
        return self._bound(min, self.dims.minimum, a, b)

    def _bound(
        self, known: Callable[..., Element], open_: Callable[[Element, Element], Element], a: Element, b: Element
    ) -> Element:
        if not (is_expr(a) or is_expr(b) or isinstance(a, Ratio) or isinstance(b, Ratio)):
            return known(a, b)
        _as_expr(a), _as_expr(b)
        return open_(a, b)


def _split(x: Element) -> tuple[Element, Fraction]:
    """x as (dimension or 1, factor)."""
    if isinstance(x, Ratio):
        return x.dim, x.factor
    return (x, Fraction(1)) if is_expr(x) else (1, Fraction(x))


def _as_expr(x: Element) -> Any:
    if isinstance(x, Ratio | Fraction | float):
        raise Inexpressible
    return x if is_expr(x) else tirx.IntImm("int64", int(x))


def _as_condition(function: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    """The operators of Python for equality give an object that waits for an `if`, not an expression."""
    a, b = (tirx.Cast("int64", x) if str(x.ty.dtype) == "bool" else x for x in (a, b))
    return {operator.eq: tirx.EQ, operator.ne: tirx.NE}.get(function, function)(a, b)
