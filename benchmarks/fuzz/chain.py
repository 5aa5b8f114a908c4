"""Nodes that are computed together, because what lies between them is no tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx

from benchmarks.fuzz.graph import Graph, Value


class Chain:
    """Nodes of `g` that it does not have yet."""

    def __init__(self, g: Graph):
        self._g = g
        self._nodes: list[onnx.NodeProto] = []
        self._operands: dict[str, Value] = {}

    def add(self, op: str, inputs: Sequence[Value | str | None], **attributes: Any) -> str:
        """A node; the name of its output."""
        self.take(*(value for value in inputs if isinstance(value, Value)))
        self._nodes.append(self._g.node(op, inputs, **attributes))
        return str(self._nodes[-1].output[0])

    def take(self, *values: Value) -> None:
        """Values of the graph that a node's subgraph reads."""
        self._operands |= {value.name: value for value in values}

    def attach(self, *names: str) -> list[Value]:
        """Give the nodes to the graph; the tensors called `names` become values of it.

        Raises:
            Rejected: see `Graph.attach`.
        """
        return self._g.attach(self._nodes, list(self._operands.values()), names)
