"""Reductions and products over nothing: sizes of 0 that are known while compiling."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import dscc
from dscc.errors import InputError

REDUCTIONS = ("Max", "Min", "Sum", "Prod", "Mean", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")


def check(body: str, shape: str, result: str, feed: np.ndarray) -> None:
    text = f"f (float[{shape}] x) => (float[{result}] y) <int64[1] a = {{1}}> {{ {body} }}"
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 22]> {text}')
    [found] = dscc.compile(model, jobs=1).load().run(None, {"x": feed})
    with np.errstate(all="ignore"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *args, **kwargs: None)  # NumPy's, about the mean of nothing
        [want] = ReferenceEvaluator(model).run(None, {"x": feed})
    np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("kind", REDUCTIONS)
def test_a_reduction_of_nothing(kind: str) -> None:
    check(f"y = Reduce{kind}(x, a)", "2,0,4", "2,1,4", np.zeros((2, 0, 4), np.float32))


@pytest.mark.parametrize("behind", ["y = Identity(p)", "q = Add(p, p) y = Exp(q)"])
def test_a_product_over_nothing(behind: str) -> None:
    check(f"t = Transpose(x) p = MatMul(t, x) {behind}", "0,3", "3,3", np.zeros((0, 3), np.float32))


def test_a_softmax_of_nothing_is_nothing() -> None:
    check("y = Softmax<axis = 1>(x)", "2,0,4", "2,0,4", np.zeros((2, 0, 4), np.float32))


def test_a_sum_that_is_no_number_is_not_taken_for_a_mean() -> None:
    """sum(x) * (1 / n) is the mean; sum(x) * nan is not."""
    body = "n = Constant<value_float = nan>() s = ReduceSum(x, a) y = Mul(s, n)"
    check(body, "2,3", "2,1", np.ones((2, 3), np.float32))


@pytest.mark.parametrize("indices", ["i = Constant<value_ints = [0, 3]>()", "i = Cast<to = 7>(z)"])
def test_an_index_into_nothing_is_refused(indices: str) -> None:
    """It was taken modulo 0, which ended the process."""
    text = f"""f (float[n] x, float[k] z) => (float[2] y) <int64[1] one = {{1}}, int64[1] most = {{99}}> {{
        s = Slice(x, one, most) {indices} y = Gather(s, i) }}"""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {text}')
    module = dscc.compile(model, jobs=1).load()
    places = np.array([0, 3], np.float32)
    np.testing.assert_array_equal(module.run(None, {"x": np.arange(6, dtype=np.float32), "z": places})[0], [1, 4])
    with pytest.raises(InputError, match="cannot run on inputs 'x' \\(1,\\)"):
        module.run(None, {"x": np.ones(1, np.float32), "z": places})
