"""Regions: subgraphs that run a number of times that is known only when the model runs.

A region is a Relax function of its own, which a function in C calls (dscc/library/control.c):

    If(c) {then: a + b} {else: a}   ->   def then(a, b): (a + b,)      def else(a, b): (a,)
                                         out = dscc.if(then, else, c, a, b)

What it takes from the graphs around it is captured: tensors become parameters behind its own, weights stay constants,
and the symbols of shapes that are known in terms of the model's dimensions come as one shape. While a region is
converted it uses the symbols of the graph around it, so that what is known of them holds inside too; at the end it
gets copies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import tvm
from tvm import relax

from dscc.frontends.onnx.graphs import outer_names
from dscc.frontends.onnx.kinds import Container, Strings, TensorKind, tvm_type
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.values import Value, identifier
from dscc.passes import origins


class Captured:
    """The values that subgraphs may take from the graph around them, as values inside of them."""

    def __init__(self, node: Node, graphs: Sequence[onnx.GraphProto], named: Mapping[str, Value] | None = None):
        self._node = node
        self.values: dict[relax.Var, Value] = {}  # the parameter inside, and the value outside that it stands for
        outside = {**node.scope, **(named or {})}
        names = sorted(set().union(*(outer_names(graph) for graph in graphs), named or ()))
        self.scope = {name: self._inside(outside[name]) for name in names if name in outside}

    @property
    def params(self) -> list[relax.Var]:
        return list(self.values)

    def afresh(self) -> dict[str, Value]:
        """What the names stand for inside of one draft: known sizes become a tensor in every draft for itself."""
        return {name: self._afresh(value) for name, value in self.scope.items()}

    def _afresh(self, value: Value) -> Value:
        builder = self._node.bb
        if isinstance(value, Container) and value.items is not None:
            return Container(value.name, builder, value.kind, items=[self._afresh(item) for item in value.items])
        if value.symbolic and not value.materialised:
            return Value(value.name, builder, data=value.data, element=value.element)
        return value

    def _inside(self, value: Value) -> Value:
        builder = self._node.bb
        if isinstance(value, Strings):
            raise self._node.unsupported(
                f"its graphs take strings ('{value.name}'), on which compiled code cannot compute"
            )
        if isinstance(value, Container):
            if value.items is not None:
                items = [self._inside(item) for item in value.items]
                return Container(value.name, builder, value.kind, items=items)
            return Container(value.name, builder, value.kind, expr=self._param(value))
        if value.constant is not None:
            return Value(value.name, builder, data=value.data, outer=value)
        if value.symbolic and not value.materialised:
            return self._afresh(value)
        return Value(value.name, builder, data=value.data, element=value.element, expr=self._param(value))

    def _param(self, value: Value) -> relax.Var:
        param = relax.Var(identifier(value.name), value.expr.ty)
        self.values[param] = value
        return param


class RanksDiffer(Exception):
    """The branches of an If differ in the rank of what they give: what follows has to become part of them.

    Attributes:
        otherwise: the outputs to go on with where that cannot be, if it is no reason to give up.
        proto: the node of the model, where `node` was made for it.
    """

    def __init__(
        self,
        node: Node,
        condition: Value,
        otherwise: Sequence[Value] | None = None,
        proto: onnx.NodeProto | None = None,
    ):
        super().__init__(node.label)
        self.node = node
        self.condition = condition
        self.otherwise = otherwise
        self.proto = node.proto if proto is None else proto


@dataclass(frozen=True)
class Draft:
    """A converted subgraph: its bindings, the tuple of its results, and what these are outside."""

    block: relax.BindingBlock
    result: relax.Var
    values: list[Value]

    def used(self) -> set[relax.Var]:
        """The Relax variables that it takes from elsewhere."""
        return set(relax.analysis.free_vars(relax.SeqExpr([self.block], self.result)))


def draft(
    node: Node,
    graph: onnx.GraphProto,
    given: Mapping[str, Value],
    params: Sequence[relax.Var],
    captured: Captured,
    finish: Callable[[list[Value]], list[Value]] = lambda outputs: outputs,
    last: bool = False,
) -> Draft:
    """Convert `graph` of `node` aside.

    Args:
        given: values of the graph's inputs, by name, in terms of `params`.
        finish: from the graph's outputs to the region's results; it may emit.
        last: the results are outputs of the model, whose rank may stay open.
    """
    builder = node.bb
    builder.begin_scope([*params, *captured.params])
    builder._begin_dataflow_block()
    try:
        with node.dims.aside():
            values = finish(node.importer.subgraph(node, graph, {**captured.afresh(), **given}, last))
        result = builder.emit_output(relax.Tuple([value.expr for value in values]))
    finally:
        block = builder._end_block()
        builder.end_scope()
    return Draft(block, result, values)


def free_symbols(drafts: Sequence[Draft], params: Sequence[relax.Var]) -> list[tvm.ir.Var]:
    """The symbols that the regions with these parameters need from outside, in the order of their names."""
    found = {
        symbol.name: symbol for each in drafts for symbol in relax.analysis.free_symbolic_vars(_function(each, params))
    }
    return [found[name] for name in sorted(found)]


def region(
    node: Node, what: str, each: Draft, params: Sequence[relax.Var], captured: Sequence[relax.Var]
) -> tvm.ir.GlobalVar:
    """Add the function of a region to the module.

    Args:
        what: which subgraph of the node it is.
        params: its own parameters, with all symbols that it needs.
        captured: the parameters behind these, whose types need no check when it is called.
    """
    importer = node.importer
    importer.regions += 1
    name = f"{identifier(node.op).lower()}_{importer.regions}_{what}"
    func = relax.utils.copy_with_new_vars(_function(each, [*params, *captured]))
    # The name is among the attributes, so that no two regions are equal: each belongs to one call.
    func = origins.note(func.with_attrs({"global_symbol": name, "num_input": len(params)}), importer.nodes)
    return node.bb.add_func(func, name)


def _function(each: Draft, params: Sequence[relax.Var]) -> relax.Function:
    builder = relax.BlockBuilder()
    builder.begin_scope(params)
    body = builder.normalize(relax.SeqExpr([each.block], each.result))
    builder.end_scope()
    return relax.Function(params, body, is_pure=True)


def parameter(node: Node, kind: Any, name: str) -> tuple[relax.Var, Value]:
    """A parameter of a region of this kind, and the value that it is inside."""
    hint = identifier(name)
    var = relax.Var(hint, tvm_type(node.dims, kind, hint))
    if isinstance(kind, TensorKind):
        return var, Value(name, node.bb, expr=var, element=kind.dtype)
    return var, Container(name, node.bb, kind, expr=var)
