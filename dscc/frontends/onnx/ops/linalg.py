"""Linear algebra beyond products."""

from __future__ import annotations

import math

import numpy as np
from tvm import relax
from tvm.relax import Expr
from tvm.relax import op as R

from dscc import library
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.ops.detection import as_type, working_type
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import reshaped, shape_expr
from dscc.frontends.onnx.values import Value, scalar, static


@converter("Det")
def det(node: Node, x: Value) -> Expr:
    """Of the matrices in the last two dimensions."""
    *batch, rows, columns = x.shape
    node.require_equal(rows, columns, "the number of rows")
    working, count = working_type(x.dtype), node.dims.product(batch)
    flat = node.emit(reshaped(as_type(node, x.expr, working), [count, rows, columns]))
    found = node.emit(library.call("determinant", [flat], relax.TensorType(shape_expr([count]), working)))
    return as_type(node, node.emit(reshaped(found, batch)), x.dtype)


@converter("LinearAttention", since=27)
def linear_attention(
    node: Node,
    query: Value,
    key: Value,
    value: Value,
    past: Value | None = None,
    decay: Value | None = None,
    beta: Value | None = None,
) -> tuple[Expr, Expr]:
    """A state (batch, heads, dk, dv) is decayed, written and read step by step: see dscc/library/linear.c."""
    heads, query_heads = node.required("kv_num_heads"), node.required("q_num_heads")
    rule = node.attr("update_rule", "gated_delta")
    if rule not in ("linear", "gated", "delta", "gated_delta"):
        raise node.error(f"update_rule is '{rule}'; allowed: linear, gated, delta, gated_delta")
    gated, delta = "gated" in rule, "delta" in rule
    if (decay is not None) != gated or (beta is not None) != delta:
        raise node.error(f"update_rule '{rule}' does not go with the inputs decay and beta that are given")
    if heads < 1 or query_heads % heads:
        raise node.error(f"q_num_heads is {query_heads}; it must be a multiple of kv_num_heads, {heads}")
    batch, steps, width = query.shape
    dk = node.dims.floordiv(width, query_heads)
    dv = node.dims.floordiv(value.shape[2], heads)
    for x, name in ((key, "key"), (value, "value")):
        node.require_equal(x.shape[0], batch, f"the batch of the {name}")
        node.require_equal(x.shape[1], steps, f"the number of steps of the {name}")
    node.require_equal(key.shape[2], node.dims.simplify(dk * heads), "the width of the key")
    state_shape = [batch, heads, dk, dv]
    if past is None:
        state, state_type = node.emit(R.zeros(shape_expr(state_shape), "float32")), query.dtype
    else:
        state, state_type = node.restate(past.expr, state_shape, "past_state"), past.dtype
    none = node.value(np.zeros((1, 1, 1), np.float32))
    if delta and beta is not None and static(beta.shape[2]) not in (1, heads):
        raise node.error(f"beta has {beta.shape[2]} values for each step; allowed: 1 or {heads}")
    scale = node.attr("scale", 0.0)
    if scale == 0:
        if static(dk) is None:
            raise node.unsupported("the size of a head is symbolic; without a scale it must be known")
        scale = 1 / math.sqrt(int(dk))
    args = [
        *(as_type(node, x.expr, "float32") for x in (query, key, value)),
        as_type(node, state, "float32"),
        *(as_type(node, (x or none).expr, "float32") for x in (decay, beta)),
        scalar(scale, "float32"),
        shape_expr([heads, query_heads, gated, delta]),
    ]
    out_shape = shape_expr([batch, steps, node.dims.simplify(dv * query_heads)])
    types = [relax.TensorType(out_shape, "float32"), relax.TensorType(shape_expr(state_shape), "float32")]
    both = node.emit(library.call("linear_attention", args, relax.TupleType(types)))
    out, present = (node.emit(relax.TupleGetItem(both, index)) for index in range(2))
    return as_type(node, out, query.dtype), as_type(node, present, state_type)
