"""The activation functions that ONNX lets a recurrent operator choose from, as formulas over scalars."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.arithmetic import const


def _relu(x: Expr, alpha: float, beta: float) -> Expr:
    return tirx.max(const(0.0, x), x)  # the constant first: NaN stays NaN


def _affine(x: Expr, alpha: float, beta: float) -> Expr:
    return const(alpha, x) * x + const(beta, x)


def _leaky_relu(x: Expr, alpha: float, beta: float) -> Expr:
    return tirx.Select(x < const(0.0, x), const(alpha, x) * x, x)


def _thresholded_relu(x: Expr, alpha: float, beta: float) -> Expr:
    return tirx.Select(x > const(alpha, x), x, const(0.0, x))


def _scaled_tanh(x: Expr, alpha: float, beta: float) -> Expr:
    return const(alpha, x) * tirx.tanh(const(beta, x) * x)


def _hard_sigmoid(x: Expr, alpha: float, beta: float) -> Expr:
    return tirx.min(const(1.0, x), tirx.max(const(0.0, x), _affine(x, alpha, beta)))


def _elu(x: Expr, alpha: float, beta: float) -> Expr:
    return tirx.Select(x < const(0.0, x), const(alpha, x) * (tirx.exp(x) - const(1.0, x)), x)


def _softsign(x: Expr, alpha: float, beta: float) -> Expr:
    return x / (const(1.0, x) + tirx.max(x, const(0.0, x) - x))


def _softplus(x: Expr, alpha: float, beta: float) -> Expr:
    size = tirx.max(x, const(0.0, x) - x)
    return tirx.max(const(0.0, x), x) + tirx.log1p(tirx.exp(const(0.0, x) - size))


@dataclass(frozen=True)
class _Function:
    """A formula of (x, alpha, beta), and the defaults of those of the two that it has."""

    formula: Callable[[Expr, float, float], Expr]
    alpha: float | None = None
    beta: float | None = None


_FUNCTIONS = {
    "sigmoid": _Function(lambda x, alpha, beta: tirx.sigmoid(x)),
    "tanh": _Function(lambda x, alpha, beta: tirx.tanh(x)),
    "relu": _Function(_relu),
    "affine": _Function(_affine, 1.0, 0.0),
    "leakyrelu": _Function(_leaky_relu, 0.01),
    "thresholdedrelu": _Function(_thresholded_relu, 1.0),
    "scaledtanh": _Function(_scaled_tanh, 1.0, 1.0),
    "hardsigmoid": _Function(_hard_sigmoid, 0.2, 0.5),
    "elu": _Function(_elu, 1.0),
    "softsign": _Function(_softsign),
    "softplus": _Function(_softplus),
}
NAMES = tuple(_FUNCTIONS)


@dataclass(frozen=True)
class Activation:
    """A function by its name in lower case, and its constants."""

    name: str
    alpha: float = 0.0
    beta: float = 0.0

    def __call__(self, x: Expr) -> Expr:
        return _FUNCTIONS[self.name].formula(x, self.alpha, self.beta)


def choose(names: list[str], alphas: list[float], betas: list[float]) -> list[Activation]:
    """The activations called `names` (of NAMES); each takes the next alpha and beta if it has one, in order, as long as
    there are any.
    """
    left = {"alpha": list(alphas), "beta": list(betas)}
    chosen = []
    for name in names:
        defaults = {key: getattr(_FUNCTIONS[name], key) for key in left}
        values = {key: left[key].pop(0) if left[key] else value for key, value in defaults.items() if value is not None}
        chosen.append(Activation(name, **values))
    return chosen
