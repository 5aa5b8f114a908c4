"""`LocalPass`: a pass that is a table of rules, each of which looks at one call."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import tvm
from tvm import relax

from dscc.passes.base import Pass, PassContext
from dscc.passes.graph import Graph, Node, edit_functions

Rule = Callable[[Node, Graph], relax.Expr | None]


@dataclass(frozen=True)
class LocalPass(Pass):
    """Each rule looks at one call and returns what to write instead, or None; until no rule has anything to say."""

    @property
    @abstractmethod
    def rules(self) -> Mapping[str, tuple[Rule, ...]]:
        """Operator to the rules for its calls, in the order in which they are asked."""

    def run(self, mod: tvm.IRModule, ctx: PassContext) -> tvm.IRModule:
        def edit(graph: Graph) -> None:
            for node in graph:
                while node.alive and (better := self._better(node, graph)) is not None:
                    ctx.remark(f"{self.name}: applied at {node}")
                    graph.replace(node, better)

        return edit_functions(mod, edit)

    def _better(self, node: Node, graph: Graph) -> relax.Expr | None:
        for rule in self.rules.get(node.op, ()):
            if (found := rule(node, graph)) is not None:
                return found
        return None
