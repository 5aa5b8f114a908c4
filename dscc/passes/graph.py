"""An editable view of one Relax function: its bindings as nodes, with users, so that a pass asks and edits in
constant time.

Relax functions are immutable, and TVM's own rewriters match the whole function again after every replacement. A pass
over a model of 2,000 bindings wants neither: it makes a `Graph`, edits it, and takes the new function at the end.
Only the bindings of the function's own blocks are nodes; the branches of an `If` and nested functions are opaque
values that use variables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import tvm
import tvm_ffi
from tvm import relax

Expr: TypeAlias = relax.Expr


class Node:
    """One binding `var = value`. `op` is the operator's name for a call (`relax.add`), else the kind of value."""

    __slots__ = ("alive", "before", "cast", "dataflow", "op", "value", "var")

    def __init__(self, var: relax.Var, value: Expr, cast: relax.Type | None, dataflow: bool) -> None:
        self.var = var
        self.value = value
        self.op = op_name(value)
        self.cast = cast  # the type of a match_cast, None for a plain binding
        self.dataflow = dataflow
        self.before: list[Node] = []  # nodes that edits put in front of this one
        self.alive = True

    def __repr__(self) -> str:
        return f"%{self.var.name} ({self.op.removeprefix('relax.')})"


def op_name(value: Expr) -> str:
    """`relax.add` for a call of that operator, else `var`, `tuple`, `getitem`, `constant` or `opaque`."""
    if isinstance(value, relax.Call):
        return str(value.op.name) if isinstance(value.op, tvm.ir.Op) else "call"
    for kind, name in _KINDS:
        if isinstance(value, kind):
            return name
    return "opaque"


_KINDS = (
    (relax.Var, "var"),
    (relax.Tuple, "tuple"),
    (relax.TupleGetItem, "getitem"),
    (tvm.ir.GenericConst, "constant"),
    (relax.ShapeExpr, "shape"),
)


def used_vars(value: Expr) -> list[relax.Var]:
    """The Relax variables that `value` reads, with repetitions."""
    if isinstance(value, relax.Var):
        return [value]
    if isinstance(value, relax.Call):
        found = [] if isinstance(value.op, tvm.ir.Op) else used_vars(value.op)
        for arg in value.args:
            found += used_vars(arg)
        return found
    if isinstance(value, relax.Tuple):
        return [var for field in value.fields for var in used_vars(field)]
    if isinstance(value, relax.TupleGetItem):
        return used_vars(value.tuple_value)
    if isinstance(value, relax.If | relax.Function | relax.SeqExpr):
        return list(relax.analysis.free_vars(value))
    return []


