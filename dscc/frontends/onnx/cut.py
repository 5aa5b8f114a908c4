"""Cutting a model: nodes that dscc does not compile become regions, which another engine runs.

The importer converts node by node. One that has no compiled form (`UnsupportedError`) is noted and called as a region
of its own, so that the walk goes on and finds the others; then the import starts again, with regions that are as large
as can be. Nodes that take what compiled code cannot hold join the region that makes it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import onnx
import tvm

from dscc.errors import FrontendError, UnsupportedError
from dscc.fallback import Region, attach
from dscc.frontends.onnx import convert, foreign, partition
from dscc.frontends.onnx.check import label
from dscc.frontends.onnx.extract import Unheld
from dscc.frontends.onnx.graphs import needed, outer_names

if TYPE_CHECKING:
    from dscc.frontends.onnx.convert import Importer, Scope


class FallbackWarning(UserWarning):
    """Nodes of the model will run on another engine."""


class Again(Exception):
    """The cut has grown, and this import cannot go on."""


class Cut:
    """The nodes of a model that are not compiled, and why: node number to error. It grows from import to import."""

    def __init__(self, model: onnx.ModelProto):
        graph = model.graph
        self.model = model
        self.outputs = {info.name for info in graph.output}
        self.nodes = dict(needed(graph.node, [info.name for info in graph.output]))
        self.takes = {index: _inputs(proto) for index, proto in self.nodes.items()}
        makers = {name: index for index, proto in self.nodes.items() for name in proto.output if name}
        self._before = {index: {makers[n] for n in names if n in makers} for index, names in self.takes.items()}
        self.reasons: dict[int, UnsupportedError] = {}

    def convert(self, importer: Importer, scope: Scope, opsets: Mapping[str, int]) -> list[Region]:
        """Convert all nodes into `importer`, and call those of the cut as regions, which are returned.

        Raises:
            Again: after the cut has grown.
            FrontendError: the model cannot be read, or no engine takes a region.
        """
        found: list[Region] = []

        def refused(index: int, err: UnsupportedError) -> None:
            if foreign.compute(self, importer, scope, self._nodes((index,))):
                return
            self.reasons[index] = err
            if any(attribute.HasField("g") for attribute in self.nodes[index].attribute):
                raise Again from err  # the builder may be inside of one of its graphs
            found.extend(self._call(importer, scope, (index,), len(found)))

        def run(nodes: Sequence[int], then: Sequence[int], last: bool) -> None:
            needed_later = {name for index in then for name in self.takes[index]} | self.outputs
            wanted = [name for index in nodes for name in self.nodes[index].output if name in needed_later]
            importer.convert(self._nodes(nodes), scope, opsets, {}, wanted, last, refused)

        regions = partition.partition(self._before, self.reasons)
        steps = partition.order(self._before, regions) if regions else [(index,) for index in self.nodes]
        waiting: list[int] = []
        for position, step in enumerate(steps):
            if step[0] in self.reasons:
                then = [index for later in steps[position:] for index in later]
                run(waiting, then, last=False)
                waiting = []
                found += self._call(importer, scope, step, len(found))
            else:
                waiting += step
        run(waiting, (), last=True)
        return found

    def _call(self, importer: Importer, scope: Scope, step: tuple[int, ...], number: int) -> list[Region]:
        try:
            return foreign.call(self, importer, scope, self._nodes(step), number)
        except Unheld as err:
            users = [index for index, names in self.takes.items() if err.name in names and index not in self.reasons]
            if not users:
                raise FrontendError(f"{self.reasons[step[0]]}; and {err}") from err
            for index in users:
                self.reasons[index] = UnsupportedError(f"{label(index, self.nodes[index])}: {err}", str(err))
            raise Again from err

    def _nodes(self, step: Sequence[int]) -> list[tuple[int, onnx.NodeProto]]:
        return [(index, self.nodes[index]) for index in step]

    def refusal(self) -> str:
        """The error for a model that is to be compiled as a whole."""
        first, *others = sorted(self.reasons)
        text = str(self.reasons[first])
        if others:
            named = ", ".join(label(index, self.nodes[index]) for index in others[:20])
            more = f" and {len(others) - 20} more" if len(others) > 20 else ""
            text += f"; nor is there a compiled form of {named}{more}"
        return f"{text}; leave out --no-fallback to run such nodes on another engine"


def read(model: onnx.ModelProto, input_shapes: Mapping[str, Sequence[Any]], fallback: bool) -> tvm.IRModule:
    """The module of a model; with `fallback`, what is not compiled is attached to it as regions.

    Raises:
        FrontendError: the model cannot be read.
    """
    cut = Cut(model)
    while True:
        known = len(cut.reasons)
        importer = convert.Importer(model, input_shapes, cut)
        try:
            module = importer.run()
        except Again:
            continue
        if cut.reasons and not fallback:
            raise UnsupportedError(cut.refusal())
        if len(cut.reasons) == known:
            break
    for region in importer.elsewhere:
        warnings.warn(f"not compiled: {region}", FallbackWarning, stacklevel=2)
    module["main"] = attach(module["main"], importer.elsewhere)
    return module


def _inputs(proto: onnx.NodeProto) -> set[str]:
    names = {name for name in proto.input if name}
    for attribute in proto.attribute:
        for graph in (attribute.g, *attribute.graphs):
            names |= outer_names(graph)
    return names
