"""The shapes of outputs that are empty, and the formulas that they are computed with."""

from __future__ import annotations

import pytest

from dscc.artifact.manifest import Dim, TensorSpec
from dscc.runtime.arithmetic import evaluate
from dscc.runtime.nothing import empty_shapes


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("n * T.int64(2) + m", 18),
        ("T.min(n, T.int64(5)) - T.max(n, m)", -2),
        ("(n + 1) // 2 * (n % 4)", 12),
        ("-n", -7),
    ],
)
def test_a_formula_as_tvm_writes_it(text: str, value: int) -> None:
    assert evaluate(text, {"n": 7, "m": 4}) == value


@pytest.mark.parametrize("text", ["k", "n // 0", "T.Select(n < 3, n, 3)", "n +", "__import__('os')", "n.bit_length()"])
def test_anything_else_is_no_formula(text: str) -> None:
    with pytest.raises(ValueError):
        evaluate(text, {"n": 7})


def outputs(*shapes: tuple[Dim, ...]) -> list[TensorSpec]:
    return [TensorSpec(f"y{i}", "float32", shape) for i, shape in enumerate(shapes)]


def test_all_outputs_have_to_be_empty() -> None:
    sizes = {"n": 0, "m": 3}
    assert empty_shapes(outputs(("n", "m + T.int64(2)"), (2, "n * m")), sizes) == [(0, 5), (2, 0)]
    assert empty_shapes(outputs(("n", "m"), ("m", 2)), sizes) is None
    assert empty_shapes(outputs(("n", "m"), ()), sizes) is None


def test_what_is_not_known_is_not_empty() -> None:
    assert empty_shapes(outputs(("n", "y_1")), {"n": 0}) is None
    assert empty_shapes(outputs(("n", "n - T.int64(1)")), {"n": 0}) is None
    assert empty_shapes([TensorSpec("y", "float32", ("n",), ("sequence",))], {"n": 0}) is None