class Graph:
    """The nodes of one function. Edits keep `users` right and remove what nobody needs any more."""

    def __init__(self, func: relax.Function) -> None:
        self.func = func
        self.changed = False
        self._builder = relax.BlockBuilder()
        self._builder.begin_scope(func.params)  # from here on it knows that their dimensions are not negative
        self._blocks: list[tuple[relax.BindingBlock, list[Node]]] = []
        self._definition: dict[relax.Var, Node] = {}
        self._users: dict[relax.Var, dict[Node, int]] = {}
        self._alias: dict[relax.Var, Expr] = {}
        self._pinned: set[relax.Var] = set(used_vars(func.body.body))  # read by the function's result
        for block in func.body.blocks:
            dataflow = isinstance(block, relax.DataflowBlock)
            nodes = [
                Node(b.var, b.value, b.ty if isinstance(b, relax.MatchCast) else None, dataflow) for b in block.bindings
            ]
            self._blocks.append((block, nodes))
            for node in nodes:
                self._add(node)

    def __iter__(self) -> Iterator[Node]:
        """Live nodes in program order; nodes may be edited while iterating, nodes that edits add are not visited."""
        for _, nodes in self._blocks:
            for node in list(nodes):
                if node.alive:
                    yield node

    def all(self) -> list[Node]:
        """Live nodes in program order as they are now, those that edits added too."""
        return [node for _, nodes in self._blocks for node in _in_order(nodes)]

    # --- questions ---

    def node(self, expr: Expr) -> Node | None:
        """The node that binds `expr`, or None for a parameter, a constant or anything that is no variable."""
        return self._definition.get(expr) if isinstance(expr, relax.Var) else None

    def value(self, expr: Expr) -> Expr:
        """What `expr` is bound to; `expr` itself where nothing binds it."""
        while (node := self.node(expr)) is not None and node.cast is None:
            expr = node.value
            if node.op != "var":
                break
        return expr

    def resolve(self, expr: Expr) -> Expr:
        """What edits have put in the place of a variable; `expr` itself if nothing."""
        while isinstance(expr, relax.Var) and expr in self._alias and expr not in self._definition:
            expr = self._alias[expr]
        return expr

    def users(self, var: relax.Var) -> list[Node]:
        """The live nodes that read `var`, in the order in which they began to."""
        return list(self._users.get(var, ()))

    def uses(self, var: relax.Var) -> int:
        """How often `var` is read; being a result of the function counts once."""
        return sum(self._users.get(var, {}).values()) + (var in self._pinned)

    def is_result(self, node: Node) -> bool:
        """Whether the function's result reads `node`, or `node` is visible outside its block."""
        return node.var in self._pinned or not isinstance(node.var, relax.DataflowVar)

    def only_user(self, node: Node) -> Node | None:
        """The one node that reads `node`, or None if there are several, or the function's result does."""
        users = self._users.get(node.var, {})
        return next(iter(users)) if len(users) == 1 and node.var not in self._pinned else None

    # --- edits ---

    def emit(self, before: Node, expr: Expr, name: str = "lv") -> Expr:
        """Bind `expr` (nested calls too) in front of `before`; returns the variable, or `expr` itself if it needs no
        binding.
        """
        if not isinstance(expr, relax.Call | relax.TupleGetItem):
            return expr
        value = self._flatten(before, expr, name)
        kind = relax.DataflowVar if before.dataflow else relax.Var
        node = Node(kind(name, value.ty), value, None, before.dataflow)
        before.before.append(node)
        self._add(node)
        self.changed = True
        return node.var

    def emit_cast(self, before: Node, value: Expr, ty: relax.Type, name: str = "lv") -> Expr:
        """Bind `match_cast(value, ty)` in front of `before`; returns the variable."""
        kind = relax.DataflowVar if before.dataflow else relax.Var
        node = Node(kind(name, ty), value, ty, before.dataflow)
        before.before.append(node)
        self._add(node)
        self.changed = True
        return node.var

    def remove_cast(self, node: Node) -> None:
        """Remove a match_cast that another one makes superfluous, if nobody reads it."""
        if node.cast is not None:
            node.cast = None
            self.drop_if_dead(node)

    def replace(self, node: Node, expr: Expr) -> None:
        """Let `node` compute `expr` instead. Its name and variable stay if the type does; its users read the new
        value.
        """
        self.changed = True
        if isinstance(expr, relax.Call | relax.TupleGetItem | relax.Tuple):
            name = node.var.name
            value = self._flatten(node, expr, name)
            if node.cast is not None or same_type(value.ty, node.var.ty):
                self._assign(node, value)
                return
            expr = self.emit(node, value, name)
        self._redirect(node, expr)

    def finish(self) -> relax.Function:
        """The function with the edits; the very same object if there were none."""
        if not self.changed:
            return self.func
        blocks = [type(block)([_binding(n) for n in _in_order(nodes)]) for block, nodes in self._blocks]
        body = relax.SeqExpr(
            [b for b in blocks if len(b.bindings)], self._builder.normalize(self._subst(self.func.body.body))
        )
        body = self._builder.normalize(body)
        return relax.Function(
            self.func.params, body, self.func.ret_ty, self.func.is_pure, self.func.attrs, self.func.span
        )

    # --- how ---

    def _add(self, node: Node) -> None:
        self._definition[node.var] = node
        for var in used_vars(node.value):
            users = self._users.setdefault(var, {})
            users[node] = users.get(node, 0) + 1

    def drop_if_dead(self, node: Node) -> None:
        """Remove `node` if nobody reads it and it has no other effect; then what only it read, and so on."""
        waiting = [node]
        while waiting:
            node = waiting.pop()
            removable = node.dataflow and node.cast is None and isinstance(node.var, relax.DataflowVar)
            if node.alive and removable and not self._users.get(node.var) and node.var not in self._pinned:
                node.alive = False
                self.changed = True
                del self._definition[node.var]
                waiting += self._forget(node, node.value)

    def _forget(self, node: Node, value: Expr) -> list[Node]:
        """Take back the reads that `node` made for `value`; returns what was read."""
        read = used_vars(value)
        for var in read:
            users = self._users[var]
            users[node] -= 1
            if not users[node]:
                del users[node]
        return [source for var in read if (source := self._definition.get(var)) is not None]

    def _assign(self, node: Node, value: Expr) -> None:
        for var in used_vars(value):  # first the new reads, so that nothing they need is dropped
            users = self._users.setdefault(var, {})
            users[node] = users.get(node, 0) + 1
        old, node.value, node.op = node.value, value, op_name(value)
        for source in self._forget(node, old):
            self.drop_if_dead(source)

    def _redirect(self, node: Node, target: Expr) -> None:
        """Let every reader of `node` read `target`; types that change on the way are inferred anew downstream."""
        if not isinstance(node.var, relax.DataflowVar) or node.cast is not None:
            # Visible outside its block: the name has to stay. What nobody else reads is computed right there.
            source = self.node(target)
            alone = source is not None and source.cast is None and self._only_for(source, node)
            self._assign(node, source.value if source is not None and alone else target)
            if source is not None:
                self.drop_if_dead(source)
            return
        self._alias[node.var] = target
        for user in self.users(node.var):
            if user.op == "opaque":
                self._assign(node, target)
                return
        for user in self.users(node.var):
            value = substitute(user.value, {node.var: target})
            if isinstance(value, relax.Call | relax.Tuple | relax.TupleGetItem):
                value = self._builder.normalize(value)
            if user.cast is None and not isinstance(value, relax.Var) and not same_type(value.ty, user.var.ty):
                self.replace(user, value)
            else:
                self._assign(user, value)
        self.drop_if_dead(node)

    def _only_for(self, source: Node, reader: Node) -> bool:
        return not self.is_result(source) and all(user is reader for user in self._users.get(source.var, ()))

    def _flatten(self, before: Node, expr: Expr, name: str) -> Expr:
        """`expr` normalized, with every nested call bound in front of `before`."""
        if isinstance(expr, relax.Call):
            args = [self._operand(before, a, name) for a in expr.args]
            expr = relax.Call(expr.op, args, expr.attrs, expr.ty_args, expr.span)
        elif isinstance(expr, relax.Tuple):
            expr = relax.Tuple([self._operand(before, f, name) for f in expr.fields])
        elif isinstance(expr, relax.TupleGetItem):
            expr = relax.TupleGetItem(self._operand(before, expr.tuple_value, name), expr.index)
        return self._builder.normalize(expr)

    def _operand(self, before: Node, expr: Expr, name: str) -> Expr:
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self._operand(before, f, name) for f in expr.fields])
        return self.emit(before, self._subst(expr), name)

    def _subst(self, expr: Expr) -> Expr:
        while isinstance(expr, relax.Var) and expr in self._alias:
            expr = self._alias[expr]
        return substitute(expr, self._alias) if self._alias and isinstance(expr, relax.Tuple) else expr


