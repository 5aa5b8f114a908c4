"""The differential fuzzer: a part of its graphs, and that it finds what is wrong, isolates it and makes it small."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper

from benchmarks.fuzz import build, engines, judge
from benchmarks.fuzz.build import Case
from benchmarks.fuzz.families import generators
from benchmarks.fuzz.graph import Graph, Rejected
from benchmarks.fuzz.shrink import shrink
from benchmarks.fuzz.worker import Died, Stalled, Worker
from dscc.errors import InputError
from dscc.runtime import Module

SEED = 2026


@pytest.mark.parametrize("number", range(16))
def test_a_sample_of_its_graphs(number: int) -> None:
    """`make fuzz` is the long run."""
    verdict = judge.judge(build.case(SEED, number), threads=1 + number % 2)
    assert verdict.kind in ("agrees", "refused"), f"{verdict.kind}: {verdict.reason}\n{verdict.detail}"


def test_the_same_numbers_give_the_same_graph() -> None:
    one, other = (build.case(SEED, 3).model.SerializeToString() for _ in range(2))
    assert one == other != build.case(SEED, 4).model.SerializeToString()


@pytest.mark.parametrize(
    "generator", list(generators()), ids=lambda g: f"{g.__module__.rpartition('.')[2]}.{g.__name__}"
)
def test_every_generator_adds_valid_nodes(generator: Callable[[Graph], None]) -> None:
    for attempt in range(60):
        g = Graph(np.random.default_rng(attempt), opset=24)
        build.add_inputs(g)
        build.add_nodes(g)
        before = len(g.nodes)
        try:
            generator(g)
        except Rejected:
            continue
        if len(g.nodes) > before:
            onnx.checker.check_model(g.model([v for v in g.values if not v.users and not v.fixed]))
            return
    pytest.fail("no attempt out of 60 added a node")


def _case(text: str, **feeds: Any) -> Case:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {text}')
    return Case(model, [{name: np.asarray(value) for name, value in feeds.items()}])


def test_an_output_that_is_off_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Module.run
    monkeypatch.setattr(Module, "run", lambda *args: [out + np.float32(0.01) for out in run(*args)])
    case = _case("f (float[n] x) => (float[n] y) { y = Exp(x) }", x=np.linspace(-1, 1, 5, dtype=np.float32))
    verdict = judge.judge(case)
    assert verdict.finding and verdict.kind == "wrong"
    assert verdict.reason.startswith("output 'y' of run 0: 5 of 5 wrong; [0] is 0.37787")


def test_a_rounding_that_tips_over_is_not_wrong() -> None:
    text = "f (float[2] x) => (float[2] y) { a = Exp(x) b = Log(a) y = Floor(b) }"
    assert judge.judge(_case(text, x=np.array([1, 3], np.float32))).kind == "agrees"


def test_what_a_product_was_rounded_by_is_not_wrong() -> None:
    """The logarithm of the softmax of one element is 0; a fused multiply-add leaves the rounding of the product."""
    x = np.linspace(-3, 2, 8, dtype=np.float32)[None]
    case = _case("f (float[n, 8] x, float[1, 8] y) => (float[a, b] z) { p = Mul(x, y) z = LogSoftmax<axis = 0>(p) }",
                 x=x, y=x / 3)  # fmt: skip
    assert judge.judge(case).kind == "agrees"


def test_what_onnxruntime_flushes_is_no_reference() -> None:
    """Its sigmoid is 0 below -18, and no other engine has the operator."""
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20, "com.microsoft": 1]> '
        "f (float[n] x) => (float[n] y) { y = com.microsoft.QuickGelu <alpha = 1.5> (x) }"
    )
    for x in (-14.0, -30.0, 3.0):
        assert judge.judge(Case(model, [{"x": np.array([x], np.float32)}])).kind == "agrees"


def test_a_sum_of_bfloat16_is_right() -> None:
    """NumPy's ends where the next number is too small to count."""
    x = np.full(8416, 0.8, ml_dtypes.bfloat16)
    node, imports = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0), [helper.make_opsetid("", 21)]
    [[total]] = engines.by_evaluator([node], imports, [{"x": x}], ["y"])
    assert total.dtype == x.dtype
    assert abs(float(total) / float(x.astype(np.float64).sum()) - 1) < 2**-8


