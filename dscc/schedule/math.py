"""Elementary functions as TIR arithmetic, so that they become vector code.

    T.exp(x)  ->  polynomial in x, built of multiply-adds, shifts and selects

LLVM turns `llvm.exp.v16f32`, `erff` and their like into one libm call per lane. The expressions below have no call, no
branch and no table: inside a vectorised loop they stay in vector registers, and the scalar tail of that loop gives the
same bits.

Relative error against float64 over the whole range, as the unit test measures it: below 5e-7 (of 1 for sin and cos, up
to |x| = 1e6). Infinities and NaN follow IEEE: `max(lo, x)` is written with the constant first, because TIR's max and
min (and `vmaxps`) return their second operand if either is NaN.

The coefficients of exp and log are those of the Cephes library (S. Moshier), the rational functions for tanh and erf
are Eigen's.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import tvm_ffi
from tvm import ir, tirx
from tvm.ir import Expr

from dscc.schedule import elementary
from dscc.schedule.operands import parts_of, with_parts
from dscc.schedule.turns import in_turns

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


def _dtype(x: Expr) -> str:
    return str(x.ty.dtype)


def _like(x: Expr, code: str) -> str:
    """The type of `x` with another element type: `int32x16` for `float32x16`."""
    _, _, lanes = _dtype(x).partition("x")
    return f"{code}x{lanes}" if lanes else code


def _const(value: float, x: Expr) -> Expr:
    """`value` in the type of `x`, in all lanes."""
    return tirx.const(value, _dtype(x))


class _Lets:
    """Straight-line code: `let(value)` names a value that is used more than once, `close(result)` makes one expression.

    The result is a chain `Let(a, .., Let(b, .., result))`. A Let in the value of another Let would be right too, but
    TVM's simplifier visits a value several times, and so takes time exponential in that depth.
    """

    def __init__(self) -> None:
        self._bound: list[tuple[tirx.Var, Expr]] = []

    def __call__(self, value: Expr) -> Expr:
        value = self._taken(value)
        if isinstance(value, tirx.Var | tirx.IntImm | tirx.FloatImm):
            return value
        var = tirx.Var("t", value.ty)
        self._bound.append((var, value))
        return var

    def _taken(self, expr: Expr) -> Expr:
        """`expr` with its Lets taken into this chain, but for those of a branch that may not be evaluated."""
        if isinstance(expr, tirx.Let):
            self._bound.append((expr.var, expr.value))
            return self._taken(expr.body)
        parts = () if isinstance(expr, ir.Call) else parts_of(expr)
        taken = [self._taken(part) for part in parts]
        same = all(new.same_as(old) for new, old in zip(taken, parts, strict=True))
        return expr if same else with_parts(expr, taken)

    def close(self, result: Expr) -> Expr:
        for var, value in reversed(self._bound):
            result = tirx.Let(var, value, result)
        return result


def _closed(steps: Callable[..., Expr]) -> Callable[..., Expr]:
    """The function of expressions that `steps(let, *args)` writes as straight-line code."""

    @functools.wraps(steps)
    def function(*args: Expr) -> Expr:
        let = _Lets()
        return let.close(steps(let, *(let(arg) for arg in args)))

    return function


def _plain(steps: Callable[..., Expr]) -> Callable[..., Expr]:
    """As `_closed`, for a function that uses its arguments once: a name is made only for one that is straight-line
    code itself. TVM 0.27 puts the value of a scalar in every place where it is used, and then complains about names
    that are bound twice.
    """
    closed = _closed(steps)

    @functools.wraps(steps)
    def function(*args: Expr) -> Expr:
        return closed(*args) if any(isinstance(arg, tirx.Let) for arg in args) else steps(None, *args)

    return function


def _horner(coefficients: Sequence[float], x: Expr) -> Expr:
    """The polynomial with these coefficients, highest power first."""
    total = _const(coefficients[0], x)
    for coefficient in coefficients[1:]:
        total = total * x + _const(coefficient, x)
    return total


def _clamp(x: Expr, low: float, high: float) -> Expr:
    """`x` between two bounds; NaN stays NaN."""
    return tirx.min(_const(high, x), tirx.max(_const(low, x), x))


def _exp_reduced(let: _Lets, r: Expr, n: Expr) -> Expr:
    """e**r * 2**n for |r| <= ln(2)/2 and a float n, -252 <= n <= 254.

    The power of two is multiplied in as two factors, so that neither over- nor underflows before the product does.
    """
    r = let(r)
    value = let(_horner(_EXP, r) * (r * r) + r + _const(1.0, r))
    integer = _like(r, "int32")
    i = let(n.astype(integer))
    half = let(i >> tirx.const(1, integer))

    def power_of_two(k: Expr) -> Expr:
        return tirx.reinterpret(_dtype(r), (k + tirx.const(127, integer)) << tirx.const(23, integer))

    return value * power_of_two(half) * power_of_two(i - half)


def _nearbyint(x: Expr) -> Expr:
    """`x` rounded to the nearest whole number, half to even.

    LLVM's intrinsic by its name: TVM 0.27 holds its own operator for one without vectors, and makes a loop over lanes
    of every statement that has it.
    """
    return tirx.call_llvm_pure_intrin(_dtype(x), "llvm.nearbyint", x)


def _exp(let: _Lets, x: Expr) -> Expr:
    c = let(_clamp(x, -104.0, 89.0))
    n = let(_nearbyint(let(c * _const(_LOG2_E, x))))
    return _exp_reduced(let, c - n * _const(_LN2_HIGH, x) - n * _const(_LN2_LOW, x), n)


def _exp_short(let: _Lets, x: Expr, *ln2: float) -> Expr:
    """e**x for -87 <= x <= 88.3, and for NaN: half the instructions of `_exp`. `ln2`: the parts of ln 2, of which one
    is enough near 0 and where multiply-adds do not round in between.

    The sum with 1.5 * 2**23 + 127 leaves the rounded exponent with its bias in the low bits of `shifted`, from where
    one shift brings it to its place. The polynomial is of degree 5; the relative error is below 2.5e-7 for |x| < 20 and
    4e-7 everywhere.
    """
    integer = _like(x, "int32")
    # an intrinsic that TVM knows nothing about: its simplifier would make x * log2(e) of the sum less _ROUND
    shifted = let(tirx.call_llvm_pure_intrin(_dtype(x), "llvm.fmuladd", x, _const(_LOG2_E, x), _const(_ROUND, x)))
    n = let(shifted - _const(_ROUND, x))
    r = x
    for part in ln2:
        r = r - n * _const(part, x)
    r = let(r)
    power = tirx.reinterpret(integer, shifted) << tirx.const(23, integer)
    return _horner(_EXP_SHORT, r) * tirx.reinterpret(_dtype(x), power)


def _exp_below_one(let: _Lets, x: Expr) -> Expr:
    """e**x for x <= 0 (right up to 88), as a softmax needs it; 0 where x < -87."""
    return tirx.Select(x < _const(-87.0, x), _const(0.0, x), _exp_short(let, x, _LN2))


def _exp2(let: _Lets, x: Expr) -> Expr:
    c = let(_clamp(x, -151.0, 129.0))
    n = let(_nearbyint(c))
    return _exp_reduced(let, (c - n) * _const(_LN2, x), n)


def _sigmoid(let: _Lets, x: Expr) -> Expr:
    grown = let(_exp_short(let, let(_clamp(_const(0.0, x) - x, -87.0, 88.3)), _LN2_HIGH, _LN2_LOW))
    return tirx.Select(x < _const(-88.3, x), _const(0.0, x), _const(1.0, x) / (_const(1.0, x) + grown))


def _tanh(let: _Lets, x: Expr) -> Expr:
    c = let(_clamp(x, -7.90531110763549805, 7.90531110763549805))
    s = let(c * c)
    return c * _horner(_TANH_ABOVE, s) / _horner(_TANH_BELOW, s)


def _hyperbolic(let: _Lets, x: Expr) -> tuple[Expr, Expr]:
    """e**|x| / 2 and e**-|x| / 2; by the root, so that the first is finite wherever cosh is."""
    root = let(_exp(let, let(_const(0.5, x) * tirx.max(x, _const(0.0, x) - x))))
    return let(root * (root * _const(0.5, x))), let(_const(0.5, x) / (root * root))


def _cosh(let: _Lets, x: Expr) -> Expr:
    grown, shrunk = _hyperbolic(let, x)
    return grown + shrunk


def _sinh(let: _Lets, x: Expr) -> Expr:
    grown, shrunk = _hyperbolic(let, x)
    s = let(x * x)
    far = let(grown - shrunk)
    near = x + x * s * _horner(_SINH, s)
    return tirx.Select(s < _const(1.0, x), near, tirx.Select(x < _const(0.0, x), _const(0.0, x) - far, far))


def _erf(let: _Lets, x: Expr) -> Expr:
    c = let(_clamp(x, -4.0, 4.0))
    s = let(c * c)
    return c * _horner(_ERF_ABOVE, s) / _horner(_ERF_BELOW, s)


def _opaque(x: Expr, other: str) -> Expr:
    """x, of which TVM knows nothing: as bits of type `other` and back, for which there are no instructions."""
    return tirx.reinterpret(_dtype(x), tirx.reinterpret(other, x))


def _split_exponent(let: _Lets, x: Expr) -> tuple[Expr, Expr]:
    """(m, e) with x = m * 2**e and sqrt(1/2) <= m < sqrt(2), for positive finite x, denormals too; both are float32."""
    integer = _like(x, "int32")
    denormal = x < _const(_SMALLEST_NORMAL, x)
    bits = let(tirx.reinterpret(integer, tirx.Select(denormal, x * _const(2.0**23, x), x)))
    # NarrowDataType of TVM 0.27 compares the bounds of a variable with and without its Let, where the result is cast to
    # integers ("conflicts with memorization").
    e = let(_opaque((bits - tirx.const(_SQRT_HALF_BITS, integer)) >> tirx.const(23, integer), _dtype(x)))
    mantissa = let(tirx.reinterpret(_dtype(x), bits - (e << tirx.const(23, integer))))
    return mantissa, let(e.astype(_dtype(x)) - tirx.Select(denormal, _const(23.0, x), _const(0.0, x)))


def _log(let: _Lets, x: Expr) -> Expr:
    mantissa, e = _split_exponent(let, x)
    f = let(mantissa - _const(1.0, x))
    s = let(f * f)
    fraction = s * f * _horner(_LOG, f) + e * _const(_LN2_LOW, f) - _const(0.5, f) * s
    regular = f + fraction + e * _const(_LN2_HIGH, f)
    zero, infinity, nan = _const(0.0, x), _const(math.inf, x), _const(math.nan, x)
    positive = tirx.Select(x < infinity, regular, x)
    return tirx.Select(x > zero, positive, tirx.Select(tirx.EQ(x, zero), _const(-math.inf, x), nan))


def _log1p(let: _Lets, x: Expr) -> Expr:
    u = let(x + _const(1.0, x))
    lost = (x - (u - _const(1.0, u))) / u  # what the rounding of 1 + x took away
    return _log(let, u) + tirx.Select(u < _const(1e30, u), lost, _const(0.0, u))


def _pow(let: _Lets, x: Expr, y: Expr) -> Expr:
    """x**y with the logarithm in float64, since its error is multiplied by y. A zero base counts as +0."""
    if isinstance(y, tirx.FloatImm) and float(y.value) in _CONSTANT_POWERS:
        return _CONSTANT_POWERS[float(y.value)](x)
    double = _like(x, "float64")
    zero, infinity, nan = _const(0.0, x), _const(math.inf, x), _const(math.nan, x)
    size = let(tirx.Select(x < zero, zero - x, x))
    mantissa, e = _split_exponent(let, size)
    wide = let(mantissa.astype(double))
    s = let((wide - tirx.const(1.0, double)) / (wide + tirx.const(1.0, double)))
    q = let(s * s)
    # An intrinsic that TVM knows nothing about: else its simplifier would put all of the above in every place of log2.
    log2 = let(tirx.call_llvm_intrin(double, "llvm.fma", s, _horner(_LOG2_ODD, q), e.astype(double)))
    t = let(_clamp(log2 * y.astype(double), -160.0, 160.0))
    n = let(_nearbyint(t))
    r = tirx.call_llvm_intrin(_dtype(x), "llvm.fma", (t - n).astype(_dtype(x)), _const(_LN2, x), _const(0.0, x))
    regular = _exp_reduced(let, r, n.astype(_dtype(x)))
    at_zero = tirx.Select(y > zero, zero, infinity)
    at_infinity = tirx.Select(y > zero, infinity, zero)
    power = let(tirx.Select(tirx.EQ(size, zero), at_zero, tirx.Select(tirx.EQ(size, infinity), at_infinity, regular)))
    half = let(y * _const(0.5, x))
    odd = tirx.NE(tirx.floor(half), half)
    whole = tirx.EQ(tirx.floor(y), y)
    fractional = tirx.Select(tirx.EQ(size, infinity), power, nan)
    below = tirx.Select(whole, tirx.Select(odd, zero - power, power), fractional)
    ordered = tirx.Select(x <= infinity, tirx.Select(y <= infinity, tirx.Select(x < zero, below, power), y), x)
    return tirx.Select(tirx.Or(tirx.EQ(y, zero), tirx.EQ(x, _const(1.0, x))), _const(1.0, x), ordered)


_CONSTANT_POWERS: dict[float, Callable[[Expr], Expr]] = {
    0.5: tirx.sqrt,
    -0.5: lambda x: _const(1.0, x) / tirx.sqrt(x),
    1.0: lambda x: x,
    -1.0: lambda x: _const(1.0, x) / x,
    2.0: lambda x: x * x,
    3.0: lambda x: x * x * x,
}


def _sine(let: _Lets, x: Expr, shift: float) -> Expr:
    """sin(x + shift * pi): the argument is reduced in float64, the series is of degree 13."""
    double = _like(x, "float64")
    wide = let(x.astype(double))
    n = let(_nearbyint(let(wide * tirx.const(1.0 / math.pi, double) + tirx.const(shift, double))))
    r = let((wide - (n - tirx.const(shift, double)) * tirx.const(math.pi, double)).astype(_dtype(x)))
    half = let(n * tirx.const(0.5, double))
    s = let(r * r)
    value = let(r + r * s * _horner(_SIN, s))
    return tirx.Select(tirx.NE(tirx.floor(half), half), _const(0.0, x) - value, value)


is_nan = _closed(lambda let, x: tirx.NE(x, x))
exp = _closed(_exp)
exp2 = _closed(_exp2)
exp_below_one = _closed(_exp_below_one)
exp10 = _closed(lambda let, x: _pow(let, _const(10.0, x), x))
sigmoid = _closed(_sigmoid)
tanh = _closed(_tanh)
erf = _closed(_erf)
sinh = _closed(_sinh)
cosh = _closed(_cosh)
log = _closed(_log)
log2 = _closed(lambda let, x: _log(let, x) * _const(_LOG2_E, x))
log10 = _closed(lambda let, x: _log(let, x) * _const(1.0 / math.log(10.0), x))
log1p = _closed(_log1p)
pow = _closed(_pow)
sin = _closed(lambda let, x: _sine(let, x, 0.0))
cos = _closed(lambda let, x: _sine(let, x, 0.5))

BELOW_ONE = "dscc.below_one"  # attribute of a call of exp whose argument is known not to be positive

_VECTOR: dict[str, Callable[..., Expr]] = {
    f"tirx.{name}": function
    for name, function in {
        "exp": exp,
        "exp2": exp2,
        "exp10": exp10,
        "sigmoid": sigmoid,
        "tanh": tanh,
        "erf": erf,
        "sinh": sinh,
        "cosh": cosh,
        "log": log,
        "log2": log2,
        "log10": log10,
        "log1p": log1p,
        "pow": pow,
        "sin": sin,
        "cos": cos,
    }.items()
}


# What is left to LLVM or written in the type that is asked for: for float64, and where there is no form above.
_OTHERS: dict[str, Callable[..., Expr]] = {
    f"tirx.{name}": (_plain if name in elementary.ONCE else _closed)(function)
    for name, function in elementary.FUNCTIONS.items()
}


def vector_call(call: ir.Call) -> Expr:
    """The arithmetic for one call of an elementary function; other calls are returned as they are."""
    name = call.op.name if isinstance(call.op, ir.Op) else ""
    if name == "tirx.isnan":  # TVM 0.27 would make a loop over lanes of a vectorized statement with it
        return is_nan(call.args[0])
    function = _VECTOR.get(name) or _OTHERS.get(name)
    if function is None:
        return call
    code = _dtype(call).partition("x")[0]
    if code == "float64":
        return _OTHERS[name](*call.args) if name in _OTHERS else call
    if code == "float32" and call.attrs is not None and call.attrs.get(BELOW_ONE, False):
        return exp_below_one(*call.args)
    if code == "float32":
        return function(*call.args)
    if code in ("float16", "bfloat16"):
        # The conversion is inside the chain of Lets: under a cast, TVM's simplifier binds their variables twice.
        let = _Lets()
        wide = let(function(*(arg.astype(_like(arg, "float32")) for arg in call.args)))
        return let.close(wide.astype(_dtype(call)))
    return call


def vector_math(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """`func` with elementary functions of float32 and float16 (computed in float32) replaced by arithmetic."""
    return tvm_ffi.structural_map(in_turns(func, _is_chain), (ir.Call, vector_call))


def _is_chain(call: ir.Call) -> bool:
    """Whether `vector_call` writes more than a step for a call."""
    name = call.op.name if isinstance(call.op, ir.Op) else ""
    return name in _VECTOR or (name in _OTHERS and name.removeprefix("tirx.") not in elementary.ONCE)