def substitute(value: Expr, mapping: dict[relax.Var, Expr]) -> Expr:
    """`value` with variables replaced; calls come back without a type. Opaque values are returned as they are."""
    if isinstance(value, relax.Var):
        return mapping.get(value, value)
    if isinstance(value, relax.Call):
        op = value.op if isinstance(value.op, tvm.ir.Op) else substitute(value.op, mapping)
        return relax.Call(op, [substitute(a, mapping) for a in value.args], value.attrs, value.ty_args, value.span)
    if isinstance(value, relax.Tuple):
        return relax.Tuple([substitute(f, mapping) for f in value.fields])
    if isinstance(value, relax.TupleGetItem):
        return relax.TupleGetItem(substitute(value.tuple_value, mapping), value.index)
    return value


def same_type(a: relax.Type, b: relax.Type) -> bool:
    """Whether two types are the same, where needed by proof about their symbolic dimensions."""
    if tvm_ffi.structural_equal(a, b):
        return True
    if isinstance(a, relax.TupleType) and isinstance(b, relax.TupleType):
        return len(a.fields) == len(b.fields) and all(same_type(x, y) for x, y in zip(a.fields, b.fields, strict=True))
    if not isinstance(a, relax.TensorType) or not isinstance(b, relax.TensorType) or a.ndim != b.ndim or a.ndim < 0:
        return False
    if a.dtype != b.dtype or a.shape is None or b.shape is None:
        return False
    if not isinstance(a.shape, relax.ShapeExpr) or not isinstance(b.shape, relax.ShapeExpr):
        return False
    prove = tvm.sym.Analyzer().can_prove_equal
    return all(prove(x, y) for x, y in zip(a.shape.values, b.shape.values, strict=True))


def _in_order(nodes: Iterable[Node]) -> Iterator[Node]:
    for node in nodes:
        yield from _in_order(node.before)
        if node.alive:
            yield node


def _binding(node: Node) -> relax.Binding:
    return (
        relax.VarBinding(node.var, node.value)
        if node.cast is None
        else relax.MatchCast(node.var, node.value, node.cast)
    )


def edit_functions(
    mod: tvm.IRModule, edit: Callable[[Graph], None], builder: relax.BlockBuilder | None = None
) -> tvm.IRModule:
    """`mod` with `edit` applied to every Relax function; `mod` itself is left as it was.

    Args:
        builder: made of `mod`; has the functions that `edit` adds.
    """
    edited = {}
    for name, func in mod.functions_items():
        if isinstance(func, relax.Function):
            graph = Graph(func)
            edit(graph)
            if graph.changed:
                edited[name] = graph.finish()
    if not edited:
        return mod
    new = mod.clone() if builder is None else builder.get()
    for name, func in edited.items():
        new.update_func(name, func)
    return new


def without_unreached(mod: tvm.IRModule) -> tvm.IRModule:
    """`mod` without what `main` does not reach; TVM's dead code elimination keeps all functions that have a name."""
    seen, waiting = {"main"}, ["main"]

    def visit(expr: Expr) -> None:
        if isinstance(expr, tvm.ir.GlobalVar) and expr.name_hint not in seen:
            seen.add(expr.name_hint)
            waiting.append(expr.name_hint)

    while waiting:
        func = mod[waiting.pop()]
        if isinstance(func, relax.Function):
            relax.analysis.post_order_visit(func, visit)
    kept = {gvar: func for gvar, func in mod.functions_items() if gvar.name_hint in seen}
    return mod if len(kept) == len(mod.functions) else tvm.IRModule(kept, attrs=mod.attrs)
