"""Which of the nodes that dscc does not compile run together: as few regions as there can be.

Nodes that are connected belong to one region, unless a path leads from one of them through compiled nodes to the
other: then the compiled ones would need the region's outputs before it has its inputs.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence

Graph = Mapping[int, Collection[int]]  # node to the nodes whose outputs it takes; a graph without cycles


def partition(graph: Graph, chosen: Collection[int]) -> list[tuple[int, ...]]:
    """The regions that the `chosen` nodes make, each sorted, in the order of their first nodes.

    Args:
        graph: keys in an order in which every node comes after those that it takes from.
    """
    levels = _levels(graph, chosen)
    group = {node: node for node in chosen}  # node to a node that stands for its region

    def find(node: int) -> int:
        while group[node] != node:
            group[node] = group[group[node]]
            node = group[node]
        return node

    edges = [(before, node) for node in graph if node in group for before in graph[node] if before in group]
    # Between nodes of one level no path leads through a compiled node: there each one adds to the level.
    for before, node in edges:
        if levels[before] == levels[node]:
            group[find(node)] = find(before)
    # The others are joined one by one, where no cycle comes of it. There are few.
    for before, node in edges:
        one, other = find(before), find(node)
        if one != other and not _indirect(graph, group, find, one, other):
            group[other] = one
    regions: dict[int, list[int]] = defaultdict(list)
    for node in sorted(chosen):
        regions[find(node)].append(node)
    return sorted(tuple(nodes) for nodes in regions.values())


def order(graph: Graph, regions: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """All nodes in an order in which they can run, those of a region as one step; else as they were."""
    step = {node: (node,) for node in graph} | {node: region for region in regions for node in region}
    takes: dict[tuple[int, ...], set[tuple[int, ...]]] = defaultdict(set)
    users: dict[tuple[int, ...], set[tuple[int, ...]]] = defaultdict(set)
    for node, befores in graph.items():
        for before in befores:
            if step[before] != step[node]:
                takes[step[node]].add(step[before])
                users[step[before]].add(step[node])
    missing = {each: len(takes[each]) for each in set(step.values())}
    ready = [each for each, count in missing.items() if not count]
    heapq.heapify(ready)
    done = []
    while ready:
        each = heapq.heappop(ready)
        done.append(each)
        for user in users[each]:
            missing[user] -= 1
            if not missing[user]:
                heapq.heappush(ready, user)
    return done


def _levels(graph: Graph, chosen: Collection[int]) -> dict[int, int]:
    """For every node, the greatest number of changes from a chosen node to one that is not, on a path that leads to
    it.
    """
    levels: dict[int, int] = {}
    for node, befores in graph.items():
        levels[node] = max(
            (levels[b] + (b in chosen and node not in chosen) for b in befores),
            default=0,
        )
    return levels


def _indirect(graph: Graph, group: Mapping[int, int], find: Callable[[int], int], one: int, other: int) -> bool:
    """Whether a path leads from region `one` to region `other` through something else."""
    region = {node: find(node) for node in group}
    reached: set[int] = set()  # nodes outside of `one` that a path leads to from it; a region counts as a whole
    members: dict[int, list[int]] = defaultdict(list)
    for node, stands in region.items():
        members[stands].append(node)
    users: dict[int, list[int]] = defaultdict(list)
    for node, befores in graph.items():
        for before in befores:
            users[region.get(before, ~before)].append(node)
    waiting = [one]
    while waiting:
        for node in users[waiting.pop()]:
            key = region.get(node, ~node)
            if key not in (one, other) and key not in reached:
                reached.add(key)
                waiting.append(key)
    return any(region.get(before, ~before) in reached for node in members[other] for before in graph[node])
