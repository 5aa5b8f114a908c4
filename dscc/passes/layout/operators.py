"""What each operator does with values that are at hand in another order: one function per family.

A handler gets the node and the forms, puts the forms of the result, and returns True; or returns False, and then the
operator is left as it is and reads its operands in their own order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax, tirx

from dscc.passes.graph import Node
from dscc.passes.layout.forms import Forms, Order, channels_last, identity, permuted
from dscc.passes.layout.regroup import lying_for, regroup
from dscc.passes.layout.windows import WINDOWS, leads_to_window
from dscc.passes.values import attr, const, constant, dims, rank, same_dims, with_attrs

Handler = Callable[[Node, Forms], bool]

ELEMENTWISE = frozenset(
    f"relax.{name}"
    for name in (
        "add subtract multiply divide power maximum minimum floor_divide mod floor_mod equal not_equal less "
        "less_equal greater greater_equal logical_and logical_or logical_xor logical_not bitwise_and "
        "bitwise_or bitwise_xor bitwise_not where negative abs exp log sqrt rsqrt square sin cos tan sinh "
        "cosh tanh asin acos atan asinh acosh atanh erf sigmoid floor ceil round trunc sign isnan isinf "
        "isfinite clip astype nn.relu nn.relu6 nn.leakyrelu nn.gelu nn.gelu_tanh nn.silu nn.selu nn.softplus"
    ).split()
)
REDUCTIONS = ("relax.sum", "relax.mean", "relax.max", "relax.min", "relax.prod", "relax.variance", "relax.std")


def cheapest(values: list[relax.Expr], forms: Forms) -> Order | None:
    """The order in which to have all of `values` at the least cost, or None if that is their own."""
    orders = [order for value in values for order in forms.at_hand(value) if not isinstance(value, tvm.ir.GenericConst)]
    ndim = rank(values[0]) if values else None
    if ndim is None or not orders or any(dims(value) is None for value in values):
        return None
    preferred = [channels_last(ndim), identity(ndim)]  # where the cost is the same
    orders.sort(key=lambda order: preferred.index(order) if order in preferred else len(preferred))
    best = min(orders, key=lambda order: sum(forms.cost(value, order) for value in values))
    return None if best == identity(ndim) else best


def elementwise(node: Node, forms: Forms) -> bool:
    ndim = rank(node.var)
    tensors = [arg for arg in node.value.args if isinstance(arg.ty, relax.TensorType)]
    order = cheapest([arg for arg in tensors if rank(arg) == ndim], forms)
    if ndim is None or order is None or any(dims(arg) is None for arg in tensors):
        return False
    args = [
        _broadcast(arg, order, node, forms) if isinstance(arg.ty, relax.TensorType) else arg for arg in node.value.args
    ]
    flat = _flat_operands(args, forms)
    made = relax.Call(node.value.op, args if flat is None else flat, node.value.attrs, node.value.ty_args)
    if flat is not None:
        forms.put_flat(node, order, made)
        return True
    return _emit(node, forms, order, made)


def _flat_operands(args: list[relax.Expr], forms: Forms) -> list[relax.Expr] | None:
    """The operands in the shape of the operators over two dimensions that made them: what follows them is fused."""
    flat = [forms.flat(arg) for arg in args]
    shape = next((dims(each) for each in flat if each is not None), None)
    if shape is None:
        return None
    for i, arg in enumerate(args):
        found, fixed = flat[i], constant(arg)
        if found is None and fixed is not None and (fixed.size == 1 or fixed.size == fixed.shape[-1] == shape[-1]):
            flat[i] = const(fixed.reshape(-1))  # one number, or one for every channel
        elif found is None and not isinstance(arg.ty, relax.TensorType):
            flat[i] = arg
        elif not same_dims(None if found is None else dims(found), shape):
            return None
    return [each for each in flat if each is not None]


def _broadcast(value: relax.Expr, order: Order, node: Node, forms: Forms) -> relax.Expr:
    """An operand that may have fewer dimensions than the result, in the result's order."""
    shape = dims(value)
    if not shape or len(shape) == len(order):
        return forms.get(value, order, node) if shape else value
    wide = (*(1 for _ in range(len(order) - len(shape))), *shape)
    fixed = constant(forms.graph.value(value))
    if fixed is not None:
        return const(fixed.reshape(wide).transpose(order))
    widened = forms.graph.emit(node, relax.op.reshape(forms.get(value, identity(len(shape)), node), list(wide)))
    return forms.get(widened, order, node)


