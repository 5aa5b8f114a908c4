"""One node on the content of shapes: its operator, and the types and sizes that its arrays may have."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from dscc.errors import first_line
from dscc.frontends.onnx.shapes import Dims
from dscc.frontends.onnx.symbolic.arithmetic import Arithmetic, Inexpressible, is_expr
from dscc.frontends.onnx.symbolic.operators import BOOLEAN, MAX_ELEMENTS, OPERATORS, Attributes, cast_type
from dscc.frontends.onnx.values import Array, Ratio, Value, is_float

_LOG = logging.getLogger(__name__)


class Evaluator:
    """Evaluates one operator at a time."""

    def __init__(self, dims: Dims) -> None:
        self._arithmetic = Arithmetic(dims)

    def evaluate(
        self, op: str, inputs: Sequence[Value | None], attr: Callable[..., Any]
    ) -> tuple[list[Array], str] | None:
        """The outputs' elements and their type, or None where the operator is to be converted on tensors."""
        function = OPERATORS.get(op)
        if function is None:
            return None
        given = [None if value is None else value.data for value in inputs]
        if (
            any(value is not None and value.data is None for value in inputs)
            or sum(d.size for d in given if d is not None) > MAX_ELEMENTS
        ):
            return None
        dtype = next(value.dtype for value in inputs if value is not None)
        if op == "Where":
            dtype = inputs[1].dtype  # type: ignore[union-attr]
        arrays = [None if data is None else np.asarray(data).astype(object) for data in given]
        try:
            result = function(self._arithmetic, Attributes(attr, dtype), *arrays)
        except Inexpressible:
            return None
        except (TypeError, ValueError, ArithmeticError, LookupError) as err:
            # What does not fit the operator, in a damaged model: the converter says what is wrong.
            _LOG.debug("a %s of shapes is not evaluated: %s", op, first_line(err))
            return None
        if op == "Cast":
            dtype = cast_type(attr("to"))
        elif op in BOOLEAN:
            dtype = "bool"
        results = result if isinstance(result, list) else [result]
        if not is_float(dtype) and any(isinstance(e, Ratio | Fraction) for r in results for e in r.reshape(-1)):
            return None
        if sum(r.size for r in results) > MAX_ELEMENTS:
            return None
        return [self._finish(r, dtype) for r in results], dtype

    def _finish(self, array: Array, dtype: str) -> Array:
        out = np.empty(array.shape, dtype=object)
        for index, element in np.ndenumerate(array):
            out[index] = self._arithmetic.dims.simplify(element) if is_expr(element) else element
            if isinstance(element, Fraction):
                out[index] = float(element)
        return out
