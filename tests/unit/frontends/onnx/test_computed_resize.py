"""Resize by scales, sizes and regions that the model computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import helper

from .conftest import build, noise

N = helper.make_node
IMAGE = ("f", ("n", 2, "h", "w"))
FEEDS = [noise(1, 2, 5, 6), noise(2, 2, 3, 8)]
MODES = ["half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"]


def floats(*values: float) -> Any:
    return np.array(values, np.float32)


@pytest.mark.parametrize("method", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("mode", MODES)
def test_scales(agree: Callable[..., Any], method: str, mode: str) -> None:
    node = N("Resize", ["x", "", "s"], ["y"], mode=method, coordinate_transformation_mode=mode, axes=[2, 3])
    model = build([node], {"x": IMAGE, "s": ("f", (2,))})
    agree(model, *({"x": x, "s": floats(*s)} for x in FEEDS for s in ((2, 1.5), (0.6, 0.75))), tolerance=1e-4)


@pytest.mark.parametrize("method", ["linear", "cubic"])
@pytest.mark.parametrize("exclude", [0, 1])
def test_filters_against_aliasing(agree: Callable[..., Any], method: str, exclude: int) -> None:
    attributes = {"mode": method, "antialias": 1, "exclude_outside": exclude, "axes": [2, 3]}
    model = build([N("Resize", ["x", "", "s"], ["y"], **attributes)], {"x": IMAGE, "s": ("f", (2,))})
    agree(model, *({"x": x, "s": floats(*s)} for x in FEEDS for s in ((0.5, 1.5), (0.6, 0.7))), tolerance=1e-4)
    model = build([N("Resize", ["x", "", "", "s"], ["y"], **attributes)], {"x": IMAGE, "s": ("i", (2,))})
    agree(model, *({"x": x, "s": np.array([2, 4])} for x in FEEDS), tolerance=1e-4)


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
@pytest.mark.parametrize("method", ["nearest", "linear"])
def test_one_ratio_for_all_axes(agree: Callable[..., Any], policy: str, method: str) -> None:
    node = N("Resize", ["x", "", "", "s"], ["y"], mode=method, keep_aspect_ratio_policy=policy, axes=[2, 3])
    model = build([node], {"x": IMAGE, "s": ("i", (2,))})
    agree(model, *({"x": x, "s": np.array(s)} for x in FEEDS for s in ((7, 8), (2, 9))), tolerance=1e-4)


@pytest.mark.parametrize("method", ["nearest", "linear", "cubic"])
def test_regions(agree: Callable[..., Any], method: str) -> None:
    attributes = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 3.0, "axes": [3, 2]}
    node = N("Resize", ["x", "r", "", "s"], ["y"], mode=method, **attributes)
    model = build([node], {"x": IMAGE, "r": ("f", (4,)), "s": ("i", (2,))})
    regions = [floats(0.1, 0.2, 0.8, 0.9), floats(-0.2, 0.4, 1.3, 0.6)]
    agree(model, *({"x": x, "r": r, "s": np.array([4, 3])} for x in FEEDS for r in regions), tolerance=1e-4)


def test_upsample(same: Callable[..., Any]) -> None:
    model = build([N("Upsample", ["x", "s"], ["y"])], {"x": IMAGE, "s": ("f", (4,))}, opset=9)
    same(model, *({"x": x, "s": floats(1, 1, 2, 3)} for x in FEEDS))