def permute(node: Node, forms: Forms) -> bool:
    data, axes = node.value.args[0], attr(node.value, "axes")
    ndim = rank(data)
    if ndim is None:
        return False
    axes = tuple(reversed(range(ndim))) if axes is None else tuple(axis % ndim for axis in axes)
    for order, expr in list(forms.at_hand(data).items()):
        forms.put(node.var, tuple(axes.index(axis) for axis in order), expr)
    return True


def reshape(node: Node, forms: Forms) -> bool:
    """Every form of the data gives one of the result, if the dimensions that are joined lie side by side."""
    data = node.value.args[0]
    before, after = forms.known(data), forms.known(node.var)
    if before is None or after is None or list(forms.at_hand(data)) == [identity(len(before))]:
        return False
    usable = {order: found for order in forms.at_hand(data) if (found := regroup(before, after, order)) is not None}
    if not usable and len(after) > 2 and leads_to_window(node, forms):
        wanted = lying_for(before, after, channels_last(len(after)))
        usable = {} if wanted is None else {wanted: channels_last(len(after))}
    for order, found in usable.items():
        lying = forms.reshaped(forms.get(data, order, node), permuted(dims(node.var) or (), found))
        forms.put(node.var, found, forms.graph.emit(node, lying, node.var.name))
    return bool(usable)


def reduce(node: Node, forms: Forms) -> bool:
    data = node.value.args[0]
    order = cheapest([data], forms)
    if order is None:
        return False
    ndim, written = len(order), attr(node.value, "axis")
    axes = range(ndim) if written is None else [axis % ndim for axis in written]
    kept = order if attr(node.value, "keepdims") else tuple(axis for axis in order if axis not in axes)
    lying = sorted(order.index(axis) for axis in axes)
    call = _call(node, [forms.get(data, order, node)], {"axis": lying})
    return _emit(node, forms, tuple(sorted(kept).index(axis) for axis in kept), call)


def along_axis(node: Node, forms: Forms) -> bool:
    """Operators with one `axis` and a result of the same shape."""
    data = node.value.args[0]
    order = cheapest([data], forms)
    if order is None:
        return False
    axis = order.index(attr(node.value, "axis") % len(order))
    args = [forms.get(data, order, node), *list(node.value.args)[1:]]
    return _emit(node, forms, order, _call(node, args, {"axis": axis}))


def concat(node: Node, forms: Forms) -> bool:
    parts = forms.graph.value(node.value.args[0])
    if not isinstance(parts, relax.Tuple):
        return False
    order = cheapest(list(parts.fields), forms)
    if order is None:
        return False
    fields = [forms.get(field, order, node) for field in parts.fields]
    axis = order.index((attr(node.value, "axis") or 0) % len(order))
    return _emit(node, forms, order, relax.op.concat(fields, axis=axis))


def split(node: Node, forms: Forms) -> bool:
    data = node.value.args[0]
    order = cheapest([data], forms)
    if order is None:
        return False
    axis = order.index(attr(node.value, "axis") % len(order))
    made = forms.graph.emit(node, _call(node, [forms.get(data, order, node)], {"axis": axis}), node.var.name)
    forms.put_fields(node.var, order, made)
    return True


def getitem(node: Node, forms: Forms) -> bool:
    fields = forms.field(node.value.tuple_value, node.value.index)
    for order, expr in (fields or {}).items():
        forms.put(node.var, order, forms.graph.emit(node, expr, node.var.name))
    return fields is not None


def pad(node: Node, forms: Forms) -> bool:
    data, widths = node.value.args[0], attr(node.value, "pad_width")
    order = cheapest([data], forms)
    if order is None:
        return False
    moved = [widths[2 * axis + side] for axis in order for side in (0, 1)]
    return _emit(node, forms, order, _call(node, [forms.get(data, order, node)], {"pad_width": moved}))


