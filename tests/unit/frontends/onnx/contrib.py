"""What the tests of the `com.microsoft` domain share: a model of one node, compared with onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper

import dscc

Array = np.ndarray[Any, Any]
Given = Mapping[str, Array | None]


def random(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Array:
    rng = np.random.default_rng([seed, *shape])
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    return rng.standard_normal(shape).astype(dtype)


def model(
    op: str,
    inputs: Given,
    symbols: Mapping[str, Sequence[int | str]] | None = None,
    weights: Sequence[str] = (),
    outputs: Sequence[str] = ("y",),
    domain: str = "com.microsoft",
    typed: Sequence[str] = (),
    **attributes: Any,
) -> onnx.ModelProto:
    """One node with the arrays `inputs` for its inputs, in their order; None is left out. Those named in `weights` are
    initializers; `symbols` are the declared shapes of the others, if not the arrays' own. The outputs in `typed`
    are stated to be float32, where onnxruntime cannot infer it.
    """
    names = [name if value is not None else "" for name, value in inputs.items()]
    while names and not names[-1]:
        names.pop()
    node = helper.make_node(op, names, list(outputs), domain=domain, **attributes)
    present = {name: value for name, value in inputs.items() if value is not None}
    graph = helper.make_graph(
        [node],
        "test",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(value.dtype), (symbols or {}).get(name, value.shape)
            )
            for name, value in present.items()
            if name not in weights
        ],
        [
            helper.make_tensor_value_info(name, 1, None) if name in typed else helper.make_empty_tensor_value_info(name)
            for name in outputs
            if name
        ],
        [onnx.numpy_helper.from_array(present[name], name) for name in weights if name in present],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def reference(made: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """What onnxruntime computes, without fusions of its own."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results: list[Array] = session.run(None, dict(feeds))
    return results


def compare(made: onnx.ModelProto, *feeds: Given, tolerance: float = 1e-5, off: float = 0.0) -> None:
    """Compile once; for each feed the outputs are onnxruntime's, to `tolerance` of the largest. Of whole numbers a
    share of `off` may differ by one, where a rounding is a tie.
    """
    module = dscc.compile(made, jobs=1).load()
    names = [info.name for info in made.graph.input]
    for feed in feeds:
        given = {name: feed[name] for name in names}
        for got, want in zip(module.run(None, given), reference(made, given), strict=True):
            assert (got.dtype, got.shape) == (want.dtype, want.shape)
            same(got, want, tolerance, off)


def same(got: Array, want: Array, tolerance: float, off: float = 0.0) -> None:
    if got.dtype.kind in "iub":
        error = np.abs(got.astype(np.int64) - want.astype(np.int64))
        assert error.max(initial=0) <= (1 if off else 0)
        assert np.mean(error != 0) <= off if error.size else True
        return
    finite = np.isfinite(want.astype(np.float64))
    scale = max(1.0, float(np.abs(want[finite].astype(np.float64)).max(initial=0)))
    np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), rtol=0, atol=tolerance * scale)
