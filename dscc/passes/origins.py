"""Which nodes of the model a kernel came from, as far as it can be told.

The front end notes, in the function attribute `dscc.nodes`, the node behind every variable that it binds to a node's
output. Passes keep the names of the variables whose values they keep. Where operators are fused into one function, the
variable that is bound to its call stands for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import tvm
from tvm import relax, tirx

ATTRIBUTE = "dscc.nodes"
_CALL_TIR = tvm.ir.Op.get("relax.call_tir")


def noted(func: relax.Function) -> dict[str, str]:
    """Names of variables to nodes; several nodes are separated by newlines."""
    found = func.attrs.get(ATTRIBUTE) if func.attrs else None
    return {str(name): str(nodes) for name, nodes in found.items()} if found else {}


def note(func: relax.Function, nodes: Mapping[str, str]) -> relax.Function:
    """The function with `nodes` in place of what was noted."""
    return func.with_attr(ATTRIBUTE, dict(nodes)) if nodes else func


def of_groups(before: tvm.IRModule, after: tvm.IRModule) -> tvm.IRModule:
    """Note the nodes within each function that operators were grouped into at the variable bound to its call.

    Args:
        before, after: the module on both sides of FuseOps. TVM 0.27 calls the last variable of a group `gv`: which one
            it was is told by what its value reads.
    """
    out = tvm.IRModule(dict(after.functions.items()), attrs=after.attrs)
    for gvar, func in after.functions.items():
        if not isinstance(func, relax.Function) or not (given := noted(func)):
            continue
        nodes = dict(given)  # variables within groups are called like others in front of them
        readers = [(*_reads(binding), binding.var.name) for binding in _bindings(before[gvar.name_hint])]
        for binding in _bindings(func):
            callee = binding.value.op if isinstance(binding.value, relax.Call) else None
            group = after.functions.get(callee) if isinstance(callee, tvm.ir.GlobalVar) else None
            if not isinstance(group, relax.Function):
                continue
            *inner, last = _bindings(group)
            names = [each.var.name for each in inner]
            kernel, read = _reads(last)
            read &= set(names)
            names += [name for called, reads, name in readers if read and called == kernel and read <= reads][:1]
            if inside := [given[name] for name in names if name in given]:
                nodes[binding.var.name] = "\n".join(dict.fromkeys(inside))
        out[gvar] = note(func, nodes)
    return out


def _reads(binding: relax.Binding) -> tuple[str, set[str]]:
    """The kernel that a binding calls, and the names of the variables among its arguments."""
    value = binding.value
    if not (isinstance(value, relax.Call) and value.op == _CALL_TIR):
        return "", set()
    return value.args[0].name_hint, {arg.name for arg in value.args[1] if isinstance(arg, relax.Var)}


def of_calls(mod: tvm.IRModule, func: relax.Function) -> list[tuple[str, list[str]]]:
    """The kernels that a function calls, in order, each with the nodes it came from.

    A call without a node belongs to the next that has one: an operator that takes several kernels names its last.
    """
    nodes = noted(func)
    calls: list[tuple[str, list[str]]] = []
    waiting = 0
    for binding in _bindings(func):
        value = binding.value
        if not (isinstance(value, relax.Call) and value.op == _CALL_TIR):
            continue
        if not isinstance(mod.functions.get(value.args[0]), tirx.PrimFunc):
            continue
        here = nodes.get(binding.var.name, "").splitlines()
        calls.append((value.args[0].name_hint, here))
        if here:
            for at in range(len(calls) - 1 - waiting, len(calls) - 1):
                calls[at] = (calls[at][0], here)
        waiting = 0 if here else waiting + 1
    return calls


def _bindings(func: relax.Function) -> Iterator[relax.Binding]:
    if isinstance(func.body, relax.SeqExpr):
        for block in func.body.blocks:
            yield from block.bindings
