"""Reductions and products over nothing: sizes of 0 that are known while compiling."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import dscc
from dscc.errors import FrontendError, InputError

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


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_a_convolution_over_no_channels(op: str) -> None:
    """It is the bias alone; the evaluator divides by the channels."""
    weight = "8, 0, 2" if op == "Conv" else "0, 8, 2"
    text = f"f (float[n, 0, 5] x, float[{weight}] w, float[8] b) => (float[n, 8, k] y) {{ y = {op}(x, w, b) }}"
    module = dscc.compile(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 22]> {text}'), jobs=1).load()
    sizes, bias = [int(size) for size in weight.split(",")], np.arange(8, dtype=np.float32)
    nothing = np.zeros((3, 0, 5), np.float32)
    [found] = module.run(None, {"x": nothing, "w": np.zeros(sizes, np.float32), "b": bias})
    np.testing.assert_array_equal(found, np.broadcast_to(bias[:, None], (3, 8, 4 if op == "Conv" else 6)))


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


@pytest.mark.parametrize("mode", ["edge", "wrap", "reflect"])
def test_padding_from_nothing_is_refused(mode: str) -> None:
    """In mode "wrap", the place was taken modulo 0, which ended the process."""
    text = f"""f (float[n] x) => (float[m] y) <int64[1] one = {{1}}, int64[1] most = {{99}}, int64[2] by = {{0, 1}}> {{
        s = Slice(x, one, most) y = Pad<mode = "{mode}">(s, by) }}"""
    module = dscc.compile(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {text}'), jobs=1).load()
    assert module.run(None, {"x": np.arange(5, dtype=np.float32)})[0].shape == (5,)
    with pytest.raises(InputError, match="cannot run on inputs 'x' \\(1,\\)"):
        module.run(None, {"x": np.ones(1, np.float32)})
    nothing = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["": 20]> f (float[2, 0] x) => (float[2, m] y)
        <int64[4] by = {{0, 1, 0, 1}}> {{ y = Pad<mode = "{mode}">(x, by) }}""")
    with pytest.raises(FrontendError, match=f"mode .{mode}. takes values from, is 0, expected at least 1"):
        dscc.compile(nothing, jobs=1)


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_running_sums_of_nothing(axis: int, exclusive: int) -> None:
    """A first element was written where there is none, over what lay behind."""
    text = f"""f (float[a, 5, c] x, int64[3] to) => (float[d, e, f] y)
        <int64[3] zero = {{0, 0, 0}}, int64 axis = {{{axis}}}> {{
        s = Slice(x, zero, to) y = CumSum<exclusive = {exclusive}>(s, axis) }}"""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {text}')
    module = dscc.compile(model, jobs=1).load()
    x = np.arange(90, dtype=np.float32).reshape(3, 5, 6)
    for to in ((3, 5, 6), (1, 1, 1), (0, 5, 6), (3, 0, 6), (3, 5, 0), (0, 0, 0)):
        part = x[: to[0], : to[1], : to[2]]
        [found] = module.run(None, {"x": x, "to": np.array(to)})
        np.testing.assert_array_equal(found, np.cumsum(part, axis) - part * exclusive)


