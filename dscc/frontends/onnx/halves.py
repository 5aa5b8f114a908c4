"""Operators that add up or go through elementary functions compute float16 and bfloat16 in float32.

Their result is then rounded once, instead of at every step of a sum; and the kernels for float32 are the fast ones.
Operators that round once anyway (Add, Mul, Max, ...) stay in float16, for which processors have conversions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.ops.cast import convert
from dscc.frontends.onnx.patterns import variable
from dscc.frontends.onnx.values import Value

HALVES = ("float16", "bfloat16")
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


def widened(node: Node, inputs: Sequence[Value | None]) -> tuple[list[Value | None], Mapping[str, str]]:
    """The inputs in float32 where they are narrower, and the types that the operator's type variables stand for."""
    some = any(value is not None and value.element == "bfloat16" for value in inputs)
    if node.domain not in ("", "ai.onnx") or node.op not in (WIDENED_FROM_BFLOAT16 if some else WIDENED):
        return list(inputs), {}
    schema = onnx.defs.get_schema(node.op, node.opset, "")
    variables = {
        variable(schema.inputs, index): value.element
        for index, value in enumerate(inputs)
        if value is not None and value.element in HALVES
    }
    if not variables:
        return list(inputs), {}
    return [_wide(node, value) for value in inputs], variables


def narrowed(node: Node, outputs: Sequence[Value], variables: Mapping[str, str]) -> list[Value]:
    """The outputs of a converter that was given wider inputs, in the types that the standard says they have."""
    if not variables:
        return list(outputs)
    schema = onnx.defs.get_schema(node.op, node.opset, "")
    kinds = [variables.get(variable(schema.outputs, index)) for index in range(len(outputs))]
    return [
        node.value(convert(node, value, kind), value.name) if kind is not None and value.element == "float32" else value
        for value, kind in zip(outputs, kinds, strict=True)
    ]


def _wide(node: Node, value: Value | None) -> Value | None:
    if value is None or value.element not in HALVES:
        return value
    if value.constant is not None and value.constant.size == 1:
        return node.value(value.constant.astype("float32"), value.name)
    return node.value(convert(node, value, "float32"), value.name)
