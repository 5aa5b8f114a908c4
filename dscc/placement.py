"""Where the values of a module are that is compiled for a device: on the device or on the host, with copies between.

    lv = R.call_tir(cls.kernel, (x,))            lv = R.call_tir(cls.kernel, (x,))
    n = dscc.top_k(lv)                     ->    lv_host = vm.builtin.to_device(lv, cpu)
    y = R.call_tir(cls.kernel2, (n,))            n = dscc.top_k(lv_host)
                                                 n_device = vm.builtin.to_device(n, device)
                                                 y = R.call_tir(cls.kernel2, (n_device,))

Kernels of the device's rules take and give what is on the device; kernels of the host's rules, functions of
dscc/library and whatever needs a number (a condition, a shape that data decides) what is on the host. What branches and
loops only pass on (weights, what a loop carries) stays on the device. Shapes are always the host's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import tvm
from tvm import relax, tirx
from tvm.ir import GlobalVar

from dscc import library, named_sizes
from dscc.schedule.plan import ON_DEVICE
from dscc.targets.device import DeviceTarget

DEVICE, HOST = 0, 1
"""Places: positions in the list of devices that the virtual machine is given."""
_CPU = 1  # DLPack's number

Place: TypeAlias = "int | tuple[Place, ...] | None"  # None: neither, as a shape; a tuple for a tuple

_CALL_TIR = tvm.ir.Op.get("relax.call_tir")
_CALL_PURE_PACKED = tvm.ir.Op.get("relax.call_pure_packed")
_RESHAPE = tvm.ir.Op.get("relax.reshape")


def place(mod: tvm.IRModule, target: DeviceTarget) -> tvm.IRModule:
    """The module with copies between device and host, its Relax functions without dataflow blocks."""
    mod = relax.transform.ToNonDataflow()(mod)
    mod.update_global_info(
        "vdevice", [relax.VDevice(t, 0, "global") for t in (target.tvm_target, target.host.tvm_target)]
    )
    regions = {**_conventions(mod), "main": _Region(parameters(mod), None)}
    out = mod.clone()
    for gvar, func in mod.functions_items():
        if isinstance(func, relax.Function):
            out[gvar] = _Mover(mod, target, regions[gvar.name_hint]).function(func)
    return out


def parameters(mod: tvm.IRModule) -> tuple[Place, ...]:
    """Where each parameter of `main` has to be when it is called: on the host if only the host reads it."""
    main = mod["main"]
    wanted: dict[relax.Var, set[Place]] = {}

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, relax.Call):
            for arg, at in _uses(mod, expr):
                if isinstance(arg, relax.Var):
                    wanted.setdefault(arg, set()).add(at)

    relax.analysis.post_order_visit(main.body, visit)
    return tuple(_known(param.ty, HOST if wanted.get(param) == {HOST} else DEVICE) for param in main.params)


def stays(mod: tvm.IRModule) -> bool:
    """Whether a run is nothing but kernels of the device and shapes, so that it is the same for the same shapes."""
    main = mod["main"]
    found: list[bool] = []

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, relax.If):
            found.append(False)
        elif isinstance(expr, relax.Call) and expr.op == _CALL_TIR:
            found.append(_on_device(mod, expr.args[0]))
        elif isinstance(expr, relax.Call) and expr.op != _RESHAPE:
            tensors = any(isinstance(each.ty, relax.TensorType) for each in (expr, *expr.args))
            found.append(not tensors and (expr.op != _CALL_PURE_PACKED or named_sizes.is_value(expr)))

    relax.analysis.post_order_visit(main.body, visit)
    return all(found) and set(parameters(mod)) <= {DEVICE}


@dataclass(frozen=True)
class _Region:
    """Where the parameters and the results of a function are; None: wherever they happen to be."""

    params: tuple[Place, ...]
    results: tuple[Place, ...] | None


def _known(ty: relax.Type, at: Place) -> Place:
    """`at` for a tensor; tuples and sequences of tensors are the host's."""
    if isinstance(ty, relax.TensorType):
        return at
    if isinstance(ty, relax.TupleType):
        return tuple(_known(field, at) for field in ty.fields)
    return None


def _calls(mod: tvm.IRModule) -> Iterator[relax.Call]:
    found: list[relax.Call] = []
    for func in mod.functions.values():
        if isinstance(func, relax.Function):
            relax.analysis.post_order_visit(func, lambda e: found.append(e) if isinstance(e, relax.Call) else None)
    yield from found


