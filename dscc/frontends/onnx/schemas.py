"""What the standard says of an operator in one of its versions."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import Any

import onnx

# Operators that onnxruntime has in the standard's own domain from version 1 on, and so its tools and old converters
# write them into models that import an opset before that with which the standard got them.
OLDER_THAN_THE_STANDARD = frozenset({"LayerNormalization", "MeanVarianceNormalization", "ThresholdedRelu"})


@cache
def versions(domain: str, op: str) -> tuple[Any, ...]:
    """All versions of an operator, the oldest first; none if the standard does not know it."""
    return tuple(sorted(_history().get((domain, op), ()), key=lambda schema: int(schema.since_version)))


@cache
def schema(domain: str, op: str, opset: int) -> Any:
    """An operator as a model of version `opset` of its domain means it, or None if there was none then."""
    known = versions(domain, op)
    if known and not domain and op in OLDER_THAN_THE_STANDARD:
        opset = max(opset, known[0].since_version)
    try:
        return onnx.defs.get_schema(op, opset, domain)
    except (onnx.defs.SchemaError, TypeError):  # a version beyond 32 bits is of another type to it
        return None


@cache
def _history() -> dict[tuple[str, str], list[Any]]:
    found: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for each in onnx.defs.get_all_schemas_with_history():
        found[each.domain, each.name].append(each)
    return found