def test_parts_that_would_be_less_than_nothing_are_refused() -> None:
    """One element in three parts: 1, 1 and -1."""
    text = "f (float[n] x) => (float[k] y) { a, b, y = Split<axis = 0, num_outputs = 3>(x) }"
    module = dscc.compile(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {text}'), jobs=1).load()
    for count, last in ((2, 0), (3, 1), (7, 1), (8, 2)):
        assert module.run(None, {"x": np.ones(count, np.float32)})[0].shape == (last,)
    with pytest.raises(InputError, match="cannot run on inputs 'x' \\(1,\\)"):
        module.run(None, {"x": np.ones(1, np.float32)})


def test_parts_are_checked_before_there_is_room_for_them() -> None:
    """FuseOps of TVM 0.27 put the check behind the kernel, whose result would have had -2 rows."""
    text = """f (float[n, 8] x, float[8, 8] w) => (float[k, 8] y) <int64[1] zero = {0}, int64[1] most = {12}> {
        s = Slice(x, zero, most) a, b = Split<axis = 0, split = [10, 2]>(s) y = MatMul(b, w) }"""
    module = dscc.compile(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 11]> {text}'), jobs=1).load()
    w = np.eye(8, dtype=np.float32)
    np.testing.assert_array_equal(module.run(None, {"x": np.ones((31, 8), np.float32), "w": w})[0], np.ones((2, 8)))
    with pytest.raises(InputError, match="cannot run on inputs 'x' \\(8, 8\\)"):
        module.run(None, {"x": np.ones((8, 8), np.float32), "w": w})


def test_parts_of_an_open_dimension_are_as_long_as_is_written() -> None:
    """Not as long as is left: put together again they did not fit a tensor of the same rows, and nothing compiled."""
    text = """f (float[n, 2, 4] x, float[n, 2, 1] s) => (float[k, 4] y)
        <int64[2] four = {-1, 4}, int64[2] one = {-1, 1}> {
        r = Reshape(x, four) t = Reshape(s, one) a, b, c = Split<axis = 0, split = [2, 3, 1]>(r)
        d = Neg(b) e = Concat<axis = 0>(a, d, c) f, g, h = Split<axis = 0, split = [2, 3, 1]>(e)
        i = Concat<axis = 0>(f, g, h) y = Mul(i, t) }"""
    module = dscc.compile(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 11]> {text}'), jobs=1).load()
    x, sign = np.arange(24, dtype=np.float32).reshape(6, 4), np.array([1, 1, -1, -1, -1, 1], np.float32)[:, None]
    [found] = module.run(None, {"x": x.reshape(3, 2, 4), "s": np.full((3, 2, 1), 2, np.float32)})
    np.testing.assert_array_equal(found, 2 * sign * x)
    for rows in (2, 4):
        with pytest.raises(InputError, match="cannot run on inputs"):
            module.run(None, {"x": np.ones((rows, 2, 4), np.float32), "s": np.ones((rows, 2, 1), np.float32)})


def test_as_many_biases_as_channels_is_checked_when_the_model_runs() -> None:
    """Relax does not add what has 2n channels to what has 4."""
    text = "f (float[2, 1, 9] x, float[4, 1, 3] w, float[k] b) => (float[2, 4, 7] y) { y = Conv(x, w, b) }"
    module = dscc.compile(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 22]> {text}'), jobs=1).load()
    x, w = np.ones((2, 1, 9), np.float32), np.ones((4, 1, 3), np.float32)
    [found] = module.run(None, {"x": x, "w": w, "b": np.arange(4, dtype=np.float32)})
    np.testing.assert_array_equal(found, np.broadcast_to(3 + np.arange(4)[:, None], (2, 4, 7)))
    with pytest.raises(InputError, match="cannot run on inputs"):
        module.run(None, {"x": x, "w": w, "b": np.ones(3, np.float32)})


@pytest.mark.parametrize("index", [-3, 2])
def test_one_index_beyond_an_open_dimension_is_refused_when_the_model_runs(index: int) -> None:
    """What lies before or behind the tensor was read, or the process ended."""
    text = f"f (float[4, n, 8] x) => (float[4, 8] y) <int64 i = {{{index}}}> {{ y = Gather<axis = 1>(x, i) }}"
    module = dscc.compile(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {text}'), jobs=1).load()
    x = np.arange(96, dtype=np.float32).reshape(4, 3, 8)
    np.testing.assert_array_equal(module.run(None, {"x": x})[0], x[:, index])
    with pytest.raises(InputError, match=r"cannot run on inputs 'x' \(4, 2, 8\)"):
        module.run(None, {"x": x[:, :2]})


@pytest.mark.parametrize(
    ("node", "count"),
    [
        ("y = ScatterElements<axis = 1>(x, i, u)", 2),
        ("y = GatherElements<axis = 1>(x, i)", 2),
        ("y = GatherND<batch_dims = 1>(x, i)", 1),
    ],
)
def test_indices_beside_an_open_dimension(node: str, count: int) -> None:
    """There may be no more of them than the data has elements: what lies behind the tensor was read or written."""
    inputs = f"float[n, 4] x, int64[3, {count}] i" + (", float[k, 2] u" if ", u" in node else "")
    result = "float[a]" if "ND" in node else "float[a, b]"
    text = f'<ir_version: 10, opset_import: ["": 20]> f ({inputs}) => ({result} y) {{ {node} }}'
    model = onnx.parser.parse_model(text)
    module = dscc.compile(model, jobs=1).load()
    feeds = {"x": np.arange(12, dtype=np.float32).reshape(3, 4)}
    feeds["i"] = np.array([[3, 0], [1, 2], [0, 2]])[:, :count]
    if ", u" in node:
        feeds["u"] = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    [want] = ReferenceEvaluator(model).run(None, feeds)
    np.testing.assert_array_equal(module.run(None, feeds)[0], want)
    with pytest.raises(InputError, match=r"cannot run on inputs 'x' \(2, 4\)"):
        module.run(None, feeds | {"x": feeds["x"][:2]})
    if ", u" in node:
        with pytest.raises(InputError, match="cannot run on inputs"):
            module.run(None, feeds | {"u": feeds["u"][:2]})
