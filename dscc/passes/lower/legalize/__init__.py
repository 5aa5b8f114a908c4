"""Our own definitions of Relax operators in TIR, where the rules need another form than TVM's default.

A legalization is a plain definition without a schedule, `(bb, call) -> relax.Expr`; it returns `call` itself to take
TVM's default. The modules of this package register theirs when they are imported; `table()` imports them all.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

from tvm import relax

Legalization = Callable[[relax.BlockBuilder, relax.Call], relax.Expr]

_TABLE: dict[str, Legalization] = {}


def legalize(op_name: str) -> Callable[[Legalization], Legalization]:
    """Register a legalization for the Relax operator `op_name`, as in `@legalize("relax.nn.conv2d")`."""

    def register(function: Legalization) -> Legalization:
        if op_name in _TABLE:
            first = _TABLE[op_name].__module__
            raise ValueError(f"'{op_name}' has two legalizations: {first} and {function.__module__}")
        _TABLE[op_name] = function
        return function

    return register


def table() -> dict[str, Legalization]:
    """Every registered legalization, by operator name."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(_TABLE)
