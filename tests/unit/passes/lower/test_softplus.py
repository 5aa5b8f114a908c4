"""Softplus, to rounding also where it is tiny."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

import dscc


@pytest.mark.parametrize(("dtype", "kind"), [("float", np.float32), ("double", np.float64)])
def test_values_relative_to_themselves(dtype: str, kind: type) -> None:
    text = f"<ir_version: 10, opset_import: ['' : 22]> g ({dtype}[n] x) => ({dtype}[n] y) {{ y = Softplus(x) }}"
    module = dscc.compile(parser.parse_model(text.replace("'", '"'))).load()
    x = np.concatenate([np.linspace(-80, 80, 1601), [1e-8, 0.0, -0.0, np.inf, -np.inf]]).astype(kind)
    found, expected = module.run(None, {"x": x})[0], np.logaddexp(0.0, x.astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=4 * np.finfo(kind).eps)
