"""Dimensions of the inputs that are 0 when the model runs: what onnxruntime makes, or one line that says why not."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

import dscc
from dscc.errors import InputError
from dscc.runtime import Module


def both(text: str) -> tuple[Module, onnxruntime.InferenceSession]:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 18]>\n{text}')
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return dscc.compile(model, jobs=1).load(), onnxruntime.InferenceSession(model.SerializeToString(), options)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("rows (float[n, 4] x) => (float[n, 4] y) { t = Transpose(x) p = MatMul(x, t) y = MatMul(p, x) }", [(0, 4)]),
        ("flat (float[n, m, 4] x) => (float[k, 4] y) <int64[2] s = {-1, 4}> { y = Reshape(x, s) }", [(0, 2, 4)]),
        ("best (float[n, 9] x) => (float[n, 3] y, int64[n, 3] i) <int64[1] k = {3}> { y, i = TopK(x, k) }", [(0, 9)]),
        ("last (float[n, m] x) => (float[n, k] y) <int64[2] b = {0, -1}, int64[2] e = {99, 99}> "
         "{ y = Slice(x, b, e) }", [(0, 5), (0, 1)]),
        ("mean (float[n, m] x) => (float[n, k] y) <int64[1] a = {1}> { y = ReduceMean(x, a) }", [(0, 5)]),
        ("few (float[n, m] x) => (float[k, m] y) <int64[1] b = {0}, int64[1] e = {3}> { y = Slice(x, b, e) }",
         [(0, 5), (5, 0)]),
    ],
)  # fmt: skip
def test_without_rows_there_is_nothing(text: str, sizes: list[tuple[int, ...]]) -> None:
    ours, theirs = both(text)
    for size in sizes:
        x = np.zeros(size, np.float32)
        for got, want in zip(ours.run(None, {"x": x}), theirs.run(None, {"x": x}), strict=True):
            assert (got.shape, got.dtype) == (want.shape, want.dtype)


@pytest.mark.parametrize(
    "text",
    [
        # a row of the graph's own is there without any of the input's
        "one (float[n, 4] x) => (float[k, 4] y) <int64[1] a = {1}, float[1, 4] r = {1, 2, 3, 4}, int64[1] far = {99}>"
        " { e = Exp(x) s = Slice(e, a, far) y = Concat<axis = 0>(s, r) }",
        "most (float[n, 4] x) => (float[k] y) <int64[1] a = {1}, float o = {1}>"
        " { s = Shape<end = 1>(x) m = Max(s, a) y = Expand(o, m) }",
        "if (float[n, 4] x) => (float[k] y) <int64[1] a = {0}, int64[1] b = {5}, float o = {1}>"
        " { s = Shape<end = 1>(x) c = Greater(s, a) m = Where(c, s, b) y = Expand(o, m) }",
        "total (float[n, 4] x) => (float[4] y) <int64[1] a = {0}> { y = ReduceSum<keepdims = 0>(x, a) }",
        "two (float[n, 4] x) => (float[n, 4] y, float[4] z) <int64[1] a = {0}>"
        " { y = Exp(x) z = ReduceSum<keepdims = 0>(x, a) }",
    ],
)
def test_what_makes_something_of_no_rows_is_refused(text: str) -> None:
    """Shapes were computed for one row or more, and a kernel would read what is not there."""
    ours, theirs = both(text)
    assert any(array.size for array in theirs.run(None, {"x": np.zeros((0, 4), np.float32)}))
    ours.run(None, {"x": np.ones((3, 4), np.float32)})
    with pytest.raises(InputError, match=r"got \(0, 4\): dimension 0 \('n'\) must be at least 1"):
        ours.run(None, {"x": np.zeros((0, 4), np.float32)})


def test_an_output_that_is_empty_can_be_asked_for_alone() -> None:
    ours, _ = both(
        "f (float[n, 4] x) => (float[n, 4] y, float[4] z) <int64[1] a = {0}>"
        " { y = Exp(x) z = ReduceSum<keepdims = 0>(x, a) }"
    )
    assert ours.run(["y"], {"x": np.zeros((0, 4), np.float32)})[0].shape == (0, 4)


def test_the_other_inputs_are_still_looked_at() -> None:
    ours, _ = both("f (float[n, 4] x, float[n, 4] z) => (float[n, 4] y) { y = Add(x, z) }")
    nothing = np.zeros((0, 4), np.float32)
    assert ours(nothing, nothing)[0].shape == (0, 4)
    with pytest.raises(InputError, match="dimension 0 must be 0, as 'n' is in input 'x'"):
        ours(nothing, np.zeros((2, 4), np.float32))
    with pytest.raises(InputError, match="dimension 1 must be 4"):
        ours(nothing, nothing[:, :3])
