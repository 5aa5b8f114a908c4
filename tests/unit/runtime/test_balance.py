"""The load of experts, read from a run, is what the router's arithmetic says."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import dscc
from dscc import balance_plot, pipeline
from dscc.errors import InputError
from dscc.runtime import balance

from ..passes.moe.graphs import Style, batched, model

EXPERTS, TOP, HIDDEN, INNER = 4, 2, 8, 6


@pytest.fixture(scope="module")
def weights():
    rng = np.random.default_rng(3)
    shapes = {"router": (HIDDEN, EXPERTS), "up": (EXPERTS, INNER, HIDDEN), "down": (EXPERTS, HIDDEN, INNER)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def layers(weights):
    """Two layers of the same weights, one after the other."""
    nodes = []
    for number, (rows, out) in enumerate((("x", "h"), ("h", "y"))):
        nodes += [
            helper.make_node("MatMul", [rows, "router"], [f"logits{number}"]),
            helper.make_node(
                "MoE", [rows, f"logits{number}", "up", "", "down"], [out], f"layer{number}", "", "com.microsoft", k=TOP
            ),
        ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["tokens", HIDDEN]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(a, n) for n, a in weights.items()])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.fixture(scope="module")
def artifact(layers):
    return dscc.compile(layers)


def rows(tokens: int) -> np.ndarray:
    return np.random.default_rng(tokens).standard_normal((tokens, HIDDEN)).astype(np.float32)


@pytest.mark.parametrize("tokens", [1, 37])
def test_every_choice_is_counted(artifact, weights, tokens):
    x = rows(tokens)
    first, second = balance.measure(artifact, {"x": x}, 1)
    best = np.argsort(-(x @ weights["router"]), axis=1)[:, :TOP]
    assert first.chosen == tuple(np.bincount(best.ravel(), minlength=EXPERTS))
    assert first.tokens == second.tokens == tokens and first.dropped == second.dropped == 0
    assert sum(second.chosen) == tokens * TOP
    assert [load.layer for load in (first, second)] == ["layer0", "layer1"]
    assert first.imbalance == pytest.approx(max(first.chosen) / (tokens * TOP / EXPERTS))


def test_nothing_was_routed_here():
    assert balance.Load("", 3, (0, 0), 0).imbalance == 0.0


def test_parameters(artifact, weights):
    one = 2 * HIDDEN * INNER
    router = weights["router"].size
    # Both layers have the same experts, which count once; every layer uses two of them.
    assert artifact.manifest.summary["parameters"] == {
        "total": EXPERTS * one + router,
        "per_token": 2 * TOP * one + router,
    }


def test_a_model_without_experts(tmp_path):
    node = helper.make_node("Relu", ["x"], ["y"])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy")
    made = dscc.compile(helper.make_model(helper.make_graph([node], "g", [x], [y])))
    assert "parameters" not in made.manifest.summary
    with pytest.raises(InputError, match="no mixture of experts was recognised"):
        balance.measure(made, {"x": np.zeros(2, np.float32)}, 1)


def test_plot(artifact, tmp_path):
    loads = balance.measure(artifact, {"x": rows(9)}, 1)
    if importlib.util.find_spec("matplotlib") is None:
        with pytest.raises(InputError, match="pip install matplotlib"):
            balance_plot.draw(loads, tmp_path / "load.png")
        return
    balance_plot.draw(loads, tmp_path / "load.png")
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")


class TestCapacity:
    """Of a form that an exporter wrote, through the option of the pass."""

    @staticmethod
    def compiled(capacity: float) -> dscc.Artifact:
        named = {"fuse-experts": f"fuse-experts{{capacity={capacity}}}"}
        return dscc.compile(model(batched, Style()), passes=",".join(named.get(name, name) for name in pipeline.O2))

    def test_what_is_beyond_it_is_dropped(self):
        x = np.random.default_rng(5).standard_normal((32, 12)).astype(np.float32)
        small, exact = self.compiled(0.5), self.compiled(0.0)
        (load,) = balance.measure(small, {"x": x}, 1)
        limit = int(np.ceil(32 * 2 * 0.5 / 4))
        assert load.dropped == sum(max(0, count - limit) for count in load.chosen) > 0
        got, want = (made.load(1).run(None, {"x": x})[0] for made in (small, exact))
        same = np.isclose(got, want, rtol=0, atol=1e-5).all(axis=1)
        assert same[0] and not same[-1]  # the first come first; nobody has room when the last one comes
        (everything,) = balance.measure(exact, {"x": x}, 1)
        assert everything.dropped == 0 and everything.chosen == load.chosen

    def test_one_that_suffices_changes_nothing(self):
        x = np.random.default_rng(6).standard_normal((9, 12)).astype(np.float32)
        got, want = (self.compiled(capacity).load(1).run(None, {"x": x})[0] for capacity in (4.0, 0.0))
        np.testing.assert_array_equal(got, want)
