"""Decision trees in arrays, as dscc/library/trees.c walks them, from what the nodes of ONNX say of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.values import Array

_LEQ, _GTE, _GT, _EQ, _NEQ = range(5)
_LESS = 5  # becomes LEQ of the number below
_NAN_IS_TRUE = 8
_MODES = {
    "BRANCH_LEQ": _LEQ, "BRANCH_LT": _LESS, "BRANCH_GTE": _GTE, "BRANCH_GT": _GT, "BRANCH_EQ": _EQ, "BRANCH_NEQ": _NEQ,
}  # fmt: skip
_NUMBERED = [_LEQ, _LESS, _GTE, _GT, _EQ, _NEQ]  # as TreeEnsemble writes them; 6 is a set that the feature is in
_MEMBER = 6


@dataclass
class Forest:
    """All trees of an ensemble.

    Attributes:
        nodes: int32 of (nodes, 4): feature, next node if the comparison fails and if it holds, flags. A leaf leads to
            itself. thresholds: what each compares with.
        spans: int32 of (nodes, 2), the first weight of a leaf, and how many it has.
        targets, weights: of each weight.
        roots: int32 of (trees, 2), the root and the most steps from it.
    """

    nodes: Array
    thresholds: Array
    spans: Array
    targets: Array
    weights: Array
    roots: Array

    @property
    def features(self) -> int:
        """As many as a row needs."""
        return int(self.nodes[:, 0].max(initial=0)) + 1

    @property
    def is_plain(self) -> bool:
        """Whether every comparison is LEQ."""
        return not (self.nodes[:, 3] & (_NAN_IS_TRUE - 1)).any()


def of_lists(node: Node, prefix: str, dtype: Any) -> Forest:
    """The trees of TreeEnsembleClassifier (`prefix` is class) or TreeEnsembleRegressor (target)."""
    trees, numbers = (_ints(node, f"nodes_{name}") for name in ("treeids", "nodeids"))
    count = len(trees)
    if count == 0:
        raise node.error("there are no nodes")
    names = node.required("nodes_modes", list)
    unknown = sorted(set(names) - {*_MODES, "LEAF"})
    if unknown:
        raise node.error(f"mode of a node is '{unknown[0]}'; allowed: {', '.join([*_MODES, 'LEAF'])}")
    modes = np.array([_MODES.get(name, -1) for name in names])
    values = _floats(node, "nodes_values", dtype)
    missing = _ints(node, "nodes_missing_value_tracks_true", zeros=count)
    features, no, yes = (_ints(node, f"nodes_{name}") for name in ("featureids", "falsenodeids", "truenodeids"))
    if {len(each) for each in (numbers, modes, values, missing, features, no, yes)} != {count}:
        raise node.error("the lists of its nodes are not of one length")
    places = {key: at for at, key in enumerate(zip(trees.tolist(), numbers.tolist(), strict=True))}
    if len(places) != count:
        raise node.error("two nodes have the same tree and number")

    def at(which: Array, where: Array) -> Array:
        try:
            return np.array([places[key] for key in zip(which.tolist(), where.tolist(), strict=True)], np.int64)
        except (KeyError, ValueError) as error:
            raise node.error(f"a tree has no node of this number: {error}") from None

    leaf, inner = modes < 0, modes >= 0
    following = np.stack([np.arange(count)] * 2)
    for row, numbers_of in zip(following, (no, yes), strict=True):
        row[inner] = at(trees[inner], numbers_of[inner])
    whose, ids = at(_ints(node, f"{prefix}_treeids"), _ints(node, f"{prefix}_nodeids")), _ints(node, f"{prefix}_ids")
    weights = _floats(node, f"{prefix}_weights", np.float64)
    if not len(whose) == len(ids) == len(weights):
        raise node.error(f"the lists of its {prefix} weights are not of one length")
    order = np.argsort(whose, kind="stable")
    counts = np.bincount(whose, minlength=count)
    spans = np.stack([np.cumsum(counts) - counts, counts], axis=1)
    spans[inner] = 0
    free = np.flatnonzero(~np.isin(np.arange(count), following[:, inner]))  # no child: the root of its tree
    roots = np.sort(free[np.unique(trees[free], return_index=True)[1]])
    if len(roots) != len(np.unique(trees)):
        raise node.error("every node of a tree is the child of another")
    flags = modes + _NAN_IS_TRUE * (missing != 0)
    return _made(node, features, following, flags, leaf, values, spans, ids[order], weights[order], roots, dtype)


def of_arrays(node: Node, dtype: Any) -> Forest:
    """The trees of TreeEnsemble: inner nodes and leaves in lists of their own; sets become nodes, one for a member."""
    features, no, yes = (_ints(node, f"nodes_{name}") for name in ("featureids", "falsenodeids", "truenodeids"))
    count = len(features)
    values = np.asarray(node.required("nodes_splits"), dtype).reshape(-1)
    modes = np.asarray(node.required("nodes_modes"), np.int64).reshape(-1)
    missing = _ints(node, "nodes_missing_value_tracks_true", zeros=count)
    ends = [_ints(node, f"nodes_{name}leafs") for name in ("false", "true")]
    ids, weights = _ints(node, "leaf_targetids"), np.asarray(node.required("leaf_weights"), np.float64).reshape(-1)
    roots = _ints(node, "tree_roots")
    if {len(each) for each in (no, yes, values, modes, missing, *ends)} != {count} or len(ids) != len(weights):
        raise node.error("the lists of its nodes, or of its leaves, are not of one length")
    if not all(0 <= mode <= _MEMBER for mode in modes.tolist()):
        raise node.error("mode of a node is out of range; allowed: 0 to 6")
    following = np.stack([np.where(is_leaf != 0, count + to, to) for is_leaf, to in zip(ends, (no, yes), strict=True)])
    limits = np.where(np.stack(ends) != 0, len(ids), count)
    if ((np.stack([no, yes]) < 0) | (np.stack([no, yes]) >= limits)).any() or ((roots < 0) | (roots >= count)).any():
        raise node.error("a node, a leaf or a root is out of range")
    kinds = np.array([*_NUMBERED, _EQ])[modes] + _NAN_IS_TRUE * (missing != 0)
    leaves = len(ids)
    nodes: list[list[Any]] = [features.tolist(), *following.tolist(), kinds.tolist(), values.tolist()]
    for column, filler in zip(nodes, (0, None, None, -1, 0.0), strict=True):
        column += list(range(count, count + leaves)) if filler is None else [filler] * leaves
    _spell_out(node, nodes, np.flatnonzero(modes == _MEMBER))
    total = len(nodes[0])
    spans = np.zeros((total, 2), np.int64)
    spans[count : count + leaves] = np.stack([np.arange(leaves), np.ones(leaves)], axis=1)
    flags = np.array(nodes[3])
    places, values = np.array(nodes[:3]), np.array(nodes[4], dtype)
    starts = _single_leaves(roots, np.stack(ends), following)
    return _made(node, places[0], places[1:], flags, flags == -1, values, spans, ids, weights, starts, dtype)


def _single_leaves(roots: Array, ends: Array, following: Array) -> Array:
    """The roots; a tree of one leaf is a node both ways of which lead there."""
    alone = ends.all(axis=0) & (following[0] == following[1])
    return np.where(alone[roots], following[0][roots], roots)


def _spell_out(node: Node, nodes: list[list[Any]], sets: Array) -> None:
    """Comparisons with the members of a set, one after the other; the first one is where the node was."""
    listed = node.attr("membership_values", None)
    members = np.zeros(0) if listed is None else np.asarray(listed).reshape(-1)
    ends = np.flatnonzero(np.isnan(members))
    if len(ends) != len(sets):
        raise node.error(f"{len(ends)} sets end in its membership_values, and {len(sets)} nodes have one")
    features, no, yes, flags, values = nodes
    begins = np.append(0, ends + 1)[: len(ends)]
    for at, begin, end in zip(sets.tolist(), begins.tolist(), ends.tolist(), strict=True):
        wanted = members[begin:end].tolist()
        if not wanted:
            yes[at] = no[at]
            continue
        otherwise, here = no[at], at
        values[at] = wanted[0]
        for value in wanted[1:]:
            no[here] = len(features)
            here = len(features)
            for column, entry in zip(nodes, (features[at], otherwise, yes[at], flags[at], value), strict=True):
                column.append(entry)
        no[here] = otherwise


def _made(
    node: Node, features: Array, following: Array, flags: Array, leaf: Array, values: Array, spans: Array,
    targets: Array, weights: Array, roots: Array, dtype: Any,
) -> Forest:  # fmt: skip
    if (features[~leaf] < 0).any() or max(features.max(initial=0), len(features)) >= 1 << 31:
        raise node.error("a node's feature is negative, or there are too many features or nodes")
    less = (flags & (_NAN_IS_TRUE - 1)) == _LESS
    less &= ~leaf
    thresholds = np.where(less, np.nextafter(values, np.array(-np.inf, dtype)), values).astype(dtype)
    features, flags = np.where(leaf, 0, features), np.where(leaf, 0, flags)
    flags = np.where(less, flags - _LESS, flags)
    depths = _depths(node, roots, following, leaf)
    return Forest(
        np.stack([features, *following, flags], axis=1).astype(np.int32),
        thresholds,
        spans.astype(np.int32),
        targets.astype(np.int32),
        weights.astype(np.float64),
        np.stack([roots, depths], axis=1).astype(np.int32),
    )


def _depths(node: Node, roots: Array, following: Array, leaf: Array) -> list[int]:
    """The most steps from each root to a leaf."""
    found = []
    for root in roots.tolist():
        level, depth = np.array([root]), 0
        while len(level := level[~leaf[level]]):
            level, depth = np.unique(following[:, level]), depth + 1
            if depth > following.shape[1]:
                raise node.error("a node of a tree is its own ancestor")
        found.append(depth)
    return found


def _ints(node: Node, name: str, zeros: int | None = None) -> Array:
    """An attribute of integers; `zeros` of them where it may be left out, and is."""
    given: Sequence[int] | None = node.attr(name, None)
    if not given and zeros is not None:
        return np.zeros(zeros, np.int64)
    return np.array(given if given is not None else node.required(name, list), np.int64)


def _floats(node: Node, name: str, dtype: Any) -> Array:
    tensor = node.attr(f"{name}_as_tensor", None)
    return np.asarray(tensor if tensor is not None else node.required(name, list), dtype).reshape(-1)
