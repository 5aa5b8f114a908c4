"""What a plug-in that converts an ONNX operator of its own brings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from dscc.frontends.onnx.node import Node


class OnnxOperator(ABC):
    """Converts one operator of a domain that is not the standard's.

    Attributes:
        domain: of the operator, as models import it.
        op: its name.
        since: the version of the domain from which on this is what the operator means; the greatest one up to the
            version that a model imports is taken.
    """

    domain: ClassVar[str]
    op: ClassVar[str]
    since: ClassVar[int] = 1

    @abstractmethod
    def convert(self, node: Node, *inputs: Any) -> Any:
        """The operator as Relax.

        Implementations name their inputs, `def convert(self, node, x: Value, bias: Value | None = None)`: one that has
        no default is required, and a model that gives too few or too many is refused by that.

        Args:
            node: its attributes, the builder, and errors that name the node (dscc/frontends/onnx/node.py).
            inputs: `Value`s (dscc/frontends/onnx/values.py), None for one that is left out: `x.expr` is the tensor,
                `x.shape` its dimensions, ints and symbols, `x.constant` its content if it is known.

        Returns:
            The output, or a tuple of outputs: Relax expressions, NumPy arrays, or Values. Dimensions may be symbolic,
            and operators of the standard may be called by `Standard(node)` (dscc/frontends/onnx/compose.py).

        Raises:
            FrontendError: by `node.error`, for what no engine could run; by `node.unsupported`, for what is not
                compiled.
        """

    @classmethod
    def label(cls) -> str:
        """How listings and errors call it: `com.example.Foo@1`."""
        return f"{cls.domain}.{cls.op}@{cls.since}"
