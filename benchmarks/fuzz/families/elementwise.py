"""Operators that work element by element, with the broadcasting of two or three operands."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from benchmarks.fuzz.chain import Chain
from benchmarks.fuzz.graph import Graph, Rejected, Value

# Each with the interval that its operand is brought into first, where it has one.
_UNARY = (
    *("Abs", "Neg", "Exp", "Sigmoid", "Tanh", "Relu", "Softplus", "Softsign", "Erf", "Sin", "Cos", "Identity"),
    *("Floor", "Ceil", "Round", "Sign", "LeakyRelu", "Elu", "Selu", "HardSigmoid", "HardSwish", "Celu"),
    *("ThresholdedRelu", "Mish", "Gelu", "Atan", "Sinh", "Cosh", "Asinh", "Shrink", "Swish"),
)  # fmt: skip
_DOMAIN = ("Sqrt", "Log", "Reciprocal", "Acos", "Asin", "Atanh", "Acosh", "Tan")
_SINCE = {"Gelu": 20, "Mish": 18, "HardSwish": 14, "Swish": 24}


def unary(g: Graph) -> None:
    op = g.choose(_UNARY)
    if _SINCE.get(op, 1) > g.opset:
        raise Rejected(op)
    attributes: dict[str, Any] = {}
    if op in ("LeakyRelu", "Elu", "Celu", "ThresholdedRelu") and g.chance(0.5):
        attributes["alpha"] = float(g.choose([0.01, 0.5, 1.5]))
    if op == "Gelu" and g.chance(0.5):
        attributes["approximate"] = "tanh"
    if op == "Shrink":
        attributes |= {"lambd": 0.4, "bias": float(g.choose([0.0, 0.3]))}
    g.add(op, [g.floats()], **attributes)


def restricted(g: Graph) -> None:
    """An operator with a domain, on a value that is brought into it."""
    op, x = g.choose(_DOMAIN), g.floats()
    if op in ("Acos", "Asin", "Atanh"):
        [x] = g.add("Mul", [g.add("Tanh", [x])[0], g.weight(np.array(0.75, x.dtype))])
    elif op == "Tan":
        [x] = g.add("Tanh", [x])
    else:
        [x] = g.add("Add", [g.add("Abs", [x])[0], g.weight(np.array(1.25, x.dtype))])
    g.add(op, [x])


def operand(g: Graph, x: Value) -> Value:
    """A second operand for x: another value, a weight that broadcasts, or x again."""
    kind = g.integer(0, 5)
    if kind <= 1:
        return g.pick(lambda v: v.dtype == x.dtype)
    if kind == 2:
        return x
    if kind == 3 and len(g.inputs) < 6:
        known = next((i for i in g.inputs if i.value is x), None)
        if known is not None:
            dims = [1 if g.chance(0.3) else d for d in known.dims[g.integer(0, x.ndim) :]]
            return g.input(x.dtype.name, dims)
    shape = [1 if not x.static(a) or g.chance(0.3) else x.sizes(a)[0] for a in range(x.ndim)]
    return g.weight(g.content(x.dtype.name, shape[g.integer(0, x.ndim) :]))


def binary(g: Graph) -> None:
    x = g.pick(lambda v: v.kind in "fiu")
    op = g.choose(["Add", "Sub", "Mul", "Add", "Mul", "Div", "Pow", "Mod", "PRelu", "Max", "Min", "Mean", "Sum"])
    y = operand(g, x)
    if op in ("Div", "Mod"):
        y = nonzero(g, y)
    if op == "Pow":
        if x.kind != "f":
            raise Rejected("integer powers overflow")
        x = x if g.chance(0.3) else g.add("Abs", [x])[0]
        y = g.weight(np.array(g.choose([2, 3, 0.5, 1, 0, 2.5]), x.dtype))
    if op in ("Max", "Min", "Mean", "Sum"):
        g.add(op, [x, y, operand(g, x)][: g.integer(1, 3)])
        return
    a, b = (y, x) if g.chance(0.3) and op not in ("Div", "Mod", "Pow", "PRelu") else (x, y)
    g.add(op, [a, b], fmod=1 if op == "Mod" and x.kind == "f" else None)


def nonzero(g: Graph, y: Value) -> Value:
    """y moved away from zero."""
    if y.kind == "f":
        return g.add("Add", [g.add("Abs", [y])[0], g.weight(np.array(0.5, y.dtype))])[0]
    return g.weight(np.array(g.choose([1, 2, 3, 5, 7] if y.kind == "u" else [1, 2, -3, 5, -7]), y.dtype))


def compare(g: Graph) -> None:
    x = g.pick(lambda v: v.kind in "fiu")
    op = g.choose(["Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"])
    g.add(op, [x, operand(g, x)])


def logical(g: Graph) -> None:
    op = g.choose(["And", "Or", "Xor", "Not", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", "BitShift"])
    if op.startswith("Bit"):
        if g.opset < 18:
            raise Rejected(op)
        x = g.pick(lambda v: v.kind == "u" if op == "BitShift" else v.kind in "iu")
    else:
        x = g.pick(lambda v: v.kind == "b")
    if op.endswith("Not"):
        g.add(op, [x])
    elif op == "BitShift":
        g.add(op, [x, g.weight(np.array(g.integer(0, 5), x.dtype))], direction=g.choose(["LEFT", "RIGHT"]))
    else:
        g.add(op, [x, operand(g, x)])


def where(g: Graph) -> None:
    condition = g.pick(lambda v: v.kind == "b")
    x = g.pick(lambda v: v.kind != "b")
    g.add("Where", [condition, x, operand(g, x)] if g.chance(0.5) else [condition, operand(g, x), x])


def cast(g: Graph) -> None:
    x = g.pick()
    names = [name for name in _CODES if name != "bfloat16" or g.opset >= 13]
    to = "float32" if g.chance(0.3) else g.choose(names)
    if x.kind == "f" and to.startswith(("u", "int")):  # what does not fit the type is undefined
        if to.startswith("u"):
            [x] = g.add("Abs", [x])
        if any(np.abs(a.astype(np.float64)).max(initial=0) >= 100 for a in x.arrays):
            raise Rejected("out of range")
    g.add("Cast", [x], to=int(_CODES[to]))


_NARROW = {"FLOAT8E4M3FN": 19, "FLOAT8E5M2": 19, "INT4": 21, "UINT4": 21, "FLOAT4E2M1": 23, "INT2": 25, "UINT2": 25}


def narrow(g: Graph) -> None:
    """A value through a type that NumPy lacks and back: weights and caches are kept like that."""
    to = g.choose(list(_NARROW))
    if g.opset < _NARROW[to]:
        raise Rejected(to)
    x = g.pick(lambda v: v.dtype == np.float32)
    low, high = {"INT4": (-8, 7), "UINT4": (0, 15), "INT2": (-2, 1), "UINT2": (0, 3)}.get(to, (-6, 6))
    [x] = g.add("Clip", [x, *(g.weight(np.array(v, np.float32)) for v in (low, high))])
    chain = Chain(g)
    held = chain.add("Cast", [x], to=int(getattr(TensorProto, to)))
    chain.attach(chain.add("Cast", [held], to=1))


def clip(g: Graph) -> None:
    x = g.floats()
    low = g.weight(np.array(-0.6, x.dtype)) if g.chance(0.7) else None
    high = g.weight(np.array(0.9, x.dtype)) if g.chance(0.7) else None
    if g.opset < 12 and x.dtype != np.float32:
        raise Rejected("Clip")
    g.add("Clip", [x, low, high] if high is not None else [x, low] if low is not None else [x])


def tests(g: Graph) -> None:
    """IsNaN and IsInf, on a value that has some of them."""
    x = g.pick(lambda v: v.dtype in (np.float32, np.float64) and not v.fixed)
    try:
        g.add(g.choose(["IsNaN", "IsInf"]), [x])
    except Rejected:
        return


def gate(g: Graph) -> None:
    """A gate: x * sigmoid(k * x), x * tanh(softplus(x)) and the like, which passes fuse."""
    x = g.floats()
    function = g.choose(["Sigmoid", "Tanh", "HardSigmoid", "Erf"])
    [y] = g.add("Mul", [x, g.weight(np.array(g.choose([1.0, 1.702, 0.5]), x.dtype))]) if g.chance(0.5) else [x]
    [y] = g.add(function, [y])
    if g.chance(0.3):
        [y] = g.add("Add", [y, g.weight(np.array(1.0, x.dtype))])
    g.add("Mul", [x, y] if g.chance(0.5) else [y, x])


_CODES = {
    "float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "bool": 9, "float16": 10,
    "float64": 11, "uint32": 12, "uint64": 13, "bfloat16": 16,
}  # fmt: skip

GENERATORS = {
    unary: 8.0, restricted: 2.0, binary: 12.0, compare: 2.0, logical: 1.5, where: 3.0, cast: 3.0, clip: 1.5,
    narrow: 0.5,    tests: 0.5, gate: 1.5,
}  # fmt: skip
