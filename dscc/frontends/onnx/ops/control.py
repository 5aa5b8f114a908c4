"""If: the branch that a known condition takes, in the If's place; else both as regions.

Branches may differ in the rank of what they give, as exporters write `x.squeeze(0)`: If(dim == 1) {Squeeze} {Identity}.
What follows cannot be converted without the rank; so it is converted once for each branch, and becomes part of it. If
it fits one of them only, as it mostly does, the model is taken to go that way, and this is checked when it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
import tvm
from onnx import helper
from tvm import relax

from dscc import library
from dscc.errors import FrontendError
from dscc.frontends.onnx import regions
from dscc.frontends.onnx.kinds import Container, TensorKind, join, kind_of, restrict, result_type, wrap
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.registry import converter
from dscc.frontends.onnx.shapes import shape_expr
from dscc.frontends.onnx.values import Value

_BRANCHES = ("then_branch", "else_branch")


_MAX_DEPTH = 4  # of Ifs whose branches differ in rank, each part of a branch of the one before


@converter("If", patterns=True)
def choose(node: Node, condition: Value) -> list[Value]:
    """The outputs of the branch that `condition`, a tensor of one element, takes.

    Raises:
        RanksDiffer: the branches differ in the rank of what they give; `choose_rest` takes in what follows.
    """
    graphs = [node.required(name) for name in _BRANCHES]
    try:
        if condition.constant is not None:
            return node.importer.subgraph(node, graphs[_taken(condition)], dict(node.scope))
        known = node.dims.names
        captured = regions.Captured(node, graphs)
        drafts = [regions.draft(node, graph, {}, [], captured) for graph in graphs]
    except regions.RanksDiffer:  # of an If inside
        raise regions.RanksDiffer(node, condition) from None
    kinds = _kinds(node, known, drafts)
    if any(_open(kind) for kind in kinds):
        raise regions.RanksDiffer(node, condition)
    return _call(node, condition, captured, drafts, kinds, node.proto.output)


def choose_rest(
    split: regions.RanksDiffer, rest: Sequence[onnx.NodeProto], wanted: Sequence[str], last: bool
) -> tuple[dict[str, Value], bool]:
    """An If whose branches differ in rank, with all that follows.

    Args:
        rest: the nodes that follow.
        wanted: the names of what is needed of all that the If and these nodes make.
        last: these are outputs of the model, whose rank may stay open.

    Returns:
        What names stand for, and True: the wanted ones; or, where only one branch leads on, the outputs of the If, and
        False: `rest` is still to be converted.

    Raises:
        RanksDiffer: the rank of something that is wanted is open, and it is not the last.
    """
    node, condition = split.node, split.condition
    importer = node.importer
    if importer.splits == _MAX_DEPTH:
        raise node.unsupported("its branches differ in the rank of what they give, and so do those of Ifs before it")
    importer.splits += 1
    try:
        graphs = [_joined(node, node.required(name), rest, wanted) for name in _BRANCHES]
        if condition.constant is not None:
            found = importer.subgraph(node, graphs[_taken(condition)], dict(node.scope), last)
            return dict(zip(wanted, found, strict=True)), True
        known = node.dims.names
        captured = regions.Captured(node, graphs)
        tried = [_try(node, graph, captured, last) for graph in graphs]
    except regions.RanksDiffer:  # of an If inside
        raise regions.RanksDiffer(node, condition) from None
    finally:
        importer.splits -= 1
    drafts = [each for each in tried if isinstance(each, regions.Draft)]
    failures = [each for each in tried if isinstance(each, FrontendError)]
    if not drafts:
        raise failures[0]
    if failures:
        return _only(node, condition, 0 if tried[0] is drafts[0] else 1, failures[0]), False
    kinds = _kinds(node, known, drafts)
    if not last and any(_open(kind) for kind in kinds):
        raise regions.RanksDiffer(node, condition)
    return dict(zip(wanted, _call(node, condition, captured, drafts, kinds, wanted), strict=True)), True


def _taken(condition: Value) -> int:
    assert condition.constant is not None  # its callers have seen to it
    return 0 if condition.constant.item() else 1


def _open(kind: Any) -> bool:
    return isinstance(kind, TensorKind) and kind.dims is None


def _try(node: Node, graph: onnx.GraphProto, captured: regions.Captured, last: bool) -> regions.Draft | FrontendError:
    try:
        return regions.draft(node, graph, {}, [], captured, last=last)
    except FrontendError as err:
        return err


def _joined(
    node: Node, branch: onnx.GraphProto, rest: Sequence[onnx.NodeProto], wanted: Sequence[str]
) -> onnx.GraphProto:
    """A branch with the nodes that follow the If."""
    graph = onnx.GraphProto()
    graph.initializer.extend(branch.initializer)
    graph.node.extend(branch.node)
    for inside, outside in zip(branch.output, node.proto.output, strict=False):
        graph.node.append(helper.make_node("Identity", [inside.name], [outside]))
    graph.node.extend(rest)
    graph.output.extend(helper.make_empty_tensor_value_info(name) for name in wanted)
    return graph


def _only(node: Node, condition: Value, branch: int, failure: FrontendError) -> dict[str, Value]:
    """The outputs of one branch in the place of the If, if the condition is as it has to be when the model runs."""
    values = node.importer.subgraph(node, node.required(_BRANCHES[branch]), dict(node.scope))
    text = f"{node.label}: what follows fits {_BRANCHES[branch]} only, and the model takes the other one: {failure}"
    open_values = [value for value in values if value.data is None and not isinstance(value, Container)]
    arguments = [condition.expr, shape_expr([branch == 0]), tvm.ir.StringImm(text)]
    types = [value.expr.ty for value in open_values]
    call = library.call("require", [*arguments, *(value.expr for value in open_values)], relax.TupleType(types))
    checked = node.bb.emit(call) if open_values else None
    for index, value in enumerate(open_values):
        same = Value(value.name, node.bb, expr=node.bb.emit(relax.TupleGetItem(checked, index)), element=value.element)
        values = [same if each is value else each for each in values]
    return dict(zip(node.proto.output, values, strict=False))


def _kinds(node: Node, known: frozenset[str], drafts: Sequence[regions.Draft]) -> list[Any]:
    """What the results are, whichever branch they are of."""
    first, second = (draft.values for draft in drafts)
    if len(first) != len(second):
        raise node.error(f"then_branch has {len(first)} outputs and else_branch {len(second)}; they must be as many")
    kinds = []
    for index, pair in enumerate(zip(first, second, strict=True)):
        try:
            kinds.append(join(node.dims, *(restrict(kind_of(value), known) for value in pair)))
        except ValueError as err:
            raise node.error(f"output {index} is not the same in both branches: {err}") from err
    return kinds


def _call(
    node: Node, condition: Value, captured: regions.Captured, drafts: Sequence[regions.Draft], kinds: Sequence[Any],
    names: Sequence[str],
) -> list[Value]:  # fmt: skip
    used = set().union(*(draft.used() for draft in drafts))
    inside = [param for param in captured.params if param in used]
    symbols = regions.free_symbols(drafts, inside)
    sizes = [relax.Var("sizes", relax.ShapeType(symbols))] if symbols else []
    functions = [
        regions.region(node, what, draft, sizes, inside) for what, draft in zip(("then", "else"), drafts, strict=True)
    ]
    arguments = [*([shape_expr(symbols)] if symbols else []), *(captured.values[param].expr for param in inside)]
    ty = relax.TupleType([result_type(kind) for kind in kinds])
    result = node.bb.emit(library.call("if", [*functions, condition.expr, *arguments], ty))
    return [
        wrap(node.bb, node.dims, kind, node.bb.emit(relax.TupleGetItem(result, index)), name)
        for index, (kind, name) in enumerate(zip(kinds, names, strict=False))
    ]
