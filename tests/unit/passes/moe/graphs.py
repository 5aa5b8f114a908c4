"""Mixtures of experts as exporters write them, in small: a router and experts, tokens symbolic.

grouped      torch's dynamo exporter for transformers' "grouped_mm": sorted by expert, a product for every segment
batched      the same for "batched_mm": the weights are looked up for every slot
unrolled     a loop over experts: NonZero of a one-hot mask, lookups, products, ScatterND that adds
dense        all experts for all tokens, times a matrix that is mostly zero: a loop, or batched
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = Any


@dataclass
class Graph:
    """Nodes in the making."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    def several(self, op: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        names = [f"{op.lower()}_{len(self.nodes)}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names

    def __getattr__(self, op: str) -> Callable[..., str]:
        return lambda *inputs, **attributes: self.several(op, 1, *inputs, **attributes)[0]

    def const(self, content: Any) -> str:
        name = f"c{len(self.weights)}"
        array = np.asarray(content, None if isinstance(content, np.ndarray) else np.int64)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape: int) -> str:
        return self.const((self.rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32))

    def expert(self, style: Style, shape: Sequence[int], depth: int) -> str:
        """A weight of experts, kept as the style says; `depth`: the axis that is summed over."""
        scale = np.sqrt(shape[depth])
        real = (self.rng.standard_normal(shape) / scale).astype(np.float32)
        kind = style.weights
        if kind == "float32":
            return self.const(real)
        if kind == "float16":
            return self.Cast(self.const(real.astype(np.float16)), to=TensorProto.FLOAT)
        if kind == "bfloat16":
            return self.Cast(self.const(real.astype(ml_dtypes.bfloat16)), to=TensorProto.FLOAT)
        element, _, spread = kind.removesuffix(" of float16").partition(" ")
        low, high = {"int8": (-127, 127), "uint8": (0, 255), "int4": (-7, 7), "uint4": (0, 15)}[element]
        codes = np.clip(np.round(real * scale * (high - low) / 6 + (high + low) / 2), low, high)
        of = list(shape)
        attributes: dict[str, int] = {}
        if spread == "tensor":
            of = []
        elif spread == "columns" and len(shape) == 2:
            of, attributes = [shape[1 - depth]], {"axis": 1 - depth}
        else:  # of stacks of matrices, the scales of columns are blocks of a whole depth
            block = shape[depth] if spread == "columns" else style.block
            of[depth] //= block
            attributes = {"axis": depth, "block_size": block}
        scales = np.asarray(6 / (high - low) / scale * self.rng.uniform(0.5, 1.5, of), np.float32)
        given = [self.packed(codes, element), self.const(scales)]
        if element.startswith("u"):
            given.append(self.packed(self.rng.integers(high // 2 - 1, high // 2 + 2, of), element))
        if kind == f"{element} {spread}":
            return self.DequantizeLinear(*given, **attributes)
        given[1] = self.Cast(given[1], to=TensorProto.FLOAT16)
        return self.Cast(self.DequantizeLinear(*given, **attributes), to=TensorProto.FLOAT)

    def packed_product(self, style: Style, value: str, depth: int, columns: int) -> str:
        """The product with a weight, which onnxruntime's operator for packed ones holds if the style says so."""
        if style.weights != "MatMulNBits":
            return self.MatMul(value, self.expert(style, (depth, columns), 0))
        blocks = depth // style.block
        codes = self.rng.integers(0, 256, (columns, blocks, style.block // 2), dtype=np.uint8)
        scales = (self.rng.uniform(0.5, 1.5, columns * blocks) / 5 / np.sqrt(depth)).astype(np.float32)
        sizes = {"K": depth, "N": columns, "bits": 4, "block_size": style.block}
        return self.MatMulNBits(value, self.const(codes), self.const(scales), domain="com.microsoft", **sizes)

    def packed(self, codes: Any, element: str) -> str:
        """A constant of an integer type that NumPy may not have."""
        name, kind = f"c{len(self.weights)}", getattr(TensorProto, element.upper())
        self.weights.append(helper.make_tensor(name, kind, np.shape(codes), np.asarray(codes, np.int64).reshape(-1)))
        return name

    def number(self, value: float) -> str:
        return self.const(np.array(value, np.float32))


@dataclass
class Style:
    """How the experts of a graph are made: router, activation, biases, the order of the first columns, sizes; whether
    a loop over them begins with a shared expert's output; how their weights are kept: as float32, float16, or codes
    with a scale for a tensor, for columns or for blocks of elements along the depth; whether sorted rows are added
    to those of their tokens, not put back in order; whether shares of all experts are made of one-hot rows.
    """

    router: str = "softmax-topk"
    activation: str = "silu"
    gated: bool = True
    bias: bool = False
    shared: bool = False
    experts: int = 4
    top: int = 2
    hidden: int = 12
    inner: int = 10
    weights: str = "float32"
    block: int = 4
    added: bool = False
    hot: bool = False

    @property
    def columns(self) -> int:
        return self.inner * (2 if self.gated else 1)


def route(g: Graph, x: str, style: Style) -> tuple[str, str]:
    """The ids and the shares, (tokens, top)."""
    logits = g.MatMul(x, g.weight(style.hidden, style.experts))
    top = g.const([style.top])
    if style.router == "topk-softmax":
        values, ids = g.several("TopK", 2, logits, top, axis=-1)
        return ids, g.Softmax(values, axis=-1)
    if style.router == "best twice":  # as in Phi-3.5-MoE: the best, and the best of the others
        first = g.ArgMax(logits, axis=-1, keepdims=1)
        least = g.Expand(g.number(-np.inf), g.Shape(first))
        others = g.ScatterElements(logits, first, least, axis=-1)
        second = g.ArgMax(others, axis=-1, keepdims=1)
        each = [g.GatherElements(g.Softmax(of, axis=-1), at, axis=-1) for of, at in ((logits, first), (others, second))]
        return g.Concat(first, second, axis=-1), g.Concat(*each, axis=-1)
    if style.router == "sigmoid":  # with a correction that only chooses, as in DeepSeek-V3, and groups of experts
        scores = g.Sigmoid(logits)
        chosen = g.Add(scores, g.weight(style.experts))
        groups = g.Reshape(chosen, g.const([-1, 2, style.experts // 2]))
        best, _ = g.several("TopK", 2, groups, g.const([1]), axis=-1)
        _, group = g.several("TopK", 2, g.Squeeze(best, g.const([2])), g.const([1]), axis=-1)
        zeros = g.Mul(g.Squeeze(best, g.const([2])), g.number(0.0))
        mask = g.ScatterElements(zeros, group, g.Add(g.Mul(g.Cast(group, to=1), g.number(0.0)), g.number(1.0)), axis=1)
        wide = g.Reshape(
            g.Expand(g.Unsqueeze(mask, g.const([2])), g.const([1, 2, style.experts // 2])), g.const([-1, style.experts])
        )
        masked = g.Where(g.Cast(wide, to=9), chosen, g.number(-np.inf))
        _, ids = g.several("TopK", 2, masked, top, axis=-1)
        shares = g.GatherElements(scores, ids, axis=1)
        total = g.Add(g.ReduceSum(shares, g.const([-1]), keepdims=1), g.number(1e-20))
        return ids, g.Mul(g.Div(shares, total), g.number(2.5))
    values, ids = g.several("TopK", 2, g.Softmax(logits, axis=-1), top, axis=-1)
    if style.router == "softmax-topk":
        values = g.Div(values, g.ReduceSum(values, g.const([-1]), keepdims=1))
    return ids, values


def activate(g: Graph, h: str, style: Style) -> str:
    if style.activation == "clipped":  # gpt-oss: columns alternate, both parts are clamped
        steps, axes, end = g.const([2]), g.const([-1]), g.const([1 << 40])
        gate = g.Min(g.Slice(h, g.const([0]), end, axes, steps), g.number(0.7))
        up = g.Clip(g.Slice(h, g.const([1]), end, axes, steps), g.number(-0.7), g.number(0.7))
        return g.Mul(g.Add(up, g.number(1.0)), g.Mul(gate, g.Sigmoid(g.Mul(gate, g.number(1.702)))))
    gate, up = h, ""
    if style.gated:
        gate, up = g.several("Split", 2, h, axis=-1, num_outputs=2)
    made = {"silu": lambda: g.Mul(gate, g.Sigmoid(gate)), "relu": lambda: g.Relu(gate), "gelu": lambda: g.Gelu(gate)}
    opened = made[style.activation]()
    return g.Mul(opened, up) if style.gated else opened


def batched(g: Graph, x: str, style: Style) -> str:
    ids, shares = route(g, x, style)
    wide = g.Expand(g.Unsqueeze(x, g.const([-2])), g.const([style.top, 1]))
    rows = g.Reshape(wide, g.const([-1, style.hidden]))
    at = g.Unsqueeze(g.Reshape(ids, g.const([-1])), g.const([-1]))

    def linear(value: str, columns: int, depth: int) -> str:
        matrix = g.GatherND(g.expert(style, (style.experts, columns, depth), 2), at)
        out = g.Squeeze(g.MatMul(matrix, g.Unsqueeze(value, g.const([-1]))), g.const([-1]))
        return g.Add(out, g.GatherND(g.weight(style.experts, columns), at)) if style.bias else out

    out = linear(activate(g, linear(rows, style.columns, style.hidden), style), style.hidden, style.inner)
    weighted = g.Mul(out, g.Unsqueeze(g.Reshape(shares, g.const([-1])), g.const([-1])))
    return g.ReduceSum(g.Reshape(weighted, g.const([-1, style.top, style.hidden])), g.const([1]), keepdims=0)


def grouped(g: Graph, x: str, style: Style) -> str:
    ids, shares = route(g, x, style)
    flat = g.Reshape(ids, g.const([-1]))
    sorted_ids, order = g.several("TopK", 2, flat, g.Shape(flat), axis=-1, largest=0)
    column = g.Unsqueeze(order, g.const([-1]))
    rows = g.GatherND(x, g.Unsqueeze(g.Div(order, g.const(style.top)), g.const([-1])))
    ordered = g.GatherND(g.Reshape(shares, g.const([-1])), column)
    bins = g.Div(g.Cast(sorted_ids, to=1), g.number((style.experts - 1) / style.experts))
    place = g.Clip(g.Cast(bins, to=7), g.const(0), g.const(style.experts - 1))
    ones = g.Expand(g.number(1.0), g.Shape(place))
    counts = g.ScatterElements(g.const(np.zeros(style.experts, np.float32)), place, ones, axis=0, reduction="add")
    ends = g.several(
        "Split", style.experts, g.CumSum(g.Cast(counts, to=7), g.const(0)), axis=0, num_outputs=style.experts
    )
    ends = [g.Squeeze(end, g.const([0])) for end in ends]
    starts = [g.const(0), *ends]
    ranges = [g.Range(begin, end, g.const(1)) for begin, end in zip(starts, ends, strict=False)]

    def each(rows: list[str], columns: int, depth: int) -> list[str]:
        if style.weights == "MatMulNBits":
            return [g.packed_product(style, value, depth, columns) for value in rows]
        weight = g.expert(style, (style.experts, depth, columns), 1)
        parts = g.several("Split", style.experts, weight, axis=0, num_outputs=style.experts)
        return [g.MatMul(value, g.Squeeze(part, g.const([0]))) for value, part in zip(rows, parts, strict=True)]

    def linear(value: str, columns: int, depth: int) -> str:
        out = g.Concat(*each([g.Gather(value, r, axis=0) for r in ranges], columns, depth), axis=0)
        at = g.Unsqueeze(sorted_ids, g.const([-1]))
        return g.Add(out, g.GatherND(g.weight(style.experts, columns), at)) if style.bias else out

    out = linear(activate(g, linear(rows, style.columns, style.hidden), style), style.hidden, style.inner)
    weighted = g.Mul(out, g.Unsqueeze(ordered, g.const([-1])))
    if style.added:
        start = _shared(g, x, style) if style.shared else g.Expand(g.number(0.0), g.Shape(x))
        at = g.Unsqueeze(g.Div(order, g.const(style.top)), g.const([-1]))
        return g.ScatterND(start, at, weighted, reduction="add")
    count = g.Squeeze(g.Shape(order), g.const([0]))
    empty = g.Expand(g.const(0), g.Shape(order))
    inverse = g.ScatterND(empty, column, g.Range(g.const(0), count, g.const(1)))
    back = g.GatherND(weighted, g.Unsqueeze(inverse, g.const([-1])))
    return g.ReduceSum(g.Reshape(back, g.const([-1, style.top, style.hidden])), g.const([1]), keepdims=0)


def _one(g: Graph, rows: str, style: Style) -> str:
    """One expert."""

    def linear(value: str, columns: int, depth: int) -> str:
        out = g.packed_product(style, value, depth, columns)
        return g.Add(out, g.weight(columns)) if style.bias else out

    return linear(activate(g, linear(rows, style.columns, style.hidden), style), style.hidden, style.inner)


def unrolled(g: Graph, x: str, style: Style) -> str:
    ids, shares = route(g, x, style)
    hot = g.Transpose(g.OneHot(ids, g.const([style.experts]), g.const([0, 1]), axis=-1), perm=[2, 1, 0])
    out = _shared(g, x, style) if style.shared else g.Expand(g.number(0.0), g.Shape(x))
    for expert in range(style.experts):
        where = g.NonZero(g.Gather(hot, g.const(expert), axis=0))
        place, token = g.several("Split", 2, where, axis=0, num_outputs=2)
        place, token = (g.Squeeze(part, g.const([0])) for part in (place, token))
        column = g.Unsqueeze(token, g.const([-1]))
        pairs = g.Concat(column, g.Unsqueeze(place, g.const([-1])), axis=-1)
        share = g.Unsqueeze(g.GatherND(shares, pairs), g.const([-1]))
        made = g.Mul(_one(g, g.GatherND(x, column), style), share)
        out = g.ScatterND(out, column, made, reduction="add")
    return out


def _shares_of_all(g: Graph, x: str, style: Style) -> str:
    """(tokens, experts), mostly zero."""
    ids, shares = route(g, x, style)
    if style.hot:
        hot = g.OneHot(ids, g.const([style.experts]), g.const(np.array([0, 1], np.float32)), axis=-1)
        return g.ReduceSum(g.Mul(hot, g.Unsqueeze(shares, g.const([-1]))), g.const([-2]), keepdims=0)
    zeros = g.Expand(g.number(0.0), g.Concat(g.Shape(x, start=0, end=-1), g.const([style.experts]), axis=0))
    return g.ScatterElements(zeros, ids, shares, axis=-1)


def _shared(g: Graph, x: str, style: Style) -> str:
    """An expert for all tokens, which opens itself."""
    return g.Mul(_one(g, x, style), g.Sigmoid(g.MatMul(x, g.weight(style.hidden, 1))))


def dense_loop(g: Graph, x: str, style: Style) -> str:
    full, out = _shares_of_all(g, x, style), _shared(g, x, style) if style.shared else ""
    for expert in range(style.experts):
        share = g.Gather(full, g.const([expert]), axis=-1)
        made = g.Mul(_one(g, x, style), share)
        out = g.Add(out, made) if out else made
    return out


def dense_batched(g: Graph, x: str, style: Style) -> str:
    full = _shares_of_all(g, x, style)
    one = g.Unsqueeze(x, g.const([0]))

    def linear(value: str, columns: int, depth: int) -> str:
        out = g.MatMul(value, g.expert(style, (style.experts, depth, columns), 1))
        return g.Add(out, g.weight(style.experts, 1, columns)) if style.bias else out

    out = linear(activate(g, linear(one, style.columns, style.hidden), style), style.hidden, style.inner)
    share = g.Unsqueeze(g.Transpose(full, perm=[1, 0]), g.const([-1]))
    return g.ReduceSum(g.Mul(out, share), g.const([0]), keepdims=0)


def scaled(g: Graph, x: str, style: Style) -> str:
    """As in Llama 4: tokens, repeated for all experts, times sigmoids of what is minus infinity for all but the chosen;
    a token's share is in what its experts read.
    """
    logits = g.MatMul(x, g.weight(style.hidden, style.experts))
    values, ids = g.several("TopK", 2, logits, g.const([style.top]), axis=-1)
    full = g.ScatterElements(g.Expand(g.number(-np.inf), g.Shape(logits)), ids, values, axis=1)
    shares = g.Softmax(full, axis=-1) if style.router == "softmax" else g.Sigmoid(full)
    column = g.Reshape(g.Transpose(shares, perm=[1, 0]), g.const([-1, 1]))
    rows = g.Mul(g.Tile(x, g.const([style.experts, 1])), column)
    all_rows = g.Reshape(rows, g.const([style.experts, -1, style.hidden]))

    def linear(value: str, columns: int, depth: int) -> str:
        out = g.MatMul(value, g.weight(style.experts, depth, columns))
        return g.Add(out, g.weight(style.experts, 1, columns)) if style.bias else out

    out = linear(activate(g, linear(all_rows, style.columns, style.hidden), style), style.hidden, style.inner)
    return g.ReduceSum(out, g.const([0]), keepdims=0)


def scaled_loop(g: Graph, x: str, style: Style) -> str:
    """The same expert by expert."""
    full, out = _shares_of_all(g, x, style), ""
    for expert in range(style.experts):
        made = _one(g, g.Mul(x, g.Gather(full, g.const([expert]), axis=-1)), style)
        out = g.Add(out, made) if out else made
    return out


Form = Callable[[Graph, str, Style], str]
FORMS: dict[str, Form] = {
    "grouped": grouped,
    "batched": batched,
    "unrolled": unrolled,
    "dense loop": dense_loop,
    "dense batched": dense_batched,
}


def model(form: Form, style: Style, tokens: Sequence[int | str] = ("tokens",)) -> onnx.ModelProto:
    """x (*tokens, hidden) to y of the same shape: a residual around the experts."""
    g = Graph()
    made = form(g, "x", style)
    made = g.Reshape(made, g.Shape("x")) if len(tokens) > 1 else made
    g.nodes.append(helper.make_node("Add", ["x", made], ["y"]))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [*tokens, style.hidden]) for name in "xy")
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph(g.nodes, "experts", [x], [y], g.weights)
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def halved(made: onnx.ModelProto) -> onnx.ModelProto:
    """The model in float16 throughout."""
    for tensor in made.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for node in made.graph.node:
        for attribute in node.attribute:
            if (node.op_type, attribute.name, attribute.i) == ("Cast", "to", TensorProto.FLOAT):
                attribute.i = TensorProto.FLOAT16
    for info in [*made.graph.input, *made.graph.output]:
        info.type.tensor_type.elem_type = TensorProto.FLOAT16
    return made
