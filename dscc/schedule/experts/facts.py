"""What an artifact says of its mixtures of experts: for `dscc run --stats moe`, and what a token uses of them."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax, tirx

from dscc.passes.lower.lift_constants import Lifted
from dscc.schedule.experts.mixture import ATTRIBUTE, Mixture


def mixture_of(func: object) -> Mixture | None:
    """What a kernel computes, if it is a mixture of experts."""
    if not isinstance(func, tirx.PrimFunc) or not func.attrs or ATTRIBUTE not in func.attrs:
        return None
    return Mixture.of(str(func.attrs[ATTRIBUTE]))


def routing(mixture: Mixture) -> dict[str, Any]:
    """What is needed to count tokens: `ids` is the position of the kernel's argument, the rest as in Mixture."""
    return {
        "ids": mixture.operands.index("ids"),
        "experts": mixture.experts,
        "begin": mixture.begin,
        "after": mixture.after,
        "capacity": mixture.capacity,
    }


def parameters(lifted: Lifted) -> dict[str, int]:
    """How many there are in `total`, and of those how many a token uses, `per_token`; empty without a mixture.

    An expert's are counted as the model has them, whatever the padding; everything else counts as it is stored. Weights
    that several layers share count once in total, and for every layer that uses them for a token.
    """
    main = lifted.mod["main"]
    names = dict(zip(main.params[int(main.attrs["num_input"]) :], lifted.weights, strict=True))
    seen: set[tuple[str, ...]] = set()
    theirs: set[str] = set()
    total = per_token = 0
    for mixture, args in _calls(lifted.mod, main):
        weights = tuple(names[arg] for arg in args if isinstance(arg, relax.Var) and arg in names)
        theirs.update(weights)
        if weights not in seen:
            seen.add(weights)
            total += mixture.experts * mixture.weights
        per_token += min(mixture.top, mixture.experts) * mixture.weights
    if not seen:
        return {}
    rest = sum(weight.size for name, weight in lifted.weights.items() if name not in theirs)
    return {"total": total + rest, "per_token": per_token + rest}


def _calls(mod: tvm.IRModule, main: relax.Function) -> list[tuple[Mixture, list[relax.Expr]]]:
    found = []
    for block in main.body.blocks:
        for binding in block.bindings:
            value = binding.value
            if isinstance(value, relax.Call) and value.op == tvm.ir.Op.get("relax.call_tir"):
                mixture = mixture_of(mod.functions.get(value.args[0]))
                if mixture is not None:
                    found.append((mixture, list(value.args[1])))
    return found
