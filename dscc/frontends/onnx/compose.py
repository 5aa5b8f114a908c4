"""Operators of the standard, called from the converter of an operator that is a function of them.

    op = Standard(node)
    op.LayerNormalization(op.Add(x, skip), gamma, beta, axis=-1)

Each call goes the way of a node of the graph: content known while compiling is folded, shapes are evaluated on
dimensions, and the rest is converted. So the fusion passes find the same patterns as in a graph that spells them out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from tvm import relax

from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.values import DTYPES, Value, numpy_dtype

OPSET = 23  # the version of the standard that the calls mean
CODES = {name: code for code, name in DTYPES.items()}


class Standard:
    """Calls operators for one node. Inputs are Values, Relax expressions, arrays, None for one that is left out,
    numbers, which take the type of the first tensor, or lists of dimensions, which become int64.
    """

    def __init__(self, node: Node, opset: int = OPSET):
        self._node = node
        self._opsets = {"": opset, "com.microsoft": 1}

    def __getattr__(self, name: str) -> Callable[..., Value]:
        return lambda *inputs, **attributes: self.several(name, 1, *inputs, **attributes)[0]

    def several(self, name: str, outputs: int, *inputs: Any, domain: str = "", **attributes: Any) -> list[Value]:
        """The first `outputs` outputs of operator `name`; attributes that are None are left out."""
        like = next((x.dtype for x in inputs if isinstance(x, Value)), None)
        given = [self._input(x, like) for x in inputs]
        proto = onnx.helper.make_node(
            name,
            [f"i{index}" if value is not None else "" for index, value in enumerate(given)],
            [f"{name.lower()}_{index}" if index else name.lower() for index in range(outputs)],
            domain=domain,
            **{key: value for key, value in attributes.items() if value is not None},
        )
        found = {attribute.name: attribute for attribute in proto.attribute}
        return self._node.importer.call(self._node, proto, given, self._opsets, found)[:outputs]

    def cast(self, x: Value, dtype: str) -> Value:
        """x in another type, named as TVM names it."""
        return x if x.dtype == dtype else self.several("Cast", 1, x, to=CODES[dtype])[0]

    def _input(self, x: Any, like: str | None) -> Value | None:
        if x is None or isinstance(x, Value):
            return x
        if isinstance(x, bool | int | float):
            return self._node.value(np.asarray(x).astype(numpy_dtype(like or "float32")))
        if isinstance(x, relax.Expr | np.ndarray | np.generic):
            return self._node.value(x)
        return self._node.symbolic(list(x))
