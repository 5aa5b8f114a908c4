"""Turn the constants of `main` into parameters behind its inputs, so that the weights stay outside the code.

def main(x): R.matmul(x, const)  ->  def main(x, weight_0): R.matmul(x, weight_0)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst
from tvm.relax.expr_functor import PyExprMutator, mutator


@dataclass
class Lifted:
    """A module without tensor constants in `main`, and the weights in the order of its last parameters."""

    mod: tvm.IRModule
    weights: dict[str, np.ndarray] = field(default_factory=dict)


def lift_constants(mod: tvm.IRModule) -> Lifted:
    """Lift every tensor constant of `main`; equal constants become one weight. Scalars are lifted as well."""
    lifting = _Lift(mod)
    main = mod["main"]
    body = lifting.visit_expr(main.body)
    params = [*main.params, *lifting.params]
    attrs = dict(main.attrs.items()) if main.attrs else {}
    func = relax.Function(params, body, main.ret_ty, main.is_pure).with_attrs({**attrs, "num_input": len(main.params)})
    out = tvm.IRModule(dict(mod.functions.items()), attrs=mod.attrs)
    out["main"] = func
    return Lifted(out, lifting.weights)


@mutator
class _Lift(PyExprMutator):
    def __init__(self, mod: tvm.IRModule):
        super().__init__(mod)
        self.params: list[relax.Var] = []
        self.weights: dict[str, np.ndarray] = {}
        self._seen: dict[tuple[str, tuple[int, ...], bytes], relax.Var] = {}

    def visit_generic_const_(self, constant: GenericConst) -> relax.Expr:
        value = constant.value.numpy()
        key = (str(constant.value.dtype), value.shape, _digest(value))
        if key not in self._seen:
            var = relax.Var(f"weight_{len(self.params)}", constant.ty)
            self.params.append(var)
            self.weights[var.name] = value
            self._seen[key] = var
        return self._seen[key]


def _digest(value: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(value).view(np.uint8).reshape(-1).data, digest_size=16).digest()
