"""Elementary functions of float32 as polynomials and quotients of polynomials.

    exp(x)  ->  2**n * polynomial(x - n * ln 2),  n = x / ln 2 rounded

They have no call, no branch and no table: inside a vectorised loop they stay in vector registers, and the scalar tail
of that loop gives the same bits. Each is a function `(let, x)` that writes its steps, see arithmetic.py.

Relative error against float64 over the whole range, as the unit test measures it: below 5e-7 (of 1 for sin and cos, up
to |x| = 1e6). Infinities and NaN follow IEEE: `max(lo, x)` is written with the constant first, because TIR's max and
min (and `vmaxps`) return their second operand if either is NaN.

The coefficients of exp and log are those of the Cephes library (S. Moshier), the rational functions for tanh and erf
are Eigen's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.arithmetic import Lets, clamp, const, dtype_of, like, polynomial

_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4  # their sum is ln 2; the first has 9 significant bits
_LN2, _LOG2_E = 0.6931471805599453, 1.4426950408889634
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
_LOG = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
_TANH_ABOVE = (
    -2.76076847742355e-16,
    2.00018790482477e-13,
    -8.60467152213735e-11,
    5.12229709037114e-08,
    1.48572235717979e-05,
    6.37261928875436e-04,
    4.89352455891786e-03,
)
_TANH_BELOW = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
_ERF_ABOVE = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_BELOW = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)
_SIN = tuple((-1.0) ** k / math.factorial(2 * k + 1) for k in range(6, 0, -1))
_SINH = tuple(1.0 / math.factorial(2 * k + 1) for k in range(5, 0, -1))
_LOG2_ODD = tuple(2.0 * _LOG2_E / k for k in range(17, 0, -2))  # log2((1 + s) / (1 - s)) = s * polynomial in s*s
_SQRT_HALF_BITS = 0x3F3504F3
_SMALLEST_NORMAL = 1.17549435e-38
_EXP_SHORT = (
    0.008290272206068039,
    0.04189816117286682,
    0.1666763871908188,
    0.4999914765357971,
    0.9999997019767761,
    1.0,
)
_ROUND = 12582912.0 + 127


def _exp_reduced(let: Lets, r: Expr, n: Expr) -> Expr:
    """e**r * 2**n for |r| <= ln(2)/2 and a float n, -252 <= n <= 254.

    The power of two is multiplied in as two factors, so that neither over- nor underflows before the product does.
    """
    r = let(r)
    value = let(polynomial(_EXP, r) * (r * r) + r + const(1.0, r))
    integer = like(r, "int32")
    i = let(n.astype(integer))
    half = let(i >> tirx.const(1, integer))

    def power_of_two(k: Expr) -> Expr:
        return tirx.reinterpret(dtype_of(r), (k + tirx.const(127, integer)) << tirx.const(23, integer))

    return value * power_of_two(half) * power_of_two(i - half)


def _nearbyint(x: Expr) -> Expr:
    """`x` rounded to the nearest whole number, half to even.

    LLVM's intrinsic by its name: TVM 0.27 holds its own operator for one without vectors, and makes a loop over lanes
    of every statement that has it.
    """
    return tirx.call_llvm_pure_intrin(dtype_of(x), "llvm.nearbyint", x)


def _exp(let: Lets, x: Expr) -> Expr:
    c = let(clamp(x, -104.0, 89.0))
    n = let(_nearbyint(let(c * const(_LOG2_E, x))))
    return _exp_reduced(let, c - n * const(_LN2_HIGH, x) - n * const(_LN2_LOW, x), n)


def _exp_short(let: Lets, x: Expr, *ln2: float) -> Expr:
    """e**x for -87 <= x <= 88.3, and for NaN: half the instructions of `_exp`. `ln2`: the parts of ln 2, of which one
    is enough near 0 and where multiply-adds do not round in between.

    The sum with 1.5 * 2**23 + 127 leaves the rounded exponent with its bias in the low bits of `shifted`, from where
    one shift brings it to its place. The polynomial is of degree 5; the relative error is below 2.5e-7 for |x| < 20 and
    4e-7 everywhere.
    """
    integer = like(x, "int32")
    # an intrinsic that TVM knows nothing about: its simplifier would make x * log2(e) of the sum less _ROUND
    shifted = let(tirx.call_llvm_pure_intrin(dtype_of(x), "llvm.fmuladd", x, const(_LOG2_E, x), const(_ROUND, x)))
    n = let(shifted - const(_ROUND, x))
    r = x
    for part in ln2:
        r = r - n * const(part, x)
    r = let(r)
    power = tirx.reinterpret(integer, shifted) << tirx.const(23, integer)
    return polynomial(_EXP_SHORT, r) * tirx.reinterpret(dtype_of(x), power)


def exp_below_one(let: Lets, x: Expr) -> Expr:
    """e**x for x <= 0 (right up to 88), as a softmax needs it; 0 where x < -87."""
    return tirx.Select(x < const(-87.0, x), const(0.0, x), _exp_short(let, x, _LN2))


def _exp2(let: Lets, x: Expr) -> Expr:
    c = let(clamp(x, -151.0, 129.0))
    n = let(_nearbyint(c))
    return _exp_reduced(let, (c - n) * const(_LN2, x), n)


def _sigmoid(let: Lets, x: Expr) -> Expr:
    grown = let(_exp_short(let, let(clamp(const(0.0, x) - x, -87.0, 88.3)), _LN2_HIGH, _LN2_LOW))
    return tirx.Select(x < const(-88.3, x), const(0.0, x), const(1.0, x) / (const(1.0, x) + grown))


def _tanh(let: Lets, x: Expr) -> Expr:
    c = let(clamp(x, -7.90531110763549805, 7.90531110763549805))
    s = let(c * c)
    return c * polynomial(_TANH_ABOVE, s) / polynomial(_TANH_BELOW, s)


def _hyperbolic(let: Lets, x: Expr) -> tuple[Expr, Expr]:
    """e**|x| / 2 and e**-|x| / 2; by the root, so that the first is finite wherever cosh is."""
    root = let(_exp(let, let(const(0.5, x) * tirx.max(x, const(0.0, x) - x))))
    return let(root * (root * const(0.5, x))), let(const(0.5, x) / (root * root))


def _cosh(let: Lets, x: Expr) -> Expr:
    grown, shrunk = _hyperbolic(let, x)
    return grown + shrunk


def _sinh(let: Lets, x: Expr) -> Expr:
    grown, shrunk = _hyperbolic(let, x)
    s = let(x * x)
    far = let(grown - shrunk)
    near = x + x * s * polynomial(_SINH, s)
    return tirx.Select(s < const(1.0, x), near, tirx.Select(x < const(0.0, x), const(0.0, x) - far, far))


def _erf(let: Lets, x: Expr) -> Expr:
    c = let(clamp(x, -4.0, 4.0))
    s = let(c * c)
    return clamp(c * polynomial(_ERF_ABOVE, s) / polynomial(_ERF_BELOW, s), -1.0, 1.0)  # it may be 1 + 2**-23


def _opaque(x: Expr, other: str) -> Expr:
    """x, of which TVM knows nothing: as bits of type `other` and back, for which there are no instructions."""
    return tirx.reinterpret(dtype_of(x), tirx.reinterpret(other, x))


def _split_exponent(let: Lets, x: Expr) -> tuple[Expr, Expr]:
    """(m, e) with x = m * 2**e and sqrt(1/2) <= m < sqrt(2), for positive finite x, denormals too; both are float32."""
    integer = like(x, "int32")
    denormal = x < const(_SMALLEST_NORMAL, x)
    bits = let(tirx.reinterpret(integer, tirx.Select(denormal, x * const(2.0**23, x), x)))
    # NarrowDataType of TVM 0.27 compares the bounds of a variable with and without its Let, where the result is cast to
    # integers ("conflicts with memorization").
    e = let(_opaque((bits - tirx.const(_SQRT_HALF_BITS, integer)) >> tirx.const(23, integer), dtype_of(x)))
    mantissa = let(tirx.reinterpret(dtype_of(x), bits - (e << tirx.const(23, integer))))
    return mantissa, let(e.astype(dtype_of(x)) - tirx.Select(denormal, const(23.0, x), const(0.0, x)))


def _log(let: Lets, x: Expr) -> Expr:
    mantissa, e = _split_exponent(let, x)
    f = let(mantissa - const(1.0, x))
    s = let(f * f)
    fraction = s * f * polynomial(_LOG, f) + e * const(_LN2_LOW, f) - const(0.5, f) * s
    regular = f + fraction + e * const(_LN2_HIGH, f)
    zero, infinity, nan = const(0.0, x), const(math.inf, x), const(math.nan, x)
    positive = tirx.Select(x < infinity, regular, x)
    return tirx.Select(x > zero, positive, tirx.Select(tirx.EQ(x, zero), const(-math.inf, x), nan))


def _log1p(let: Lets, x: Expr) -> Expr:
    u = let(x + const(1.0, x))
    lost = (x - (u - const(1.0, u))) / u  # what the rounding of 1 + x took away
    return _log(let, u) + tirx.Select(u < const(1e30, u), lost, const(0.0, u))


def _pow(let: Lets, x: Expr, y: Expr) -> Expr:
    """x**y with the logarithm in float64, since its error is multiplied by y. A zero base counts as +0."""
    if isinstance(y, tirx.FloatImm) and float(y.value) in _CONSTANT_POWERS:
        return _CONSTANT_POWERS[float(y.value)](x)
    double = like(x, "float64")
    zero, infinity, nan = const(0.0, x), const(math.inf, x), const(math.nan, x)
    size = let(tirx.Select(x < zero, zero - x, x))
    mantissa, e = _split_exponent(let, size)
    wide = let(mantissa.astype(double))
    s = let((wide - tirx.const(1.0, double)) / (wide + tirx.const(1.0, double)))
    q = let(s * s)
    # An intrinsic that TVM knows nothing about: else its simplifier would put all of the above in every place of log2.
    log2 = let(tirx.call_llvm_intrin(double, "llvm.fma", s, polynomial(_LOG2_ODD, q), e.astype(double)))
    t = let(clamp(log2 * y.astype(double), -160.0, 160.0))
    n = let(_nearbyint(t))
    r = tirx.call_llvm_intrin(dtype_of(x), "llvm.fma", (t - n).astype(dtype_of(x)), const(_LN2, x), const(0.0, x))
    regular = _exp_reduced(let, r, n.astype(dtype_of(x)))
    at_zero = tirx.Select(y > zero, zero, infinity)
    at_infinity = tirx.Select(y > zero, infinity, zero)
    power = let(tirx.Select(tirx.EQ(size, zero), at_zero, tirx.Select(tirx.EQ(size, infinity), at_infinity, regular)))
    half = let(y * const(0.5, x))
    odd = tirx.NE(tirx.floor(half), half)
    whole = tirx.EQ(tirx.floor(y), y)
    fractional = tirx.Select(tirx.EQ(size, infinity), power, nan)
    below = tirx.Select(whole, tirx.Select(odd, zero - power, power), fractional)
    ordered = tirx.Select(x <= infinity, tirx.Select(y <= infinity, tirx.Select(x < zero, below, power), y), x)
    return tirx.Select(tirx.Or(tirx.EQ(y, zero), tirx.EQ(x, const(1.0, x))), const(1.0, x), ordered)


_CONSTANT_POWERS: dict[float, Callable[[Expr], Expr]] = {
    0.5: tirx.sqrt,
    -0.5: lambda x: const(1.0, x) / tirx.sqrt(x),
    1.0: lambda x: x,
    -1.0: lambda x: const(1.0, x) / x,
    2.0: lambda x: x * x,
    3.0: lambda x: x * x * x,
}


def _sine(let: Lets, x: Expr, shift: float) -> Expr:
    """sin(x + shift * pi): the argument is reduced in float64, the series is of degree 13."""
    double = like(x, "float64")
    wide = let(x.astype(double))
    n = let(_nearbyint(let(wide * tirx.const(1.0 / math.pi, double) + tirx.const(shift, double))))
    r = let((wide - (n - tirx.const(shift, double)) * tirx.const(math.pi, double)).astype(dtype_of(x)))
    half = let(n * tirx.const(0.5, double))
    s = let(r * r)
    value = let(r + r * s * polynomial(_SIN, s))
    return tirx.Select(tirx.NE(tirx.floor(half), half), const(0.0, x) - value, value)


FUNCTIONS: dict[str, Callable[..., Expr]] = {
    "exp": _exp,
    "exp2": _exp2,
    "exp10": lambda let, x: _pow(let, const(10.0, x), x),
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "erf": _erf,
    "sinh": _sinh,
    "cosh": _cosh,
    "log": _log,
    "log2": lambda let, x: _log(let, x) * const(_LOG2_E, x),
    "log10": lambda let, x: _log(let, x) * const(1.0 / math.log(10.0), x),
    "log1p": _log1p,
    "pow": _pow,
    "sin": lambda let, x: _sine(let, x, 0.0),
    "cos": lambda let, x: _sine(let, x, 0.5),
}
"""Name in TIR to the function that writes it, for float32, scalars and vectors."""
