"""Sorted rows that are split by how many every expert has, as JetMoe writes it: a row of ones for the
chosen, summed over the tokens, is what Split takes; the token of a place is divided as a float.
"""

from __future__ import annotations

import numpy as np
import pytest

from .graphs import Form, Graph, Style, activate, model, route
from .test_fuse_experts import STYLES, compare, remarks, tokens


def counted(
    g: Graph, x: str, style: Style, one: float = 1.0, divisor: float | None = None, first: int = 0, whole: str = "Floor"
) -> str:
    """`first`: the expert that the first rows are given to."""
    ids, shares = route(g, x, style)
    zeros = g.Expand(g.number(0.0), g.Concat(g.Shape(x, start=0, end=1), g.const([style.experts]), axis=0))
    hot = g.ScatterElements(zeros, ids, g.Expand(g.number(one), g.Shape(ids)), axis=1)
    counts = g.ReduceSum(g.Cast(hot, to=7), g.const([0]), keepdims=0)
    order_of = [(first + expert) % style.experts for expert in range(style.experts)]
    each = [g.Slice(counts, g.const([expert]), g.const([expert + 1])) for expert in order_of]
    lengths = g.Concat(*each, axis=0)
    flat = g.Reshape(ids, g.const([-1]))
    _, order = g.several("TopK", 2, flat, g.Shape(flat), axis=-1, largest=0)
    place = getattr(g, whole)(g.Div(g.Cast(order, to=1), g.number(divisor or style.top)))
    at = g.Unsqueeze(g.Cast(place, to=7), g.const([-1]))
    ordered = g.GatherND(g.Reshape(shares, g.const([-1])), g.Unsqueeze(order, g.const([-1])))

    def linear(value: str, columns: int, depth: int) -> str:
        parts = g.several("Split", style.experts, value, lengths, axis=0)
        return g.Concat(*(g.MatMul(part, g.weight(depth, columns)) for part in parts), axis=0)

    rows = g.GatherND(x, at)
    out = linear(activate(g, linear(rows, style.columns, style.hidden), style), style.hidden, style.inner)
    weighted = g.Mul(out, g.Unsqueeze(ordered, g.const([-1])))
    return g.ScatterND(g.Expand(g.number(0.0), g.Shape(x)), at, weighted, reduction="add")


@pytest.mark.parametrize("style", [*(s for s in STYLES.values() if not s.bias), Style(top=3, experts=5)])
def test_rows_are_split_by_counts(style: Style) -> None:
    made = model(counted, style)
    assert [text.split(" ")[1] for text in remarks(made)] == ["applied"]
    compare(made, *(tokens(count, style.hidden) for count in (0, 1, 2, 9, 40)))
    compare(made, np.repeat(tokens(1, style.hidden), 30, axis=0))


def _near(**how: float | int | str) -> Form:
    return lambda g, x, style: counted(g, x, style, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", [{"one": 2.0}, {"divisor": 4.0}, {"first": 1}, {"whole": "Ceil"}])
def test_other_counts_and_other_tokens_are_refused(how: dict[str, float | int | str]) -> None:
    """Twice as many, another number of choices, the rows of the next expert, the next token for every second one."""
    assert {text.split(" ")[1] for text in remarks(model(_near(**how), Style()))} == {"refused"}


@pytest.mark.parametrize("how", [{"divisor": 4.0}, {"first": 1}])
def test_what_was_refused_computes_what_is_written(how: dict[str, float | int | str]) -> None:
    compare(model(_near(**how), Style()), *(tokens(count, 12) for count in (2, 9, 40)))
