"""Operators that move a window over an image: convolutions, pools and resizing. They read and write channels last.

In one dimension they become the operator for two, with a height of 1: that is where the fast kernels are; for three
see depth.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import relax

from dscc.passes.graph import Node
from dscc.passes.layout.depth import convolution3d, pool3d, transposed_convolution3d
from dscc.passes.layout.forms import Forms, channels_last, permuted
from dscc.passes.values import attr, const, constant, dims, with_attrs

Handler = Callable[[Node, Forms], bool]


def convolution(node: Node, forms: Forms) -> bool:
    call = node.value
    ndim = len(attr(call, "data_layout"))
    out_layout = attr(call, "out_layout") or attr(call, "data_layout")
    shape = dims(node.var)
    if attr(call, "data_layout")[:2] != "NC" or attr(call, "kernel_layout")[:2] != "OI" or out_layout[:2] != "NC":
        return False
    if shape is None or dims(call.args[0]) is None or dims(call.args[1]) is None:
        return False
    data = _flat_image(forms.get(call.args[0], channels_last(ndim), node), call.args[0], forms)
    weight = _flat_kernel(forms.get(call.args[1], channels_last(ndim), node), call.args[1], channels_last(ndim), 1)
    made = relax.op.nn.conv2d(
        data,
        weight,
        **_window(call, ("strides", "padding", "dilation")),
        groups=attr(call, "groups"),
        data_layout="NHWC",
        kernel_layout="OHWI",
        out_layout="NHWC",
        out_dtype=_dtype(call),
    )
    return _put(node, forms, made)


def transposed_convolution(node: Node, forms: Forms) -> bool:
    call = node.value
    ndim = len(attr(call, "data_layout"))
    out_layout = attr(call, "out_layout") or attr(call, "data_layout")
    if attr(call, "data_layout")[:2] != "NC" or attr(call, "kernel_layout")[:2] != "IO" or out_layout[:2] != "NC":
        return False
    if dims(node.var) is None or dims(call.args[0]) is None or dims(call.args[1]) is None:
        return False
    data = _flat_image(forms.get(call.args[0], channels_last(ndim), node), call.args[0], forms)
    own = tuple(range(ndim))
    made = relax.op.nn.conv2d_transpose(
        data,
        _flat_kernel(forms.get(call.args[1], own, node), call.args[1], own, 2),
        **_window(call, ("strides", "padding", "output_padding", "dilation")),
        groups=attr(call, "groups"),
        data_layout="NHWC",
        kernel_layout="IOHW",
        out_layout="NHWC",
        out_dtype=_dtype(call),
    )
    return _put(node, forms, made)


def pool(node: Node, forms: Forms) -> bool:
    call = node.value
    layout = attr(call, "layout")
    if layout[:2] != "NC" or (attr(call, "out_layout") or layout) != layout or dims(call.args[0]) is None:
        return False
    if dims(node.var) is None:
        return False
    data = _flat_image(forms.get(call.args[0], channels_last(len(layout)), node), call.args[0], forms)
    make = relax.op.nn.max_pool2d if "max" in node.op else relax.op.nn.avg_pool2d
    made = make(
        data,
        **_window(call, ("pool_size", "strides", "padding", "dilation")),
        ceil_mode=attr(call, "ceil_mode"),
        count_include_pad=attr(call, "count_include_pad"),
        layout="NHWC",
        out_layout="NHWC",
    )
    return _put(node, forms, made)


def relabelled(node: Node, forms: Forms) -> bool:
    """Operators for two dimensions whose attributes do not depend on the layout, but for its name."""
    call = node.value
    names = [name for name in ("layout", "out_layout") if hasattr(call.attrs, name)]
    if any(attr(call, name) not in ("NCHW", "") for name in names) or dims(call.args[0]) is None:
        return False
    data = forms.get(call.args[0], channels_last(4), node)
    attrs = with_attrs(call, dict.fromkeys(names, "NHWC"))
    return _put(node, forms, relax.Call(call.op, [data, *list(call.args)[1:]], attrs, call.ty_args))


def _window(call: relax.Call, names: tuple[str, ...]) -> dict[str, Any]:
    """Attributes per dimension; a height of 1 with stride 1 and no padding in front where there is only a width."""
    if len(attr(call, names[0])) == 2:
        return {name: list(attr(call, name)) for name in names}
    idle = {"padding": 0, "output_padding": 0}
    found: dict[str, Any] = {}
    for name in names:
        written = attr(call, name)
        if name == "padding":
            found[name] = [0, written[0], 0, written[-1]]
        else:
            found[name] = [idle.get(name, 1), *written]
    return found


def _flat_image(data: relax.Expr, original: relax.Expr, forms: Forms) -> relax.Expr:
    """(N, L, C) as (N, 1, L, C)."""
    shape = dims(original)
    if shape is None or len(shape) != 3:
        return data
    batch, channels, length = shape
    return forms.reshaped(data, [batch, 1, length, channels])


def _flat_kernel(weight: relax.Expr, original: relax.Expr, order: tuple[int, ...], height: int) -> relax.Expr:
    """A kernel of three dimensions with a height of 1 at position `height`."""
    shape = dims(original)
    if shape is None or len(shape) != 3:
        return weight
    lying = permuted(shape, order)
    flat = [*lying[:height], 1, *lying[height:]]
    fixed = constant(weight)
    return relax.op.reshape(weight, flat) if fixed is None else const(fixed.reshape(flat))


def _dtype(call: relax.Call) -> str | None:
    written = attr(call, "out_dtype")
    return str(written) if written is not None and str(written) not in ("", "void") else None


def _put(node: Node, forms: Forms, made: relax.Expr) -> bool:
    forms.put_flat(node, channels_last(len(dims(node.var) or ())), made)
    return True


def leads_to_window(node: Node, forms: Forms, depth: int = 8) -> bool:
    """Whether a value ends up in one of these operators, by way of operators that keep its dimensions."""
    for user in forms.graph.users(node.var):
        if user.op in WINDOWS:
            return True
        if depth and dims(user.var) is not None and len(dims(user.var) or ()) == len(dims(node.var) or ()):
            keeps = user.op not in ("relax.reshape", "relax.permute_dims", "relax.matmul")
            if keeps and leads_to_window(user, forms, depth - 1):
                return True
    return False


WINDOWS: dict[str, Handler] = {
    "relax.nn.conv1d": convolution,
    "relax.nn.conv2d": convolution,
    "relax.nn.conv3d": convolution3d,
    "relax.nn.conv1d_transpose": transposed_convolution,
    "relax.nn.conv2d_transpose": transposed_convolution,
    "relax.nn.conv3d_transpose": transposed_convolution3d,
    "relax.nn.max_pool1d": pool,
    "relax.nn.max_pool2d": pool,
    "relax.nn.max_pool3d": pool3d,
    "relax.nn.avg_pool1d": pool,
    "relax.nn.avg_pool2d": pool,
    "relax.nn.avg_pool3d": pool3d,
    "relax.nn.adaptive_avg_pool2d": relabelled,
    "relax.image.resize2d": relabelled,
}
