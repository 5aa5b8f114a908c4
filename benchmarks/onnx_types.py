"""Every operator in every type that its schema allows, against onnx's reference evaluator.

    python -m benchmarks.onnx_types --types float16,int8 --operators Mod,TopK

Small nodes, many to a model, so that one compilation tests many. float16 and bfloat16 are compared with the evaluator's
result in float32: its own sums in them are less exact than ours.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import dscc
from benchmarks.typed_nodes import CASES, Array, Case, inputs

TYPES = "float32 float64 float16 bfloat16 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool".split()
TOLERANCES = {"float64": 1e-6, "float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}
"""Relative to the largest element of the output."""


@dataclass
class Batch:
    """One model of many nodes in one type: outputs `c0_0`, `c0_1`, `c1_0`, ... of the cases, and its inputs."""

    kind: str
    cases: Sequence[Case]
    proto: onnx.ModelProto
    feeds: dict[str, Array]

    def part(self, index: int) -> tuple[onnx.ModelProto, dict[str, Array]]:
        """The model of one case alone, with its inputs."""
        node = self.proto.graph.node[index]
        copy = onnx.ModelProto()
        copy.CopyFrom(self.proto)
        graph = copy.graph
        keep = {
            "node": [node],
            "input": [info for info in self.proto.graph.input if info.name in node.input],
            "output": [info for info in self.proto.graph.output if info.name in node.output],
            "initializer": [tensor for tensor in self.proto.graph.initializer if tensor.name in node.input],
        }
        for name, items in keep.items():
            del getattr(graph, name)[:]
            getattr(graph, name).extend(items)
        return copy, {name: value for name, value in self.feeds.items() if name in node.input}


def batch(cases: Sequence[Case], kind: str, seed: int) -> Batch:
    """All the cases in type `kind`, which they have to take."""
    rng = np.random.default_rng(seed)
    nodes, weights, infos, outputs, feeds = [], [], [], [], {}
    for index, case in enumerate(cases):
        names = []
        for at, (value, constant) in enumerate(inputs(case, kind, rng)):
            name = "" if value is None else f"c{index}_in{at}"
            names.append(name)
            if value is None:
                continue
            if constant:
                weights.append(onnx.numpy_helper.from_array(value, name))
            else:
                feeds[name] = value
                code = helper.np_dtype_to_tensor_dtype(value.dtype)
                infos.append(helper.make_tensor_value_info(name, code, value.shape))
        made = [f"c{index}_{out}" for out in range(case.outputs)]
        nodes.append(helper.make_node(case.op, names, made, **case.attributes))
        outputs += [helper.make_empty_tensor_value_info(name) for name in made]
    graph = helper.make_graph(nodes, "types", infos, outputs, weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", onnx.defs.onnx_opset_version())])
    return Batch(kind, cases, onnx.shape_inference.infer_shapes(proto), feeds)


def _widened(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The same model with float32 in the place of float16 and bfloat16."""
    for info in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        if info.type.tensor_type.elem_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
            info.type.tensor_type.elem_type = TensorProto.FLOAT
    halves = ("float16", "bfloat16")
    return proto, {k: v.astype(np.float32) if v.dtype.name in halves else v for k, v in feeds.items()}


def differences(test: Batch) -> Iterator[str]:
    """Compiles and runs a batch; one line for every output that is not the reference's.

    Raises:
        DsccError: it cannot be compiled.
    """
    module = dscc.compile(test.proto).load()
    got = dict(zip([output.name for output in module.get_outputs()], module.run(None, test.feeds), strict=True))
    declared: dict[str, np.dtype[Any]] = {
        info.name: helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        for info in test.proto.graph.output
        if info.type.tensor_type.elem_type  # inference does not know all
    }
    for index, case in enumerate(test.cases):
        proto, feeds = test.part(index)
        if test.kind in ("float16", "bfloat16"):
            proto, feeds = _widened(proto, feeds)
        with np.errstate(all="ignore"):
            wanted = ReferenceEvaluator(proto).run(None, feeds)
        for name, want in zip(test.proto.graph.node[index].output, wanted, strict=True):
            if wrong := _wrong(got[name], np.asarray(want), declared[name] if name in declared else got[name].dtype):
                yield f"{case.op}({case.inputs}) {dict(case.attributes)} in {test.kind}: {wrong}"


def _wrong(got: Array, want: Array, declared: np.dtype[Any]) -> str:
    if want.dtype != got.dtype and declared == got.dtype:  # the evaluator sums int32 in int64, and stays there
        want = want.astype(declared)
    if got.shape != want.shape or got.dtype != want.dtype:
        return f"{got.dtype}{got.shape}, expected {want.dtype}{want.shape}"
    if want.dtype.name not in TOLERANCES:
        bad = got != want
    else:
        a, b = got.astype(np.float64), want.astype(np.float64)
        finite = np.isfinite(b)
        largest = np.abs(b[finite]).max(initial=1e-3)
        with np.errstate(invalid="ignore"):
            near = np.abs(a - b) <= TOLERANCES[want.dtype.name] * largest
        bad = ~np.where(finite, near, (a == b) | (np.isnan(a) & np.isnan(b)))
    at = np.flatnonzero(bad)[:3]
    return f"{got.ravel()[at]}, expected {want.ravel()[at]}" if at.size else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", default=",".join(TYPES), help="element types, separated by commas")
    parser.add_argument("--operators", help="operators, separated by commas; all when left out")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    wanted = arguments.operators.split(",") if arguments.operators else None
    tried = failed = 0
    for kind in arguments.types.split(","):
        cases = [case for case in CASES if case.takes(kind) and (wanted is None or case.op in wanted)]
        tried += len(cases)
        for line in _report(cases, kind, arguments.seed):
            failed += 1
            print(line, flush=True)
    print(f"{tried} pairs of an operator and a type, {failed} wrong")
    return int(failed > 0)


def _report(cases: Sequence[Case], kind: str, seed: int) -> Iterator[str]:
    """What is wrong, with those that cannot be compiled found by halving."""
    if not cases:
        return
    try:
        yield from differences(batch(cases, kind, seed))
    except Exception as err:  # noqa: BLE001  TVM raises anything; the case is named, and the others go on
        if len(cases) == 1:
            said = (str(err).strip().splitlines() or [type(err).__name__])[0]
            yield f"{cases[0].op}({cases[0].inputs}) {dict(cases[0].attributes)} in {kind}: {said[:160]}"
            return
        middle = len(cases) // 2
        yield from _report(cases[:middle], kind, seed)
        yield from _report(cases[middle:], kind, seed)


if __name__ == "__main__":
    raise SystemExit(main())
