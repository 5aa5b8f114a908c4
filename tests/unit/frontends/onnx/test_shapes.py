"""Shapes that the graph computes become Relax shapes; what cannot be proved is checked when the model runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import helper
from tvm import tirx

from dscc.errors import UnsupportedError
from dscc.frontends.onnx.shapes import Dims
from dscc.passes.values import at_sizes

from .conftest import build, executable, load, noise, operators, written

N = helper.make_node


def _output(module: Any) -> list[str]:
    return written(module["main"].ret_ty.fields[0].shape)


def test_reshape_by_computed_shape() -> None:
    """x.view(x.shape[0], x.shape[1] * x.shape[2] // 2, 2 heads), as exporters write it."""
    nodes = [
        N("Shape", ["x"], ["s"]),
        N("Gather", ["s", "i0"], ["b"]),
        N("Slice", ["s", "i1v", "i3v"], ["hw"]),
        N("ReduceProd", ["hw"], ["area"], keepdims=1),
        N("Div", ["area", "two"], ["half"]),
        N("Unsqueeze", ["b", "i0v"], ["bv"]),
        N("Concat", ["bv", "half", "two"], ["t"], axis=0),
        N("Reshape", ["x", "t"], ["y"]),
    ]
    weights = {"i0": 0, "i0v": [0], "i1v": [1], "i3v": [3], "two": [2]}
    module = load(build(nodes, {"x": ("f", ("n", "s", 4))}, {k: np.array(v) for k, v in weights.items()}))
    assert operators(module) == ["reshape"]
    assert _output(module) == ["n", "s * 2", "2"]


def test_shapes_through_floats() -> None:
    """int(floor(h * 0.5)) * 2, as Resize's sizes are often computed."""
    nodes = [
        N("Shape", ["x"], ["s"]),
        N("Cast", ["s"], ["f"], to=1),
        N("Mul", ["f", "half"], ["m"]),
        N("Floor", ["m"], ["fl"]),
        N("Cast", ["fl"], ["c"], to=7),
        N("ConstantOfShape", ["c"], ["y"]),
    ]
    module = load(build(nodes, {"x": ("f", ("h",))}, {"half": np.float32([0.5])}))
    assert _output(module) == ["h // 2"]


def test_expand_by_where(agree: Callable[..., Any]) -> None:
    """torch's expand(-1, 4): where(shape == -1, 1, shape)."""
    nodes = [
        N("Shape", ["x"], ["s"]),
        N("Gather", ["s", "i0"], ["b"]),
        N("Concat", ["b", "four"], ["t"], axis=0),
        N("Equal", ["t", "minus"], ["e"]),
        N("Where", ["e", "one", "t"], ["w"]),
        N("Expand", ["x", "w"], ["y"]),
    ]
    weights = {"i0": np.array([0]), "four": np.array([4]), "minus": np.array([-1]), "one": np.array([1])}
    model = build(nodes, {"x": ("f", ("n", 1))}, weights)
    assert _output(agree(model, {"x": noise(2, 1)}, {"x": noise(5, 1)})) == ["n", "4"]


def test_a_shape_is_a_tensor_where_it_is_used_as_one(agree: Callable[..., Any]) -> None:
    nodes = [N("Shape", ["x"], ["s"]), N("Cast", ["s"], ["f"], to=1), N("Div", ["x", "f"], ["y"])]
    agree(build(nodes, {"x": ("f", ("n", 2))}), {"x": noise(2, 2)}, {"x": noise(3, 2)})


def test_slices_are_clamped(agree: Callable[..., Any]) -> None:
    weights = {"start": np.array([-3]), "end": np.array([100]), "axis": np.array([1])}
    model = build([N("Slice", ["x", "start", "end", "axis"], ["y"])], {"x": ("f", (2, "n"))}, weights)
    agree(model, {"x": noise(2, 2)}, {"x": noise(2, 7)})


def test_slices_to_the_end_of_a_difference_of_sizes(agree: Callable[..., Any]) -> None:
    """The end that means all of it leaves the range of int64 when a number is added."""
    weights = {"two": np.array([2]), "end": np.array([2**63 - 1]), "zero": np.array([0])}
    nodes = [
        N("AveragePool", ["x"], ["w"], kernel_shape=[5]),
        N("Shape", ["w"], ["size"], start=2),
        N("Sub", ["size", "two"], ["from"]),
        N("Slice", ["w", "from", "end", "two"], ["y"]),
    ]
    agree(build(nodes, {"x": ("f", (1, 2, "n"))}, weights), {"x": noise(1, 2, 5)}, {"x": noise(1, 2, 9)})


def test_slice_by_computed_bounds(agree: Callable[..., Any]) -> None:
    model = build(
        [N("Slice", ["x", "start", "end"], ["y"])], {"x": ("f", ("n",)), "start": ("i", (1,)), "end": ("i", (1,))}
    )
    feeds = [
        {"x": noise(9), "start": np.array([a]), "end": np.array([b])} for a, b in ((1, 5), (-4, -1), (3, 100), (5, 2))
    ]
    agree(model, *feeds)


def test_reshape_by_a_tensor(agree: Callable[..., Any]) -> None:
    model = build([N("Reshape", ["x", "t"], ["y"])], {"x": ("f", ("n", 4)), "t": ("i", (2,))})
    agree(model, *({"x": noise(6, 4), "t": np.array(t)} for t in ((3, 8), (-1, 2), (0, -1))))


def test_reshape_checks_the_number_of_elements() -> None:
    model = build([N("Reshape", ["x", "t"], ["y"])], {"x": ("f", ("n",))}, {"t": np.array([-1, 4])})
    run = executable(load(model))
    assert run({"x": noise(8)})[0].shape == (2, 4)
    with pytest.raises(RuntimeError, match="mismatch"):
        run({"x": noise(9)})


def test_reshape_by_a_tensor_checks_the_number_of_elements() -> None:
    run = executable(load(build([N("Reshape", ["x", "t"], ["y"])], {"x": ("f", ("n",)), "t": ("i", (2,))})))
    with pytest.raises(RuntimeError, match="mismatch"):
        run({"x": noise(9), "t": np.array([2, 4])})


def test_groups_of_an_open_number_of_outputs(agree: Callable[..., Any]) -> None:
    """A kernel divides by how many a group has: less than one ended the process."""
    model = build([N("Conv", ["x", "w"], ["y"], group=4)], {"x": ("f", (2, 4, 8)), "w": ("f", ("n", 1, 4))})
    agree(model, *({"x": noise(2, 4, 8), "w": noise(n, 1, 4)} for n in (4, 12)))
    run = executable(load(model))
    for count in (1, 3, 6):
        with pytest.raises(RuntimeError, match="mismatch"):
            run({"x": noise(2, 4, 8), "w": noise(count, 1, 4)})


@pytest.mark.parametrize("weight", [("c", 3, 4), (4, "k", 4)])
def test_channels_of_a_transposed_convolution_must_be_known(weight: tuple[int | str, ...]) -> None:
    model = build([N("ConvTranspose", ["x", "w"], ["y"])], {"x": ("f", (2, weight[0], 8)), "w": ("f", weight)})
    with pytest.raises(UnsupportedError, match="its channels must be known"):
        load(model)


def test_residual_around_a_stride() -> None:
    """(n + 1) // 2 * 2 meets n: they agree where n is even, and the rest is an error when the model runs."""
    nodes = [
        N("MaxPool", ["x"], ["p"], kernel_shape=[2], strides=[2], pads=[0, 1]),
        N("Concat", ["p", "p"], ["c"], axis=2),
        N("Add", ["x", "c"], ["y"]),
    ]
    run = executable(load(build(nodes, {"x": ("f", (1, 1, "n"))})))
    assert run({"x": noise(1, 1, 6)})[0].shape == (1, 1, 6)
    with pytest.raises(RuntimeError, match="mismatch"):
        run({"x": noise(1, 1, 7)})


def test_two_unrelated_symbols_broadcast(agree: Callable[..., Any]) -> None:
    model = build([N("Add", ["a", "b"], ["y"])], {"a": ("f", ("n", 3)), "b": ("f", ("m", 3))})
    run_shapes = [(2, 2), (1, 4), (4, 1), (1, 1)]
    agree(model, *({"a": noise(n, 3), "b": noise(m, 3)} for n, m in run_shapes))
    with pytest.raises(RuntimeError, match="mismatch"):
        executable(load(model))({"a": noise(2, 3), "b": noise(3, 3)})


def test_the_first_element_of_a_computed_axis_broadcasts(agree: Callable[..., Any]) -> None:
    """x / x[-1:] over an axis that a stride has made n // 8, as positions are scaled: it was checked to be n // 8."""
    nodes = [
        N("MaxPool", ["x"], ["q"], kernel_shape=[4], strides=[4]),
        N("MaxPool", ["q"], ["p"], kernel_shape=[2], strides=[2]),
        N("Slice", ["p", "last", "large", "axis"], ["s"]),
        N("Add", ["p", "s"], ["y"]),
    ]
    constants = {"last": np.array([-1]), "large": np.array([2**62]), "axis": np.array([2])}
    model = build(nodes, {"x": ("f", (1, 2, "n"))}, constants)
    assert _output(load(model)) == ["1", "2", "n // 8"]
    agree(model, *({"x": noise(1, 2, n)} for n in (8, 16, 31)))


def test_a_symbol_broadcasts_to_a_number(agree: Callable[..., Any]) -> None:
    model = build([N("Mul", ["a", "w"], ["y"])], {"a": ("f", ("n", 2))}, {"w": noise(4, 1)})
    agree(model, {"a": noise(4, 2)}, {"a": noise(1, 2)})
    with pytest.raises(RuntimeError, match="mismatch"):
        executable(load(model))({"a": noise(3, 2)})


def test_a_name_used_twice_is_one_dimension() -> None:
    model = build([N("Concat", ["a", "b"], ["y"], axis=1)], {"a": ("f", ("n", 2)), "b": ("f", ("n", 3))})
    assert operators(load(model)) == ["concat"]
    with pytest.raises(RuntimeError):
        executable(load(model))({"a": noise(2, 2), "b": noise(3, 3)})


def test_range_over_a_symbol(agree: Callable[..., Any]) -> None:
    nodes = [
        N("Shape", ["x"], ["s"], start=0, end=1),
        N("Squeeze", ["s"], ["n"]),
        N("Range", ["one", "n", "two"], ["y"]),
    ]
    model = build(nodes, {"x": ("f", ("n",))}, {"one": np.array(1), "two": np.array(2)})
    agree(model, *({"x": noise(n)} for n in (1, 2, 7, 8)))


def test_a_check_of_windows_is_known_afterwards() -> None:
    """Slices of a convolution's output need no maximum with 0: that a window fits is checked before."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[4]),
        helper.make_node("Slice", ["c", "zero", "large", "two"], ["y"]),
    ]
    weights = {
        "w": np.ones((3, 2, 9), np.float32),
        "zero": np.array([0]),
        "large": np.array([2**63 - 1]),
        "two": np.array([2]),
    }
    module = load(build(nodes, {"x": ("f", ("b", 2, "n"))}, weights))
    length = module["main"].ret_ty.fields[0].shape.values[2]
    assert "max" not in str(length)


def test_sizes_that_are_filled_up_again_and_again_stay_short() -> None:
    """As windows of attention are, stage after stage: each doubled the length of the expression."""
    dims = Dims()
    height = size = dims.symbol("height")
    for window in (4, 2, 2, 2, 7):
        filled = dims.simplify(size + dims.simplify((window - size % window) % window))
        size = dims.simplify((filled - window) // window + 1)
    assert len(str(size)) < 200
    for number in range(1, 500, 7):
        want = number
        for window in (4, 2, 2, 2, 7):
            want = -(-want // window)
        assert at_sizes(size, {height: number}, 0) == want


def test_a_division_is_rounded_down_once_nothing_is_negative() -> None:
    dims = Dims()
    samples = dims.symbol("samples")
    steps = tirx.truncdiv(samples - 127, tirx.IntImm("int64", 384))
    assert not dims.equal(dims.simplify(steps), (samples - 127) // 384)
    dims.learn(samples, 127)
    assert dims.equal(dims.simplify(steps), (samples - 127) // 384)


def test_what_is_learned_in_a_region_holds_there() -> None:
    dims = Dims()
    n = dims.symbol("n")
    with dims.aside():
        dims.learn(n + 3, 10)
        assert dims.at_least(n, 7)
        assert not dims.at_least(n, 8)
    assert not dims.at_least(n, 2)
    dims.learn(n * 2, 10)  # of such a sum nothing is learned
    assert dims.at_least(n, 1)


@pytest.mark.parametrize("value", [-np.inf, np.nan])
def test_a_tensor_of_an_infinite_number(agree: Callable[..., Any], value: float) -> None:
    """TVM's own definition of it fails with a TypeError."""
    like = helper.make_tensor("value", 1, [1], [value])
    nodes = [N("Shape", ["x"], ["s"]), N("ConstantOfShape", ["s"], ["y"], value=like)]
    agree(build(nodes, {"x": ("f", ("n", 3))}), {"x": noise(2, 3)})
