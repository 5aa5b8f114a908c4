"""`RewritePass`: a pass that is a pattern, a check and a replacement.

    class FuseSilu(RewritePass):
        name = "fuse-silu"

        def pattern(self, x):
            return is_op("relax.multiply")(x, is_op("relax.sigmoid")(x))

        def rewrite(self, x):
            return relax.op.nn.silu(x)

Each argument of `pattern` is a wildcard; `check` and `rewrite` take those of them that they name, as the matched
expressions.
A wildcard that the matched alternative does not mention is None. Besides, `root` is the variable that the whole
pattern matched, and `graph` the `dscc.passes.graph.Graph` around it, to look at what a value is bound to.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import tvm
from tvm import relax
from tvm.relax import dpl

from dscc.errors import PassError
from dscc.passes.base import Pass, PassContext
from dscc.passes.graph import Graph, Node, edit_functions
from dscc.passes.pattern import Match, find, root_ops


@dataclass(frozen=True)
class RewritePass(Pass):
    """Replaces every place that `pattern` fits, in one sweep from the function's inputs to its outputs.

    Operands of commutative operators are tried in both orders. A place is refused, with a remark that says where and
    why, when `check` gives a reason, or when something outside reads a value that would no longer be computed.
    """

    tolerance: ClassVar[float] = (
        1e-5  # relative error that the rewrite may cause; the numeric test of every lit case reads it
    )

    @abstractmethod
    def pattern(self, *args: Any, **kwargs: Any) -> dpl.DFPattern:
        """What to look for; override it with named arguments, which become wildcards."""

    @abstractmethod
    def rewrite(self, *args: Any, **kwargs: Any) -> relax.Expr:
        """What to put there instead; arguments by name, out of those of `pattern` and `root`."""

    def check(self, *args: Any, **kwargs: Any) -> str | None:
        """None to go ahead, or the reason for refusing, with the value that was in the way; arguments as for
        `rewrite`.
        """
        return None

    def run(self, mod: tvm.IRModule, ctx: PassContext) -> tvm.IRModule:
        names = list(inspect.signature(self.pattern).parameters)
        wildcards = {name: dpl.wildcard() for name in names}
        pattern = self.pattern(*wildcards.values())
        known = {*names, "root", "graph"}
        check, rewrite = _call_by_name(self, "check", known), _call_by_name(self, "rewrite", known)
        ops = root_ops(pattern)

        def edit(graph: Graph) -> None:
            for node in graph:
                if ops is None or node.op in ops:
                    self._try(node, graph, ctx, pattern, wildcards, check, rewrite)

        return edit_functions(mod, edit)

    def _try(
        self,
        node: Node,
        graph: Graph,
        ctx: PassContext,
        pattern: dpl.DFPattern,
        wildcards: dict[str, dpl.DFPattern],
        check: Callable[[dict[str, Any]], Any],
        rewrite: Callable[[dict[str, Any]], Any],
    ) -> None:
        refusal = None
        for match in find(pattern, node, graph):
            values = {
                name: _constant_or_var(match.bound[w], graph) for name, w in wildcards.items() if w in match.bound
            }
            values |= {"root": node.var, "graph": graph}
            reason = check(values) or _second_user(match, graph)
            if reason is None:
                ctx.remark(f"{self.name}: applied at {node}")
                graph.replace(node, rewrite(values))
                return
            refusal = refusal or reason
        if refusal is not None:
            ctx.remark(f"{self.name}: refused at {node}: {refusal}")


def _constant_or_var(expr: relax.Expr, graph: Graph) -> relax.Expr:
    value = graph.value(expr)
    return value if isinstance(value, tvm.ir.GenericConst) else expr


def _second_user(match: Match, graph: Graph) -> str | None:
    covered = {match.root, *match.inner}
    for node in match.inner:
        outside = [user for user in graph.users(node.var) if user not in covered]
        if outside:
            return f"{node} is also read by {outside[0]}"
        if graph.is_result(node):
            return f"{node} is also a result of the function"
    return None


def _call_by_name(owner: Pass, method: str, known: set[str]) -> Callable[[dict[str, Any]], Any]:
    """`owner.method` as a function of all matched values, of which it is given the ones that it names.

    Raises:
        PassError: it names something that `pattern` does not.
    """
    bound = getattr(owner, method)
    wanted = [
        p.name
        for p in inspect.signature(bound).parameters.values()
        if p.kind is not p.VAR_KEYWORD and p.kind is not p.VAR_POSITIONAL
    ]
    for name in wanted:
        if name not in known:
            allowed = ", ".join(f"'{n}'" for n in sorted(known))
            raise PassError(f"pass '{owner.name}': {method}() asks for '{name}'; pattern() offers {allowed}")
    # In an alternative that does not mention a wildcard it has no value: None.
    return lambda values: bound(**{name: values.get(name) for name in wanted})
