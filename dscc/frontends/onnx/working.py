"""The types that operators compute in, where these are not those of their inputs.

Operators that add up or go through elementary functions compute float16 and bfloat16 in float32.
Their result is then rounded once, instead of at every step of a sum; and the kernels for float32 are the fast ones.
Operators that round once anyway (Add, Mul, Max, ...) stay in float16, for which processors have conversions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dscc.frontends.onnx import schemas
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.ops.cast import convert
from dscc.frontends.onnx.patterns import variable
from dscc.frontends.onnx.values import Value

INTEGERS = ("int32", "int64", "uint32", "uint64")
WIDENED = frozenset(
    (
        "MatMul Gemm Einsum Conv ConvTranspose DeformConv Det DFT STFT Col2Im CumSum CumProd Sum Mean "
        "ReduceSum ReduceMean ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum ReduceLogSumExp "
        "Softmax LogSoftmax LayerNormalization RMSNormalization InstanceNormalization GroupNormalization "
        "BatchNormalization MeanVarianceNormalization LpNormalization LRN "
        "AveragePool LpPool GlobalAveragePool GlobalLpPool RoiAlign Resize Upsample GridSample AffineGrid Attention "
        "Acos Acosh Asin Asinh Atan Atanh Cos Cosh Erf Exp Log Sin Sinh Tan Tanh Pow Mod Reciprocal Sqrt "
        "Celu Elu Gelu HardSigmoid HardSwish LeakyRelu Mish Selu Sigmoid Softplus Softsign Swish Range "
        "NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss RotaryEmbedding"
    ).split()
)
# TVM 0.27 has no bfloat16 for some of these (isnan, sorting, pairs of a value and an index) and writes out of bounds in
# others, so that none of them is given any. What only moves elements is left.
WIDENED_FROM_BFLOAT16 = WIDENED | frozenset(
    (
        "Add Sub Mul Div Max Min Neg Abs Sign Floor Ceil Round Relu Clip Equal Less Greater LessOrEqual GreaterOrEqual "
        "IsNaN IsInf ArgMax ArgMin TopK Hardmax ThresholdedRelu PRelu Shrink MaxPool GlobalMaxPool MaxRoiPool "
        "MaxUnpool ReduceMax ReduceMin Unique NonZero OneHot Bernoulli Multinomial"
    ).split()
)
THROUGH_DOUBLE = frozenset({"ReduceMean", "ReduceL2"})  # of integers, whose sums they divide or take roots of


def working_type(op: str, element: str) -> str | None:
    """The type in which an operator of the standard computes elements of another, or None where it is their own."""
    if (element == "float16" and op in WIDENED) or (element == "bfloat16" and op in WIDENED_FROM_BFLOAT16):
        return "float32"
    return "float64" if element in INTEGERS and op in THROUGH_DOUBLE else None


def widened(node: Node, inputs: Sequence[Value | None]) -> tuple[list[Value | None], Mapping[str, str]]:
    """The inputs in the types to compute in, and the types that the operator's type variables stand for."""
    if node.domain not in ("", "ai.onnx"):
        return list(inputs), {}
    schema = None
    variables: dict[str, str] = {}
    made: list[Value | None] = []
    for index, value in enumerate(inputs):
        kind = None if value is None else working_type(node.op, value.element)
        if value is None or kind is None or (index > 0 and value.element in INTEGERS):  # such as axes
            made.append(value)
            continue
        schema = schema or schemas.schema("", node.op, node.opset)
        variables[variable(schema.inputs, index)] = value.element
        made.append(_wide(node, value, kind))
    return made, variables


def narrowed(node: Node, outputs: Sequence[Value], variables: Mapping[str, str]) -> list[Value]:
    """The outputs of a converter that was given wider inputs, in the types that the standard says they have."""
    if not variables:
        return list(outputs)
    schema = schemas.schema("", node.op, node.opset)
    kinds = [variables.get(variable(schema.outputs, index)) for index in range(len(outputs))]
    return [
        node.value(convert(node, value, kind), value.name)
        if kind is not None and value.element in ("float32", "float64")
        else value
        for value, kind in zip(outputs, kinds, strict=True)
    ]


def _wide(node: Node, value: Value, kind: str) -> Value:
    if value.constant is not None and value.constant.size == 1:
        return node.value(value.constant.astype(kind), value.name)
    return node.value(convert(node, value, kind), value.name)
