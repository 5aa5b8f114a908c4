"""What belongs to training: steps of optimisers, and normalisation by the batch itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import helper

import dscc
from dscc.errors import FrontendError, InputError

from .conftest import build, load, noise

DOMAIN = "ai.onnx.preview.training"
CASES = [
    ("Adagrad", 3, {"decay_factor": 0.1, "epsilon": 1e-5, "norm_coefficient": 0.01}),
    ("Momentum", 3, {"alpha": 0.9, "beta": 0.5, "norm_coefficient": 0.01, "mode": "standard"}),
    ("Momentum", 3, {"alpha": 0.9, "beta": 0.5, "norm_coefficient": 0.01, "mode": "nesterov"}),
    ("Adam", 4, {"norm_coefficient": 0.01, "norm_coefficient_post": 0.02, "epsilon": 1e-6}),
]


@pytest.mark.parametrize(("op", "parts", "attributes"), CASES)
def test_a_step_of_two_variables(same: Callable[..., Any], op: str, parts: int, attributes: dict[str, Any]) -> None:
    """Iteration 0 is another formula than the others."""
    names = [f"{part}{at}" for part in "xgvh"[:parts] for at in range(2)]
    outputs = [f"new_{name}" for name in names if name[0] != "g"]
    node = helper.make_node(op, ["r", "t", *names], outputs, domain=DOMAIN, **attributes)
    inputs: Any = {"r": ("f", ()), "t": ("i", ())} | {
        name: ("f", ("n",) if name[1] == "0" else (2, 3)) for name in names
    }
    model = build([node], inputs)
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    feed = {name: np.abs(noise(4) if name[1] == "0" else noise(2, 3)) for name in names}
    rate = np.array(0.1, np.float32)
    same(model, *(feed | {"r": rate, "t": np.array(t)} for t in (0, 3)), tolerance=1e-4)


def test_parts_of_other_shapes() -> None:
    inputs: Any = {"r": ("f", ()), "t": ("i", ()), **dict.fromkeys("xgv", ("f", (2,))), "h": ("f", (3,))}
    node = helper.make_node("Adam", ["r", "t", "x", "g", "v", "h"], ["a", "b", "c"], name="adam", domain=DOMAIN)
    with pytest.raises(FrontendError, match=r"node 0 'adam' .*'h' does not fit"):
        load(build([node], inputs))
    inputs["h"] = ("f", ("n",))  # checked when the model runs
    module = dscc.compile(build([node], inputs), jobs=1).load()
    feeds = {name: np.ones(2, np.float32) for name in "xgvh"} | {"r": np.array(0.1, np.float32), "t": np.array(1)}
    assert [out.shape for out in module.run(None, feeds)] == [(2,)] * 3
    with pytest.raises(InputError, match="h"):
        module.run(None, feeds | {"h": np.ones(3, np.float32)})


def test_normalisation_by_the_batch(agree: Callable[..., Any]) -> None:
    outputs = ["y", "m", "v"]
    node = helper.make_node("BatchNormalization", ["x", "s", "b", "i", "j"], outputs, training_mode=1, momentum=0.7)
    weights = {name: np.abs(noise(3)) for name in "sbij"}
    model = build([node], {"x": ("f", ("n", 3, "h"))}, weights, outputs=outputs)
    agree(model, {"x": noise(2, 3, 5)}, {"x": noise(4, 3, 1)}, tolerance=1e-4)


def test_slopes_of_channels_before_version_7(same: Callable[..., Any]) -> None:
    node = helper.make_node("PRelu", ["x", "s"], ["y"])
    model = build([node], {"x": ("f", ("n", 3, "h", "w"))}, {"s": noise(3)}, opset=6)
    want = lambda x: [np.where(x < 0, x * noise(3).reshape(3, 1, 1), x)]  # noqa: E731
    same(model, {"x": noise(2, 3, 4, 5)}, want=want)
