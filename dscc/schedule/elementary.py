"""Elementary functions for which TVM has no code in some type or inside vectors, as arithmetic over those it has.

    T.asinh(x)  ->  sign(x) * log1p(|x| + x^2 / (1 + sqrt(x^2 + 1)))

TVM 0.27 lowers these to a call of the C library for one float32 or float64, and refuses them as "unknown intrinsic" for
float16, for vectors, and some (sinh, cosh, erf) for float64. The hyperbolic ones it writes as sums of exponentials, of
which nothing is left near zero: its tanh(1e-8) is 0. What LLVM has an intrinsic for is left to LLVM, which splits
vectors into lanes; the others are rare enough in networks that no effort goes into their speed.

The rational functions for erf in double precision are those of the Cephes library (S. Moshier).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.arithmetic import const, dtype_of, is_nan, polynomial

_INTRINSICS = ("asin", "acos", "atan", "sinh", "cosh", "tan", "tanh")
_ERF_ABOVE = (9.60497373987051638749, 90.0260197203842689217, 2232.00534594684319226, 7003.32514112805075473,
              55592.3013010394962768)  # fmt: skip
_ERF_BELOW = (1.0, 33.5617141647503099647, 521.357949780152679795, 4594.32382970980127987, 22629.0000613890934246,
              49267.3942608635921086)  # fmt: skip
_ERFC_ABOVE = (2.46196981473530512524e-10, 0.564189564831068821977, 7.46321056442269912687, 48.6371970985681366614,
               196.520832956077098242, 526.445194995477358631, 934.528527171957607540, 1027.55188689515710272,
               557.535335369399327526)  # fmt: skip
_ERFC_BELOW = (1.0, 13.2281951154744992508, 86.7072140885989742329, 354.937778887819891062, 975.708501743205489753,
               1823.90916687909736289, 2246.33760818710981792, 1656.66309194161350182,
               557.535340817727675546)  # fmt: skip

Let = Callable[[Expr], Expr]
Function = Callable[[Let, Expr], Expr]


def _llvm(name: str) -> Function:
    return lambda let, x: tirx.call_llvm_pure_intrin(dtype_of(x), f"llvm.{name}", x)


_log, _exp, _sqrt = _llvm("log"), _llvm("exp"), _llvm("sqrt")


def _size(x: Expr) -> Expr:
    return tirx.Select(x < const(0.0, x), const(0.0, x) - x, x)


def _signed(x: Expr, size: Expr) -> Expr:
    return tirx.Select(x < const(0.0, x), const(0.0, x) - size, size)


def _log1p(let: Let, x: Expr) -> Expr:
    """log(1 + x), with what the rounding of 1 + x takes away put back."""
    # An intrinsic that TVM knows nothing about: its simplifier would find that nothing was taken away.
    u = let(tirx.call_llvm_pure_intrin(dtype_of(x), "llvm.fmuladd", x, const(1.0, x), const(1.0, x)))
    lost = (x - (u - const(1.0, x))) / u
    return _log(let, u) + tirx.Select(tirx.And(u < const(1e30, x), u > const(0.0, x)), lost, const(0.0, x))


def _asinh(let: Let, x: Expr) -> Expr:
    a = let(_size(x))
    s = let(a * a)
    near = let(_log1p(let, let(a + s / (_sqrt(let, let(s + const(1.0, x))) + const(1.0, x)))))
    far = let(_log(let, a) + const(math.log(2.0), x))  # a * a overflows long after 1 is lost beside it
    return _signed(x, let(tirx.Select(a > const(1e9, x), far, near)))


def _acosh(let: Let, x: Expr) -> Expr:
    t = let(x - const(1.0, x))
    near = let(_log1p(let, let(t + _sqrt(let, let(t * (t + const(2.0, x)))))))
    far = let(_log(let, x) + const(math.log(2.0), x))
    inside = let(tirx.Select(x > const(1e9, x), far, near))
    return tirx.Select(x < const(1.0, x), const(math.nan, x), inside)


def _atanh(let: Let, x: Expr) -> Expr:
    a = let(_size(x))
    return _signed(x, let(const(0.5, x) * _log1p(let, let(const(2.0, x) * a / (const(1.0, x) - a)))))


def _erf(let: Let, x: Expr) -> Expr:
    a = let(_size(x))
    s = let(a * a)
    near = let(a * polynomial(_ERF_ABOVE, s) / polynomial(_ERF_BELOW, s))
    c = let(tirx.min(a, const(8.0, x)))
    tail = _exp(let, let(const(0.0, x) - c * c)) * polynomial(_ERFC_ABOVE, c) / polynomial(_ERFC_BELOW, c)
    far = let(const(1.0, x) - tail)
    inside = let(tirx.Select(a < const(1.0, x), near, tirx.Select(is_nan(x), x, far)))
    return _signed(x, inside)


FUNCTIONS: dict[str, Function] = {
    "nearbyint": _llvm("nearbyint"),  # TVM 0.27 has it, but makes a loop over lanes of a vectorized statement with it
    **{name: _llvm(name) for name in _INTRINSICS},
    "asinh": _asinh,
    "acosh": _acosh,
    "atanh": _atanh,
    "log1p": _log1p,
    "erf": _erf,
}
"""Name in TIR to the function that writes it, for float32 and float64, scalars and vectors."""

ONCE = frozenset({"nearbyint", *_INTRINSICS})
"""Those that use their argument once."""
