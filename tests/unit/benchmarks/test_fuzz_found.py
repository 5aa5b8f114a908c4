"""What the fuzzer found, made small: each was a wrong result or an error without explanation."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from benchmarks.fuzz import judge
from benchmarks.fuzz.build import Case

FOUND = {
    # `x != x` evaluated an expression with variables of its own twice.
    "IsNaN of a function": ("(float[n, m] x) => (bool[n, m] y) { e = Exp(x) y = IsNaN(e) }", {"x": (3, 20)}),
    # TVM's search for reshapes fails on slices of symbolic extents, here of padded columns.
    "a transposed convolution that is cropped": (
        """(float[2, 3, 12, n] x) => (float[2, 1, 12, m] y)
        <float[3, 1, 1, 3] w = {0.2, -0.2, 0.1, 0.6, 0.1, -0.1, 0.3, -0.1, -0.4}, float[1] b = {1}> {
        y = ConvTranspose<kernel_shape = [1, 3], pads = [0, 2, 0, 2], strides = [1, 3]>(x, w, b) }""",
        {"x": (2, 3, 12, 5)},
    ),
    # A condition that only a size of 0 fails was simplified to a division by 0.
    "images of which only the width is open": (
        "(float[n, 3, 16, m] x) => (float[n, 16, m, 3] y) { y = Transpose<perm = [0, 2, 3, 1]>(x) }",
        {"x": (2, 3, 16, 5)},
    ),
    # A vector that is interleaved from several axes took all its elements for those of one row.
    "a triangle before channels last": (
        """(float[2, 4, 16, 17] x, float[4, 1, 3, 3] w) => (float[2, 4, h, k] y) {
        t = Trilu<upper = 0>(x) y = Conv<group = 4, pads = [1, 1, 1, 1], strides = [3, 3]>(t, w) }""",
        {"x": (2, 4, 16, 17), "w": (4, 1, 3, 3)},
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found(name: str) -> None:
    text, shapes = FOUND[name]
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> f {text}')
    rng = np.random.default_rng(0)
    feeds = [{key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}]
    verdict = judge.judge(Case(model, feeds))
    assert verdict.kind == "agrees", f"{verdict.kind}: {verdict.reason}\n{verdict.detail}"
