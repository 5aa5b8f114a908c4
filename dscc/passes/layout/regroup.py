"""Reshape a permuted value without permuting it back, where the dimensions that a reshape joins or splits stay side
by side.

    v: (N, C, H, W), at hand as (N, H, W, C);  reshape(v, (N, C, H * W))  is at hand as  reshape(at hand, (N, H * W, C))
"""

from __future__ import annotations

import math

from dscc.passes.layout.forms import Order
from dscc.passes.values import Dim, is_one, same_dim

Group = tuple[tuple[int, ...], tuple[int, ...]]  # axes before, axes after: their products are equal


def regroup(before: tuple[Dim, ...], after: tuple[Dim, ...], order: Order) -> Order | None:
    """The order of the result when a value of shape `before`, at hand in `order`, is reshaped to `after` as it lies.

    None if that cannot be shown to be the same as reshaping the value itself.
    """
    groups = pair_up(before, after)
    if groups is None:
        return None
    group_of = {axis: g for g, (olds, _) in enumerate(groups) for axis in olds}
    lying = [axis for axis in order if axis in group_of]
    result: list[int] = []
    while lying:
        olds, news = groups[group_of[lying[0]]]
        if tuple(lying[: len(olds)]) != olds:
            return None
        result += news
        lying = lying[len(olds) :]
    for axis in range(len(after)):  # dimensions of 1 are in no group; each goes behind the one that it follows
        if axis not in result:
            result.insert(result.index(axis - 1) + 1 if axis else 0, axis)
    return tuple(result)


def lying_for(before: tuple[Dim, ...], after: tuple[Dim, ...], order: Order) -> Order | None:
    """The order in which the value has to be at hand for its reshape to be at hand in `order`; None if there is
    none.
    """
    groups = pair_up(before, after)
    if groups is None:
        return None
    olds_of = {news[0]: olds for olds, news in groups if news}
    lying = [axis for new in order for axis in olds_of.get(new, ())]
    for axis in range(len(before)):  # dimensions of 1
        if axis not in lying:
            lying.insert(lying.index(axis - 1) + 1 if axis else 0, axis)
    found = regroup(before, after, tuple(lying))
    if found is None or [a for a in found if not is_one(after[a])] != [a for a in order if not is_one(after[a])]:
        return None
    return tuple(lying)


def pair_up(before: tuple[Dim, ...], after: tuple[Dim, ...]) -> list[Group] | None:
    """The smallest groups of neighbouring axes whose products are provably the same before and after; 1s are left
    out.
    """
    olds = [axis for axis, dim in enumerate(before) if not is_one(dim)]
    news = [axis for axis, dim in enumerate(after) if not is_one(dim)]
    groups: list[Group] = []
    while olds or news:
        found = _first_group([before[a] for a in olds], [after[a] for a in news])
        if found is None:
            return None
        i, j = found
        groups.append((tuple(olds[:i]), tuple(news[:j])))
        olds, news = olds[i:], news[j:]
    return groups


def _first_group(olds: list[Dim], news: list[Dim]) -> tuple[int, int] | None:
    sizes = [(i, j) for i in range(1, len(olds) + 1) for j in range(1, len(news) + 1)]
    for i, j in sorted(sizes, key=sum):
        if same_dim(math.prod(olds[1:i], start=olds[0]), math.prod(news[1:j], start=news[0])):
            return i, j
    return None
