"""Loops over experts as people write them, and torch's older exporter: shares that are sums over a mask, tokens where
any choice is the expert, rows that are put in their places among zeros and added.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from .graphs import Form, Graph, Style, _one, _shares_of_all, model, route
from .test_fuse_experts import STYLES, compare, remarks, tokens


def loop(g: Graph, x: str, style: Style, one: Callable[[Graph, str, Style, str, str, int], str], **how: bool) -> str:
    """The sum over all experts of what `one` makes; `twice`: the first two are one and the same expert; `mixed`: every
    second one goes by another choice, with the shares of the first.
    """
    ids, shares = route(g, x, style)
    other = route(g, x, style)[0] if how.get("mixed") else ids
    out = g.Expand(g.number(0.0), g.Shape(x))
    for number in range(style.experts):
        expert = number or int(how.get("twice", False))
        out = g.Add(out, one(g, x, style, (ids, other)[number % 2], shares, expert))
    return out


def _hit(g: Graph, ids: str, expert: int) -> str:
    return g.Equal(ids, g.const(expert))


def _share(g: Graph, ids: str, shares: str, expert: int) -> str:
    """(tokens, 1), zero for those that did not choose it"""
    mask = g.Cast(_hit(g, ids, expert), to=1)
    return g.ReduceSum(g.Mul(shares, mask), g.const([-1]), keepdims=1)


def masked(g: Graph, x: str, style: Style, ids: str, shares: str, expert: int) -> str:
    return g.Mul(_one(g, x, style), _share(g, ids, shares, expert))


def doubled(g: Graph, x: str, style: Style, ids: str, shares: str, expert: int) -> str:
    """What is summed is no share: a choice of the expert counts for the others too."""
    mask = g.Add(g.Cast(_hit(g, ids, expert), to=1), g.number(0.5))
    return g.Mul(_one(g, x, style), g.ReduceSum(g.Mul(shares, mask), g.const([-1]), keepdims=1))


def opened(g: Graph, x: str, style: Style, ids: str, shares: str, expert: int) -> str:
    """Also an expert that was not chosen adds something."""
    return g.Add(masked(g, x, style, ids, shares, expert), g.weight(style.hidden))


def placed(g: Graph, x: str, style: Style, ids: str, shares: str, expert: int) -> str:
    where = g.Transpose(g.NonZero(_hit(g, ids, expert)), perm=[1, 0])
    token, _ = g.several("Split", 2, where, axis=1, num_outputs=2)
    made = g.Mul(_one(g, g.GatherND(x, token), style), g.Unsqueeze(g.GatherND(shares, where), g.const([-1])))
    return _among_zeros(g, x, token, made)


def anywhere(g: Graph, x: str, style: Style, ids: str, shares: str, expert: int) -> str:
    count = g.ReduceSum(g.Cast(_hit(g, ids, expert), to=7), g.const([-1]), keepdims=0)
    token = g.Transpose(g.NonZero(g.Greater(count, g.const(0))), perm=[1, 0])
    made = g.Mul(_one(g, g.GatherND(x, token), style), g.GatherND(_share(g, ids, shares, expert), token))
    return _among_zeros(g, x, token, made)


def anywhere_by_the_greatest(g: Graph, x: str, style: Style, ids: str, shares: str, expert: int) -> str:
    most = g.ReduceMax(g.Cast(_hit(g, ids, expert), to=7), g.const([-1]), keepdims=0)
    token = g.Transpose(g.NonZero(g.Cast(most, to=9)), perm=[1, 0])
    made = g.Mul(_one(g, g.GatherND(x, token), style), g.GatherND(_share(g, ids, shares, expert), token))
    return _among_zeros(g, x, token, made)


def _among_zeros(g: Graph, x: str, token: str, made: str) -> str:
    zeros = g.Expand(g.number(0.0), g.Shape(x))
    return g.ScatterElements(zeros, g.Expand(token, g.Shape(made)), made, axis=0)


WAYS = [masked, placed, anywhere, anywhere_by_the_greatest]


def of(one: Callable[[Graph, str, Style, str, str, int], str], **how: bool) -> Form:
    return partial(loop, one=one, **how)


@pytest.mark.parametrize(
    ("one", "style"),
    [
        *((one, style) for one in WAYS for style in STYLES.values() if style.top > 1),
        *((one, Style(top=3, experts=5)) for one in WAYS),
        (placed, STYLES["one expert"]),  # where one expert is chosen, a sum over the choices is none
    ],
)
def test_a_loop_is_recognised(one: Callable[..., str], style: Style) -> None:
    assert [text.split(" ")[1] for text in remarks(model(of(one), style))] == ["applied"]


@pytest.mark.parametrize("style", [Style(), Style(router="topk-softmax", activation="clipped", bias=True)])
@pytest.mark.parametrize("one", WAYS)
def test_it_computes_the_same(one: Callable[..., str], style: Style) -> None:
    compare(model(of(one), style), *(tokens(count, style.hidden) for count in (0, 1, 2, 9, 40)))


@pytest.mark.parametrize(
    ("form", "style"),
    [
        *((of(one, twice=True), Style()) for one in WAYS),
        *((of(one, mixed=True), Style()) for one in WAYS),
        *((of(one), Style(router="best twice")) for one in WAYS),
        (of(doubled), Style()),
        (of(opened), Style()),
    ],
)
def test_what_is_no_mixture_is_refused(form: Form, style: Style) -> None:
    """One expert twice, two choices with the shares of one, choices that may be the same, shares that are none."""
    made = model(form, style)
    assert {text.split(" ")[1] for text in remarks(made)} == {"refused"}
    compare(made, tokens(9, style.hidden))


def beside(g: Graph, x: str, style: Style, axis: int = 1, first: str = "") -> str:
    """All experts' rows along an axis of their own, before or behind the elements; `first`: in the place of one."""
    full = _shares_of_all(g, x, style)
    rows = [_one(g, x, style) for _ in range(style.experts)]
    all_rows = g.Concat(*(g.Unsqueeze(row, g.const([axis])) for row in [first or rows[0], *rows[1:]]), axis=axis)
    share = g.Unsqueeze(full, g.const([3 - axis]))
    return g.ReduceSum(g.Mul(all_rows, share), g.const([axis]), keepdims=0)


@pytest.mark.parametrize("style", STYLES.values())
@pytest.mark.parametrize("axis", [1, 2])
def test_rows_of_all_experts_beside_each_other(axis: int, style: Style) -> None:
    made = model(partial(beside, axis=axis), style)
    assert [text.split(" ")[1] for text in remarks(made)] == ["applied"]
    compare(made, *(tokens(count, style.hidden) for count in (1, 9)))


def test_what_is_beside_experts_may_be_something_else() -> None:
    """As where one of them hands the token on."""
    made = model(partial(beside, first="x"), Style())
    assert {text.split(" ")[1] for text in remarks(made)} == {"refused"}
    compare(made, tokens(9, 12))