def test_padding_that_the_evaluator_takes_half_of() -> None:
    """Of a pool of one axis, where it is followed by what onnxruntime does not have."""
    text = "f (double[1, 1, 3] x) => (double[a, b, c] y) { y = MaxPool <kernel_shape = [3], pads = [1, 1]> (x) }"
    case = _case(text, x=np.array([[[3.0, 1.0, 2.0]]]))
    with pytest.raises(engines.Refused, match="half of the padding"):
        engines.by_evaluator(case.model.graph.node, case.model.opset_import, case.feeds, ["y"])
    assert judge.judge(case).kind == "agrees"


@pytest.mark.parametrize(("pads", "trusted"), [([0, 2, 0, 2], False), ([0, 0, 1, 1], False), ([2, 1, 1, 2], True)])
def test_padding_of_images_that_is_not_the_same_around_is_misread(pads: list[int], trusted: bool) -> None:
    """ONNX 1.23's evaluator takes it for (before, after) of one axis after the other."""
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], pads=pads)
    imports, runs = [helper.make_opsetid("", 20)], [{"x": np.zeros((1, 1, 12, 7), np.float32)}]
    if trusted:
        engines.by_evaluator([node], imports, runs, ["y"])
    else:
        with pytest.raises(engines.Refused, match="each axis in turn"):
            engines.by_evaluator([node], imports, runs, ["y"])


def test_a_graph_inside_a_node_gets_what_it_reads() -> None:
    """bfloat16, which onnxruntime takes from nobody, is none of that."""
    case = _case(
        """f (bool d, float[2] x, float[2] z) => (float[2] y) {
            b = Cast <to = 16> (z)
            y = If (d) <
                then_branch = t () => (float[2] u) { u = Exp (x) },
                else_branch = e () => (float[2] v) { v = Neg (x) }
            >
        }"""
    )
    names = {node.op_type: judge._read(node) for node in case.model.graph.node}
    assert names["If"] >= {"d", "x"}
    assert "b" not in names["If"]


def test_an_input_that_is_refused_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object) -> None:
        raise InputError("no")

    monkeypatch.setattr(Module, "run", run)
    verdict = judge.judge(_case("f (float[2] x) => (float[2] y) { y = Neg(x) }", x=np.zeros(2, np.float32)))
    assert verdict.finding and verdict.kind == "rejected"


def test_what_fails_is_made_small() -> None:
    text = """f (float[n, 4] x, float[4] z) => (float[n, 4] y, float[4] w) {
        a = Relu(x) b = Erf(a) c = Neg(b) d = Add(c, z) y = Tanh(d) w = Exp(z) }"""
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.random((n, 4), np.float32), "z": rng.random(4, np.float32)} for n in (2, 3)]
    small = shrink(Case(_case(text).model, feeds), lambda case: any(n.op_type == "Neg" for n in case.model.graph.node))
    assert [node.op_type for node in small.model.graph.node] == ["Neg"]
    assert len(small.feeds) == 1
    assert not any(d.dim_param for d in small.model.graph.input[0].type.tensor_type.shape.dim)
    onnx.checker.check_model(small.model)


def _misbehave(what: str, stage: Callable[[str], None]) -> str:
    stage(what)
    if what == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "hang":
        time.sleep(60)
    if what == "raise":
        raise ValueError("no")
    return what


def test_a_worker_survives_what_it_runs() -> None:
    worker = Worker(_misbehave, limit_s=0.2)
    try:
        assert worker("a") == "a"
        with pytest.raises(Died, match="ended with status -11, in stage 'die'"):
            worker("die")
        with pytest.raises(Stalled, match="in stage 'hang'"):
            worker("hang")
        with pytest.raises(Died, match="in stage 'raise': ValueError: no"):
            worker("raise")
        assert worker("b") == "b"
    finally:
        worker.close()