def _conventions(mod: tvm.IRModule) -> dict[str, _Region]:
    """For every function that branches and loops call, where its parameters and results are."""
    found: dict[str, _Region] = {}
    for call in _calls(mod):
        name = _library_function(call)
        if name == "if":
            for branch in call.args[1:3]:
                params = [_known(param.ty, DEVICE) for param in mod[branch].params]
                found[branch.name_hint] = _Region(tuple(params), tuple(_known(ty, DEVICE) for ty in call.ty.fields))
        elif name == "loop":
            body = call.args[1]
            loop = _Loop.of(call)
            own = [param.ty for param in mod[body].params]
            params = [_known(ty, HOST if i < loop.before else DEVICE) for i, ty in enumerate(own)]
            found[body.name_hint] = _Region(tuple(params), (*[HOST] * loop.goes_on, *loop.results(call.ty)))
    return found


@dataclass(frozen=True)
class _Loop:
    """The layout of a call of `dscc.loop`, see dscc/library/control.c: `before` parameters of the body come before what
    is carried, and `first` arguments of the call.
    """

    before: int
    first: int
    carried: int
    goes_on: bool

    @staticmethod
    def of(call: relax.Call) -> _Loop:
        flags, _, scanned, carried = (_integer(value) for value in list(call.args[2].values)[:4])
        arguments = [bool(flags & bit) for bit in (1, 4, 8)]  # trips, condition, sizes
        before = bool(flags & 8) + bool(flags & 16) + scanned  # sizes, index, slices
        return _Loop(before, 3 + sum(arguments) + scanned, carried, bool(flags & 32))

    def results(self, ty: relax.TupleType) -> tuple[Place, ...]:
        return tuple(_known(field, DEVICE if i < self.carried else HOST) for i, field in enumerate(ty.fields))


def _integer(value: Any) -> int:
    return int(value) if isinstance(value, tirx.IntImm) else 0  # the number of iterations may be a symbol


def _library_function(call: relax.Call) -> str | None:
    """The name of the function of dscc/library that is called, if one is."""
    if call.op != _CALL_PURE_PACKED or not isinstance(call.args[0], relax.ExternFunc):
        return None
    name = str(call.args[0].global_symbol)
    return name.removeprefix(library.PREFIX) if name.startswith(library.PREFIX) else None


def on_device(func: tirx.PrimFunc) -> bool:
    """Whether it is a kernel that runs on the device."""
    return bool(func.attrs and func.attrs.get(ON_DEVICE, False))


def _on_device(mod: tvm.IRModule, gvar: GlobalVar) -> bool:
    return on_device(mod[gvar])


def _uses(mod: tvm.IRModule, call: relax.Call) -> list[tuple[relax.Expr, Place]]:
    """The tensors that a call takes, and where it wants them."""
    if call.op == _CALL_TIR:
        at: Place = DEVICE if _on_device(mod, call.args[0]) else HOST
        return [(arg, at) for arg in call.args[1]]
    if call.op == _RESHAPE:
        return []  # a view, wherever the tensor is
    name = _library_function(call)
    if name == "if":
        return [(call.args[3], HOST), *((arg, DEVICE) for arg in call.args[4:])]
    if name == "loop":
        first = _Loop.of(call).first
        return [(arg, DEVICE if i >= first else HOST) for i, arg in enumerate(call.args) if i > 2]
    return [(arg, HOST) for arg in call.args]


