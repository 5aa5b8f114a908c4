"""Axes, and other numbers that steer an operator, that the model computes when it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import helper

from dscc.errors import InputError

from .conftest import build, noise

N = helper.make_node
CUBE = ("f", ("a", 3, "c"))
FEEDS = [noise(2, 3, 4), noise(1, 3, 5)]


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp"])
@pytest.mark.parametrize("keep", [0, 1])
def test_reductions(agree: Callable[..., Any], op: str, keep: int) -> None:
    model = build([N(op, ["x", "axes"], ["y"], keepdims=keep)], {"x": CUBE, "axes": ("i", (2,))})
    agree(model, *({"x": x, "axes": ints(*axes)} for x in FEEDS for axes in ((0, 1), (-1, 0), (2, 1))))


def test_a_reduction_that_keeps_its_rank_broadcasts(agree: Callable[..., Any]) -> None:
    nodes = [N("ReduceMax", ["x", "axes"], ["m"]), N("Sub", ["x", "m"], ["y"])]
    model = build(nodes, {"x": CUBE, "axes": ("i", (1,))})
    agree(model, *({"x": x, "axes": ints(axis)} for x in FEEDS for axis in (0, 1, -1)))


@pytest.mark.parametrize("op", ["CumSum", "CumProd"])
@pytest.mark.parametrize("attributes", [{}, {"reverse": 1}, {"exclusive": 1, "reverse": 1}], ids=str)
def test_running_totals(same: Callable[..., Any], op: str, attributes: dict[str, int]) -> None:
    model = build([N(op, ["x", "axis"], ["y"], **attributes)], {"x": CUBE, "axis": ("i", ())}, opset=26)
    same(model, *({"x": x, "axis": np.array(axis)} for x in FEEDS for axis in (0, 1, -1)))


def test_dimensions_of_one_come_and_go(agree: Callable[..., Any]) -> None:
    put_in = build([N("Unsqueeze", ["x", "axes"], ["y"])], {"x": CUBE, "axes": ("i", (2,))})
    agree(put_in, *({"x": FEEDS[0], "axes": ints(*axes)} for axes in ((0, 1), (4, 1), (-1, -3))))
    taken_out = build([N("Squeeze", ["x", "axes"], ["y"])], {"x": ("f", ("a", "b", "c", 1)), "axes": ("i", (2,))})
    agree(taken_out, {"x": noise(1, 3, 4, 1), "axes": ints(0, -1)}, {"x": noise(2, 3, 1, 1), "axes": ints(3, 2)})


def test_only_ones_are_taken_out_and_axes_are_in_range() -> None:
    import dscc

    model = build([N("Squeeze", ["x", "axes"], ["y"])], {"x": ("f", ("a", "b")), "axes": ("i", (1,))})
    module = dscc.compile(model).load()
    for axis in (0, 2, -3):
        with pytest.raises(InputError):
            module.run(None, {"x": noise(2, 1), "axes": ints(axis)})


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_pads(agree: Callable[..., Any], mode: str) -> None:
    model = build(
        [N("Pad", ["x", "pads", "", "axes"], ["y"], mode=mode)],
        {"x": CUBE, "pads": ("i", (4,)), "axes": ("i", (2,))},
    )
    agree(model, *({"x": FEEDS[0], "pads": ints(1, 0, 1, 2), "axes": ints(*axes)} for axes in ((0, 2), (-1, 1))))


@pytest.mark.parametrize("largest", [0, 1])
def test_the_k_greatest(same: Callable[..., Any], largest: int) -> None:
    nodes = [N("TopK", ["x", "k"], ["y", "i"], axis=1, largest=largest)]
    model = build(nodes, {"x": ("i", ("a", "b", "c")), "k": ("i", (1,))}, outputs=["y", "i"])
    rng = np.random.default_rng(1)
    for shape, k in (((2, 40, 3), 5), ((1, 7, 4), 7), ((3, 9, 1), 0)):
        same(model, {"x": rng.integers(-9, 9, shape), "k": ints(k)}, want=lambda x, k: _top(x, int(k[0]), largest))


def _top(x: Any, k: int, largest: int) -> list[Any]:
    at = np.argsort(-x if largest else x, axis=1, kind="stable")[:, :k]
    return [np.take_along_axis(x, at, 1), at]
