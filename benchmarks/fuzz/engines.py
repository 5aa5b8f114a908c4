"""What computes nodes other than dscc: onnx's reference evaluator, and onnxruntime."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from dscc.evaluator import default_opset, misread

Array = np.ndarray[Any, Any]
Imports = Sequence[onnx.OperatorSetIdProto]


_SUMS = frozenset(
    {
        *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceSum", "ReduceSumSquare"),
        *("CumSum", "GlobalAveragePool"),
    }
)


class Refused(Exception):
    """The engine does not take the nodes, or not these operands."""


class Optional(OpRun):
    """As the standard says: ONNX 1.23's makes a list of a tensor, which OptionalGetElement then gives."""

    def _run(self, x: Any = None, type: Any = None) -> tuple[Any]:
        return (x,)


class LogSoftmax(OpRun):
    """Without loss: ONNX 1.23 takes the logarithm of Softmax, of which little is left near e^-100."""

    def _run(self, x: Array, axis: int = -1) -> tuple[Array]:
        if x.size == 0:
            return (x,)
        shifted = x - x.max(axis=axis, keepdims=True)
        return ((shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))).astype(x.dtype),)


class Erf(OpRun):
    """In the type of its input: ONNX 1.23's is float32 for doubles too."""

    def _run(self, x: Array) -> tuple[Array]:
        return (np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype),)


class QuickGelu(OpRun):
    """Without loss: onnxruntime 1.32's sigmoid is 0 below -18, and the evaluator has none."""

    op_domain = "com.microsoft"

    def _run(self, x: Array, alpha: float | None = None) -> tuple[Array]:
        scale = getattr(self, "alpha", 1.702) if alpha is None else alpha
        return ((x / (1 + np.exp(-scale * x.astype(np.float64)))).astype(x.dtype),)


_OWN = [Optional, LogSoftmax, Erf, QuickGelu]


def by_evaluator(
    nodes: Sequence[onnx.NodeProto], imports: Imports, runs: Sequence[Mapping[str, Any]], made: Sequence[str]
) -> list[list[Any]]:
    """The values `made` of every run, by onnx's evaluator. Lists stand for sequences.

    Raises:
        Refused: it raised something, or computes something else than the standard says.
    """
    opset = default_opset(imports)
    for node in nodes:
        if wrong := misread(node, opset):
            raise Refused(f"{node.op_type}: the evaluator of ONNX 1.23 {wrong}")
        if _is_narrow(runs[0]) and any(each.op_type in _SUMS for each in _inside(node)):
            raise Refused(f"{node.op_type}: NumPy adds up bfloat16 in bfloat16")
    function = helper.make_function("fuzz", "f", list(runs[0]), list(made), list(nodes), list(imports))
    try:
        with np.errstate(all="ignore"):
            evaluator = ReferenceEvaluator(function, new_ops=_OWN)
            if all(node.op_type in _SUMS for node in nodes):
                return [_in_float32(evaluator, feeds) for feeds in runs]
            return [list(evaluator.run(None, dict(feeds), attributes={})) for feeds in runs]
    except Exception as err:  # it raises anything for operands that do not fit, and for what it lacks
        raise Refused(f"{nodes[-1].op_type}: {err}") from err


def _inside(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """The nodes of the graphs of a control operator, and of those in them."""
    for attribute in node.attribute:
        for each in attribute.g.node:
            yield each
            yield from _inside(each)


def _is_narrow(feeds: Mapping[str, Any]) -> bool:
    return any(getattr(value, "dtype", None) == ml_dtypes.bfloat16 for value in feeds.values())


def _in_float32(evaluator: ReferenceEvaluator, feeds: Mapping[str, Any]) -> list[Any]:
    """What it makes of feeds in bfloat16 as float32, and rounded: NumPy adds up bfloat16 in bfloat16, in which a sum of
    8,416 numbers near 0.8 ends at 1,024.
    """
    narrow = [value.dtype for value in feeds.values() if getattr(value, "dtype", None) == ml_dtypes.bfloat16]
    if not narrow:
        return list(evaluator.run(None, dict(feeds), attributes={}))
    wide = {name: value.astype(np.float32) if value.dtype in narrow else value for name, value in feeds.items()}
    results = [np.asarray(result) for result in evaluator.run(None, wide, attributes={})]
    return [result.astype(narrow[0]) if result.dtype == np.float32 else result for result in results]


def by_runtime(
    nodes: Sequence[onnx.NodeProto], imports: Imports, runs: Sequence[Mapping[str, Any]], made: Sequence[str]
) -> list[list[Any]]:
    """The values `made` of every run, by onnxruntime without its optimizations.

    Raises:
        Refused: it raised something.
    """
    feeds = runs[0]
    if any(isinstance(value, list) for each in runs for value in each.values()):
        raise Refused("sequences are given")
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), [None] * value.ndim)
        for name, value in feeds.items()
    ]
    graph = helper.make_graph(list(nodes), "nodes", inputs, [helper.make_empty_tensor_value_info(n) for n in made])
    return run_model(helper.make_model(graph, opset_imports=list(imports), ir_version=10), runs, made, optimize=False)


def run_model(
    model: onnx.ModelProto, runs: Sequence[Mapping[str, Array]], names: Sequence[str], optimize: bool
) -> list[list[Any]]:
    """The outputs `names` of every run of a model, by onnxruntime.

    Raises:
        Refused: it raised something.
    """
    import onnxruntime

    if any(node.op_type == "MeanVarianceNormalization" for node in model.graph.node):
        raise Refused("onnxruntime 1.31 divides by a deviation of 0, to which the standard adds 1e-9")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        results = [session.run(list(names), dict(feeds)) for feeds in runs]
    except Exception as err:  # its exceptions have no common base
        raise Refused(str(err)) from err
    if any(value is None for result in results for value in result):
        raise Refused("onnxruntime gave no value for an output")
    return results
