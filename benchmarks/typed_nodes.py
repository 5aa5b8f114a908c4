"""Nodes of every operator that the standard defines on more than float32, and random inputs for them in any type.

Inputs are written as text: `T` is a tensor of the type under test, of the case's shape or of the one that follows
(`T:2x3`); `T+` one of positive numbers, `T1` of numbers between -1 and 1, `b` of booleans, `i=1,2` an int64 constant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from dscc.elements import numpy_dtype, onnx_name

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Case:
    """A node: its inputs as the module's docstring says, attributes, the shape of `T`, how many outputs it has, and
    whether it is for floats only, since the evaluator is wrong on others (on booleans in Resize, it fails).
    """

    op: str
    inputs: str = "T"
    attributes: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = (3, 5)
    outputs: int = 1
    floats: bool = False

    def takes(self, name: str) -> bool:
        """Whether the standard allows the type for the inputs `T`."""
        if (self.floats and "float" not in name) or (self.op == "Resize" and name == "bool"):
            return False
        schema = onnx.defs.get_schema(self.op)
        formal = list(schema.inputs)
        wanted = f"tensor({onnx_name(name)})"
        for index, text in enumerate(self.inputs.split()):
            if text.startswith("T") and wanted not in formal[min(index, len(formal) - 1)].types:
                return False
        return True


def _cases() -> tuple[Case, ...]:
    c = Case
    image, unary = (1, 4, 5, 5), "Acos:1 Asin:1 Atanh:1 Acosh:+ Log:+ Sqrt:+ Reciprocal:+"
    made = [c(op, f"T{domain}") for op, _, domain in (text.partition(":") for text in unary.split())]
    made += [
        c(op)
        for op in (
            "Abs Neg Sign Relu Ceil Floor Round Exp Erf Sigmoid Tanh Sin Cos Tan Asinh Atan Sinh Cosh Softplus "
            "Softsign Elu Selu Celu LeakyRelu ThresholdedRelu HardSigmoid HardSwish Gelu Mish Swish Softmax LogSoftmax "
            "Hardmax IsNaN IsInf BitwiseNot Not Identity Transpose NonZero ArgMax ArgMin LpNormalization "
            "ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceSumSquare "
            "ReduceLogSumExp EyeLike Trilu Flatten"
        ).split()
    ]
    made += [
        c(op, "T T")
        for op in (
            "Add Sub Mul Div Max Min Equal Less Greater LessOrEqual GreaterOrEqual And Or Xor BitwiseAnd BitwiseOr "
            "BitwiseXor Sum Mean Mod PRelu"
        ).split()
    ]
    made += [
        c("Gelu", "T", {"approximate": "tanh"}),
        c("Max", "T T:5 T:1x5"),
        c("Min", "T T:5 T:1x5"),
        c("Mod", "T T", {"fmod": 1}),
        c("Pow", "T+ T1"),
        c("Pow", "T p"),
        c("BitShift", "T s", {"direction": "LEFT"}),
        c("BitShift", "T s", {"direction": "RIGHT"}),
        c("Clip", "T lo hi"),
        c("Clip", "T lo"),
        c("Where", "b T T"),
        c("IsInf", "T", {"detect_negative": 0}),
        c("ReduceLogSum", "T+"),
        c("ReduceSum", "T i=1", {"keepdims": 0}),
        c("ReduceMean", "T1", {"keepdims": 0}),  # the evaluator's sum of integers overflows
        c("ReduceMean", "T1 i=0"),
        c("ReduceL2", "T1 i=1"),
        c("ReduceMax", "T i=-1", {"keepdims": 0}),
        c("ReduceMin", "T i=0,1"),
        c("ReduceProd", "T i=1"),
        c("ArgMax", "T", {"axis": 1, "select_last_index": 1, "keepdims": 0}),
        c("ArgMin", "T", {"axis": 1}),
        c("TopK", "T i=2", {"axis": 1}, outputs=2),
        c("TopK", "T i=3", {"axis": 0, "largest": 0}, outputs=2),
        c("CumSum", "T i=1"),
        c("CumSum", "T i=0", {"reverse": 1, "exclusive": 1}),
        c("CumProd", "T i=1"),
        c("MatMul", "T T:5x4"),
        c("MatMul", "T:2x3x5 T:2x5x4"),
        c("MatMul", "T:5 T:5x4"),
        c("Gemm", "T1 T1:5x4 T1:4"),  # of small numbers: the evaluator multiplies integers by alpha as floats
        c("Gemm", "T1:5x3 T1:4x5 T1:3x4", {"transA": 1, "transB": 1, "alpha": 2.0, "beta": 3.0}),
        c("Einsum", "T T:5x4", {"equation": "ij,jk->ki"}),
        c("Concat", "T T:3x2", {"axis": 1}),
        c("Split", "T", {"axis": 1, "num_outputs": 2}, (3, 6), 2),
        c("Slice", "T i=0,1 i=3,5 i=0,1 i=2,1"),
        c("Slice", "T i=-1 i=-9 i=1 i=-1"),
        c("Gather", "T i=2,0", {"axis": 0}),
        c("GatherElements", "T i=1,0,2,1,1,0;3x2", {"axis": 1}),
        c("GatherND", "T i=0,1,2,2;2x2"),
        c("ScatterElements", "T i=1,0,2;3x1 T:3x1", {"axis": 1}),
        c("ScatterND", "T i=2,0;2x1 T:2x5"),
        c("Pad", "T i=1,0,0,2 v"),
        c("Pad", "T i=1,1,1,0", {"mode": "reflect"}),
        c("Expand", "T:3x1 i=2,3,4"),
        c("Tile", "T i=2,1"),
        c("Reshape", "T i=5,3"),
        c("Squeeze", "T:1x3x1 i=0"),
        c("Unsqueeze", "T i=1"),
        c("Compress", "T m", {"axis": 1}),
        c("ReverseSequence", "T i=2,3,1,2,3"),
        c("DepthToSpace", "T", {"blocksize": 2}, (1, 8, 2, 3)),
        c("SpaceToDepth", "T", {"blocksize": 2}, (1, 2, 4, 6)),
        c("CenterCropPad", "T i=4,3"),
        c("Unique", "T", {"sorted": 1}, (8,), 4),
        c("OneHot", "i=1,3,0 i=4; T:2"),
        c("Range", "T:= T:= T:="),
        c("Shrink", "T1"),
        c("Resize", "T1 _ f=1,1,2,2", {"mode": "nearest"}, image),  # the evaluator takes integers for doubles
        c("Resize", "T1 _ f=1,1,2,4", {"mode": "linear"}, image),
        c("GridSample", "T f:1x3x4x2", {}, image, floats=True),  # its weights of integers are integers
        c("MaxPool", "T", {"kernel_shape": [2, 2]}, image),
        c("MaxPool", "T", {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1]}, image),
        c("MaxPool", "T", {"kernel_shape": [2, 2], "strides": [2, 2]}, image, 2),
        c("AveragePool", "T", {"kernel_shape": [2, 2], "pads": [1, 1, 0, 0]}, image),
        c("LpPool", "T", {"kernel_shape": [2, 2]}, image),
        c("GlobalAveragePool", "T", {}, image),
        c("GlobalMaxPool", "T", {}, image),
        c("Conv", "T T:2x4x3x3 T:2", {}, image),
        c("Conv", "T T:4x1x3x3", {"group": 4, "pads": [1, 1, 1, 1]}, image),
        c("ConvTranspose", "T T:4x2x3x3", {"strides": [2, 2]}, image),
        c("BatchNormalization", "T T:4 T:4 T:4 T+:4", {}, image),
        c("InstanceNormalization", "T T:4 T:4", {}, image),
        c("GroupNormalization", "T T:4 T:4", {"num_groups": 2}, image),
        c("LayerNormalization", "T T:5 T:5"),
        c("RMSNormalization", "T T:5"),
        c("MeanVarianceNormalization", "T", {}, image),
        c("Softmax", "T", {"axis": 0}),
        c("LogSoftmax", "T", {"axis": 0}),
        c("Attention", "T T:1x2x6x4 T:1x2x6x4", {}, (1, 2, 3, 4)),
        c("Sum", "T T:5 T:1x5"),
    ]
    return tuple(made)


CASES = _cases()


def _draw(rng: np.random.Generator, text: str, kind: str, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """Elements of an input `T`. Integers take their whole range, so that overflow is seen."""
    if kind == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if "float" in kind:
        x = rng.standard_normal(shape) * (0.3 if text.startswith("T1") else 2)
        x = np.clip(x, -0.95, 0.95) if text.startswith("T1") else x
        return (np.abs(x) + 1.1 if text.startswith("T+") else x).astype(dtype)
    info = np.iinfo(dtype)
    if text.startswith(("T+", "T1")):
        return rng.integers(1, 4, shape).astype(dtype)
    x = rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    small = rng.integers(max(info.min, -5), 6, shape).astype(dtype)
    return np.where(rng.integers(0, 2, shape).astype(bool), x, small)


def inputs(case: Case, kind: str, rng: np.random.Generator) -> list[tuple[Array | None, bool]]:
    """The inputs of a case in type `kind`, and whether each is a constant of the model; None for one left out."""
    dtype = numpy_dtype(kind)
    made: list[tuple[Array | None, bool]] = []
    for text in case.inputs.split():
        head, _, rest = text.partition(":")
        if text == "_":
            made.append((None, True))
        elif head[0] == "T":
            if rest == "=":
                made.append((np.array([1, 9, 2][len(made)], dtype), False))
                continue
            shape = tuple(int(d) for d in rest.split("x")) if rest else case.shape
            x = _draw(rng, head, kind, shape, dtype)
            if case.op in ("Div", "Mod") and len(made) == 1:  # division of integers by 0 is left open
                x = np.where(x.astype(np.float64) == 0, np.ones_like(x), x)
            made.append((x, False))
        elif text[0] == "i":
            numbers, _, dims = text[2:].partition(";")
            values = np.array([int(n) for n in numbers.split(",")], np.int64)
            if text.endswith(";") or case.op in ("CumSum", "CumProd"):
                values = values.reshape(())
            made.append((values.reshape([int(d) for d in dims.split("x")]) if dims else values, True))
        elif text.startswith("f="):
            made.append((np.array([float(n) for n in text[2:].split(",")], np.float32), True))
        elif head == "f":
            made.append((rng.uniform(-1, 1, [int(d) for d in rest.split("x")]).astype(np.float32), False))
        else:
            made.append(_special(text, case, dtype, kind, rng))
    return made


def _special(text: str, case: Case, dtype: np.dtype[Any], kind: str, rng: np.random.Generator) -> tuple[Array, bool]:
    if text == "b":
        return rng.integers(0, 2, case.shape).astype(bool), False
    if text == "m":
        return np.array([1, 0, 1, 0, 1], bool), True
    if text == "s":  # shift counts
        return rng.integers(0, dtype.itemsize * 8, case.shape).astype(dtype), False
    if text == "p":  # exponents of another type
        return rng.integers(0, 4, case.shape).astype(np.float32 if "int" in kind else np.int64), False
    value = {"lo": 1, "hi": 3, "v": 1}[text]
    return np.array(value).astype(dtype), False
