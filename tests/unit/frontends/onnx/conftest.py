"""What the tests of the ONNX front end share: small models, and a comparison with onnx's reference evaluator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import tvm
from onnx import helper
from onnx.reference import ReferenceEvaluator
from tvm import relax

import dscc
from dscc.frontends.onnx.frontend import OnnxFrontend
from dscc.options import CompileOptions

Feeds = Mapping[str, np.ndarray[Any, Any]]
_CODES = {
    "f": onnx.TensorProto.FLOAT,
    "i": onnx.TensorProto.INT64,
    "b": onnx.TensorProto.BOOL,
    "u8": onnx.TensorProto.UINT8,
}


def build(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[str, Sequence[int | str] | None]],
    weights: Feeds | None = None,
    opset: int = 20,
    outputs: Sequence[str] | None = None,
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """A model of `nodes`; inputs are given as {name: ("f", (1, "n"))}; the last node's outputs are the model's."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, _CODES[kind], shape) for name, (kind, shape) in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs or [o for o in nodes[-1].output if o]],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(f.domain, 1) for f in functions)]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions))


def load(model: Any, **shapes: tuple[int | str, ...]) -> tvm.IRModule:
    return OnnxFrontend().load(model, CompileOptions(input_shapes=shapes, fallback=False))


def executable(module: tvm.IRModule) -> Callable[..., list[Any]]:
    """main, compiled by TVM's own pipeline: the front end is tested without dscc's passes and schedules."""
    target = tvm.target.Target({"kind": "llvm", "opt-level": 1})
    main = relax.VirtualMachine(tvm.compile(module, target=target), tvm.cpu())["main"]
    names = [str(name) for name in module["main"].attrs["dscc.inputs"]]

    def run(feeds: Feeds) -> list[Any]:
        return [out.numpy() for out in main(*[tvm.runtime.tensor(np.ascontiguousarray(feeds[n])) for n in names])]

    return run


@pytest.fixture
def agree() -> Callable[..., tvm.IRModule]:
    """Check a model against onnx's reference evaluator for each of several feeds, from one compilation."""

    def check(model: onnx.ModelProto, *feeds: Feeds, tolerance: float = 1e-5) -> tvm.IRModule:
        module = load(model)
        relax.analysis.well_formed(module)
        run = executable(module)
        for feed in feeds:
            for got, want in zip(run(feed), ReferenceEvaluator(model).run(None, dict(feed)), strict=True):
                assert got.dtype == np.asarray(want).dtype
                assert got.shape == np.shape(want)
                np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
        return module

    return check


def noise(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def operators(module: tvm.IRModule) -> list[str]:
    """The names of the operators that main calls, in order."""
    names: list[str] = []
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            if isinstance(binding, relax.MatchCast):
                names.append("match_cast")
            elif isinstance(binding.value, relax.Call):
                names.append(binding.value.op.name.removeprefix("relax."))
    return names


def written(shape: Any) -> list[str]:
    """A shape's dimensions as one would write them."""
    return [
        str(dim).replace("T.int64(", "").replace(")", "") if "T.int64" in str(dim) else str(dim) for dim in shape.values
    ]


@pytest.fixture
def same() -> Callable[..., list[list[np.ndarray[Any, Any]]]]:
    """Check a model, compiled by dscc as its users do, against onnx's reference evaluator or given outputs."""

    def check(
        model: onnx.ModelProto, *feeds: Feeds, tolerance: float = 1e-5, want: Callable[..., Any] | None = None
    ) -> list[list[np.ndarray[Any, Any]]]:
        module = dscc.compile(model).load()
        found = []
        for feed in feeds:
            found.append(module.run(None, dict(feed)))
            expected = want(**feed) if want else ReferenceEvaluator(model).run(None, dict(feed))
            for got, each in zip(found[-1], expected, strict=True):
                assert got.dtype == np.asarray(each).dtype
                assert got.shape == np.shape(each)
                np.testing.assert_allclose(got, each, rtol=tolerance, atol=tolerance)
        return found

    return check
