"""Convolutions are recognised also where an extent is the least or the most of several: TVM splits such a condition."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import dscc

onnxruntime = pytest.importorskip("onnxruntime")

EXTENTS = {
    "least": "d = MaxPool<kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1>(x)",
    "most": """shape = Shape<start = 3>(x) eight = Constant<value_ints = [8]>() zero = Constant<value_ints = [0]>()
        axis = Constant<value_ints = [3]>() lack = Sub(eight, shape) more = Max(lack, zero)
        pads = Concat<axis = 0>(zero, more) d = Pad(x, pads, , axis)""",
}


@pytest.mark.parametrize("name", EXTENTS)
def test_extents_that_are_the_least_or_the_most(name: str) -> None:
    text = f"""<ir_version: 10, opset_import: ["": 20]>
    f (float[1, 12, h, w] x, float[1, 12, 1, 1] b) => (float[1, 16, p, q] y)
    <float[16, 12, 3, 3] k = {{{", ".join(f"{value:.3f}" for value in np.sin(np.arange(16 * 12 * 9)))}}}> {{
        {EXTENTS[name]}
        e = Add(d, b) y = Conv<pads = [1, 1, 1, 1]>(e, k) }}"""
    model = onnx.parser.parse_model(text)
    artifact = dscc.compile(model, jobs=1)
    rules = {kernel: entry["rule"] for kernel, entry in artifact.manifest.kernels["functions"].items()}
    assert all(rule != "fallback" for kernel, rule in rules.items() if "conv2d" in kernel), rules
    session, module = onnxruntime.InferenceSession(model.SerializeToString()), artifact.load(2)
    rng = np.random.default_rng(1)
    for h, w in ((2, 3), (7, 9), (16, 33)):
        feeds = {
            "x": rng.standard_normal((1, 12, h, w)).astype("f"),
            "b": rng.standard_normal((1, 12, 1, 1)).astype("f"),
        }
        np.testing.assert_allclose(module.run(None, feeds)[0], session.run(None, feeds)[0], rtol=1e-4, atol=1e-4)
