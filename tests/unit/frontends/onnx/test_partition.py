"""Regions of nodes: connected, as few as can be, and never with a path that leaves one and comes back."""

from __future__ import annotations

import random

import pytest

from dscc.frontends.onnx.partition import order, partition


def graph(*edges: tuple[int, int]) -> dict[int, set[int]]:
    nodes = sorted({node for edge in edges for node in edge})
    return {node: {a for a, b in edges if b == node} for node in nodes}


def test_connected_nodes_are_one_region() -> None:
    chain = graph((0, 1), (1, 2), (2, 3), (3, 4))
    assert partition(chain, {1, 2, 3}) == [(1, 2, 3)]
    assert partition(chain, {1, 3}) == [(1,), (3,)]
    assert partition(chain, set()) == []


def test_a_path_through_a_compiled_node_keeps_regions_apart() -> None:
    # 0 feeds 1, which is compiled, and 2; both feed 2.
    assert partition(graph((0, 1), (1, 2), (0, 2)), {0, 2}) == [(0,), (2,)]


def test_nodes_of_different_depth_are_joined_where_no_cycle_comes_of_it() -> None:
    # 0 -> 1 (compiled) -> 3 <- 2: 2 and 3 are one region, though 3 has a compiled node above it and 2 has none.
    assert partition(graph((0, 1), (1, 3), (2, 3)), {0, 2, 3}) == [(0,), (2, 3)]


def test_regions_that_join_may_not_close_a_cycle_together() -> None:
    # 0 -> 1 (compiled) -> 3; 0 -> 2 -> 3: 0 and 2 are joined, and 3 may not join them any more.
    assert partition(graph((0, 1), (1, 3), (0, 2), (2, 3)), {0, 2, 3}) == [(0, 2), (3,)]


@pytest.mark.parametrize("seed", range(200))
def test_any_graph_can_be_run_step_by_step(seed: int) -> None:
    rng = random.Random(seed)
    count = rng.randint(1, 30)
    found = {node: {b for b in range(node) if rng.random() < rng.choice((0.05, 0.2))} for node in range(count)}
    chosen = {node for node in found if rng.random() < rng.random()}
    regions = partition(found, chosen)
    assert sorted(node for region in regions for node in region) == sorted(chosen)
    steps = order(found, regions)
    assert sorted(node for step in steps for node in step) == list(found)  # a cycle would leave some out
    done: set[int] = set()
    for step in steps:
        assert all(found[node] <= done | set(step) for node in step)
        done |= set(step)
    # Two regions that are connected are apart for a reason: joined, something outside would be between them.
    for one in regions:
        for other in regions:
            if one != other and any(found[node] & set(one) for node in other):
                merged = [region for region in regions if region not in (one, other)] + [tuple(sorted(one + other))]
                assert len({n for step in order(found, merged) for n in step}) < count


def test_order_is_that_of_the_graph_where_it_can_be() -> None:
    assert order(graph((0, 1), (1, 2), (0, 3), (3, 4)), [(1, 3)]) == [(0,), (1, 3), (2,), (4,)]