class _Mover:
    """Rewrites one function, whose variables stay the same."""

    def __init__(self, mod: tvm.IRModule, target: DeviceTarget, entry: _Region):
        self._mod, self._entry = mod, entry
        self._types = (target.device_type, _CPU)
        self._on_host = mod.global_infos["vdevice"][HOST]
        self._builder = relax.BlockBuilder(mod)
        self._bindings: list[relax.Binding] = []
        self._places: dict[relax.Var, Place] = {}
        self._copies: dict[tuple[relax.Var, int], relax.Var] = {}

    def function(self, func: relax.Function) -> relax.Function:
        self._places.update(zip(func.params, self._entry.params, strict=True))
        for block in func.body.blocks:
            for binding in block.bindings:
                self._bind(binding)
        result = func.body.body
        if self._entry.results is not None:
            fields = [self._item(result, i, at) for i, at in enumerate(self._entry.results)]
            result = self._emit(result.name, relax.Tuple(fields), result.ty)
        body = relax.SeqExpr([relax.BindingBlock(self._bindings)], result)
        attrs = dict(func.attrs.items()) if func.attrs else {}
        return relax.Function(func.params, body, func.ret_ty, func.is_pure).with_attrs(attrs)

    def _bind(self, binding: relax.Binding) -> None:
        if isinstance(binding, relax.MatchCast):
            self._bindings.append(binding)
            self._places[binding.var] = self._place_of(binding.value)
            return
        value = self._call(binding.value) if isinstance(binding.value, relax.Call) else binding.value
        self._bindings.append(relax.VarBinding(binding.var, value))
        self._places[binding.var] = self._place_of(value)

    def _call(self, call: relax.Call) -> relax.Call:
        moved = [(arg, self._at(arg, at)) for arg, at in _uses(self._mod, call)]

        def replaced(args: Sequence[relax.Expr]) -> list[relax.Expr]:
            return [next((new for old, new in moved if old.same_as(arg)), arg) for arg in args]

        if call.op != _CALL_TIR:
            return self._builder.normalize(
                relax.Call(call.op, replaced(call.args), call.attrs, call.ty_args, call.span)
            )
        types = call.ty_args
        if not _on_device(self._mod, call.args[0]):
            types = [self._host_type(ty) for ty in types]
        args = [call.args[0], relax.Tuple(replaced(call.args[1].fields)), *call.args[2:]]
        return self._builder.normalize(relax.Call(call.op, args, call.attrs, types, call.span))

    def _host_type(self, ty: relax.Type) -> relax.Type:
        """The type of a result that the host's memory is allocated for."""
        if isinstance(ty, relax.TupleType):
            return relax.TupleType([self._host_type(field) for field in ty.fields])
        return relax.TensorType(ty.shape, str(ty.dtype), self._on_host)

    def _at(self, expr: relax.Expr, at: Place) -> relax.Expr:
        """`expr` at this place: itself, or a copy."""
        if not isinstance(expr, relax.Var) or not isinstance(expr.ty, relax.TensorType) or not isinstance(at, int):
            return expr
        if self._places[expr] == at:
            return expr
        if (expr, at) not in self._copies:
            target = [tirx.IntImm("int64", self._types[at]), tirx.IntImm("int64", 0)]
            copy = relax.op.call_pure_packed("vm.builtin.to_device", expr, *target, ty_args=[expr.ty])
            self._copies[expr, at] = self._emit(f"{expr.name}_{'host' if at else 'device'}", copy, expr.ty)
            self._places[self._copies[expr, at]] = at
        return self._copies[expr, at]

    def _item(self, result: relax.Expr, i: int, at: Place) -> relax.Expr:
        """Field `i` of a tuple, at this place."""
        places = self._places[result]
        field = self._emit(f"{result.name}_{i}", relax.TupleGetItem(result, i), result.ty.fields[i])
        self._places[field] = places[i] if isinstance(places, tuple) else None
        return self._at(field, at)

    def _emit(self, name: str, value: relax.Expr, ty: relax.Type) -> relax.Var:
        var = relax.Var(name, ty)
        self._bindings.append(relax.VarBinding(var, self._builder.normalize(value)))
        return var

    def _place_of(self, value: relax.Expr) -> Place:
        """Where a value is that has been rewritten."""
        if isinstance(value, relax.Var):
            return self._places[value]
        if isinstance(value, relax.Tuple):
            return tuple(self._place_of(field) for field in value.fields)
        if isinstance(value, relax.TupleGetItem):
            places = self._places[value.tuple_value]
            return places[value.index] if isinstance(places, tuple) else _known(value.ty, HOST)
        if not isinstance(value, relax.Call):
            return None
        if value.op == _CALL_TIR:
            return _known(value.ty, DEVICE if _on_device(self._mod, value.args[0]) else HOST)
        if value.op == _RESHAPE:
            return self._place_of(value.args[0])
        name = _library_function(value)
        if name == "if":
            return _known(value.ty, DEVICE)
        if name == "loop":
            return _Loop.of(value).results(value.ty)
        return _known(value.ty, HOST)