def strided_slice(node: Node, forms: Forms) -> bool:
    data, axes, *bounds = node.value.args
    order = cheapest([data], forms)
    if order is None or not all(isinstance(axis, tirx.IntImm) for axis in axes.fields):
        return False
    moved = [tirx.IntImm("int64", order.index(int(axis) % len(order))) for axis in axes.fields]
    args = [forms.get(data, order, node), relax.Tuple(moved), *bounds]
    return _emit(node, forms, order, relax.Call(node.value.op, args, node.value.attrs))


def broadcast_to(node: Node, forms: Forms) -> bool:
    data, shape = node.value.args[0], dims(node.var)
    order = cheapest([data], forms)
    if order is None or shape is None or len(shape) != len(order):
        return False
    return _emit(node, forms, order, relax.op.broadcast_to(forms.get(data, order, node), list(permuted(shape, order))))


def normalize_channels(node: Node, forms: Forms) -> bool:
    """Group and instance normalisation: `channel_axis` and `axes` move, the parameters are vectors."""
    data = node.value.args[0]
    order = cheapest([data], forms)
    if order is None:
        return False
    ndim = len(order)
    changed: dict[str, Any] = {
        "channel_axis": order.index(attr(node.value, "channel_axis") % ndim),
        "axes": sorted(order.index(axis % ndim) for axis in attr(node.value, "axes")),
    }
    args = [forms.get(data, order, node), *list(node.value.args)[1:]]
    return _emit(node, forms, order, _call(node, args, changed))


def normalize_rows(node: Node, forms: Forms) -> bool:
    """Layer and RMS normalisation over the axes that come last in the order at hand."""
    data = node.value.args[0]
    order = cheapest([data], forms)
    if order is None:
        return False
    axes = [axis % len(order) for axis in attr(node.value, "axes")]
    if tuple(axes) != order[len(order) - len(axes) :]:
        return False
    last = list(range(len(order) - len(axes), len(order)))
    args = [forms.get(data, order, node), *list(node.value.args)[1:]]
    return _emit(node, forms, order, _call(node, args, {"axes": last}))


def match_cast(node: Node, forms: Forms) -> bool:
    """A check of the shape is made on the form that is at hand."""
    if not forms.is_moved(node.value) or not isinstance(node.cast, relax.TensorType) or dims(node.var) is None:
        return False
    for order, expr in list(forms.at_hand(node.value).items()):
        ty = relax.TensorType(list(permuted(dims(node.var) or (), order)), str(node.cast.dtype))
        forms.put(node.var, order, forms.graph.emit_cast(node, expr, ty, node.var.name))
    return True


def alias(node: Node, forms: Forms) -> bool:
    for order, expr in list(forms.at_hand(node.value).items()) if forms.is_moved(node.value) else ():
        forms.put(node.var, order, expr)
    return forms.is_moved(node.var)


def _call(node: Node, args: list[relax.Expr], changed: dict[str, Any]) -> relax.Call:
    return relax.Call(node.value.op, args, with_attrs(node.value, changed), node.value.ty_args)


def _emit(node: Node, forms: Forms, order: Order, call: relax.Expr) -> bool:
    forms.put(node.var, order, forms.graph.emit(node, call, node.var.name))
    return True


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(ELEMENTWISE, elementwise),
    **dict.fromkeys(REDUCTIONS, reduce),
    **dict.fromkeys(("relax.nn.softmax", "relax.nn.log_softmax", "relax.nn.prelu"), along_axis),
    **dict.fromkeys(("relax.quantize", "relax.dequantize", "relax.cumsum"), along_axis),
    **dict.fromkeys(("relax.nn.group_norm", "relax.nn.instance_norm"), normalize_channels),
    **dict.fromkeys(("relax.nn.layer_norm", "relax.nn.rms_norm"), normalize_rows),
    **WINDOWS,
    "relax.permute_dims": permute,
    "relax.reshape": reshape,
    "relax.concat": concat,
    "relax.split": split,
    "getitem": getitem,
    "relax.nn.pad": pad,
    "relax.strided_slice": strided_slice,
    "relax.broadcast_to": broadcast_to,
    "var": alias,
}
