"""Turn constants into parameters of `main` behind its inputs, so that the weights stay outside the code.

def main(x): R.matmul(x, const)  ->  def main(x, weight_0): R.matmul(x, weight_0)

Constants of regions (dscc/frontends/onnx/regions.py) come the same way, through the calls that name them:

def main(c, x): dscc.if(then, else, c, x)  ->  def main(c, x, weight_0): dscc.if(then, else, c, x, weight_0)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst
from tvm.relax.expr_functor import PyExprMutator, mutator

from dscc import scratch
from dscc.constants import contents

_Key = tuple[str, tuple[int, ...], bytes]


@dataclass
class Lifted:
    """A module without tensor constants in its Relax functions, and the weights in the order of `main`'s last
    parameters.
    """

    mod: tvm.IRModule
    weights: dict[str, np.ndarray] = field(default_factory=dict)


def lift_constants(mod: tvm.IRModule) -> Lifted:
    """Lift every tensor constant; equal constants become one weight. Scalars are lifted as well."""
    weights = _Weights(mod)
    out = tvm.IRModule(dict(mod.functions.items()), attrs=mod.attrs)
    for gvar, func in mod.functions_items():
        if isinstance(func, relax.Function):
            inputs = {"num_input": len(func.params)} if gvar.name_hint == "main" else {}
            out[gvar] = _lift(mod, gvar, func, weights).with_attrs({**_attributes(func), **inputs})
    names = {key: f"weight_{index}" for index, key in enumerate(weights.of("main"))}
    return Lifted(out, {name: weights.arrays[key] for key, name in names.items()})


def _lift(mod: tvm.IRModule, gvar: tvm.ir.GlobalVar, func: relax.Function, weights: _Weights) -> relax.Function:
    lifting = _Lift(mod, weights, weights.of(gvar.name_hint))
    body = lifting.visit_expr(func.body)
    return relax.Function([*func.params, *lifting.params.values()], body, func.ret_ty, func.is_pure)


def _attributes(func: relax.Function) -> dict[str, object]:
    return dict(func.attrs.items()) if func.attrs else {}


class _Weights:
    """Which constants each function needs: its own, and those of the regions that it names."""

    def __init__(self, mod: tvm.IRModule):
        self.arrays: dict[_Key, np.ndarray] = {}
        self._mod = mod
        self._keys: dict[GenericConst, _Key] = {}
        self._own: dict[str, list[_Key]] = {}
        self._named: dict[str, list[tuple[str, ...]]] = {}  # the regions that each function names, call by call
        self._found: dict[str, list[_Key]] = {}
        for gvar, func in mod.functions_items():
            if isinstance(func, relax.Function):
                self._look(gvar.name_hint, func)
        self._together = {name: names for calls in self._named.values() for names in calls for name in names}

    def key(self, constant: GenericConst) -> _Key:
        if constant not in self._keys:
            value = contents(constant.value)
            key = (str(constant.value.dtype), value.shape, _digest(value))
            scratch.done(value)
            self._keys[constant] = key
            self.arrays.setdefault(key, value)
        return self._keys[constant]

    def of(self, name: str) -> list[_Key]:
        """What a function takes behind its own parameters. Regions that one call names take the same."""
        names = self._together.get(name, (name,))
        if names[0] not in self._found:
            keys: dict[_Key, None] = {}
            for each in names:
                keys |= dict.fromkeys(self._own[each])
                for regions in self._named[each]:
                    keys |= dict.fromkeys(self.of(regions[0]))
            self._found[names[0]] = list(keys)
        return self._found[names[0]]

    def regions(self, call: relax.Call) -> tuple[str, ...]:
        """The names of the Relax functions that a call passes on."""
        gvars = [arg.name_hint for arg in call.args if isinstance(arg, tvm.ir.GlobalVar) and arg is not call.op]
        return tuple(name for name in gvars if isinstance(self._mod[name], relax.Function))

    def _look(self, name: str, func: relax.Function) -> None:
        own: dict[_Key, None] = {}
        named: list[tuple[str, ...]] = []

        def visit(expr: relax.Expr) -> None:
            if isinstance(expr, GenericConst):
                own.setdefault(self.key(expr))
            elif isinstance(expr, relax.Call) and (regions := self.regions(expr)):
                named.append(regions)

        relax.analysis.post_order_visit(func.body, visit)
        self._own[name], self._named[name] = list(own), named


@mutator
class _Lift(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, weights: _Weights, needed: Iterable[_Key]):
        super().__init__(mod)
        self._weights = weights
        self.params = {key: relax.Var(f"weight_{i}", _type(weights.arrays[key], key)) for i, key in enumerate(needed)}

    def visit_generic_const_(self, constant: GenericConst) -> relax.Expr:
        return self.params[self._weights.key(constant)]

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        regions = self._weights.regions(call)
        call = super().visit_call_(call)
        if not regions:
            return call
        added: Sequence[relax.Expr] = [self.params[key] for key in self._weights.of(regions[0])]
        return relax.Call(call.op, [*call.args, *added], call.attrs, call.ty_args, call.span)


def _type(value: np.ndarray, key: _Key) -> relax.TensorType:
    return relax.TensorType([tvm.tirx.IntImm("int64", size) for size in value.shape], key[0])


def _digest(value: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(value).view(np.uint8).reshape(-1).data, digest_size=16).digest()
