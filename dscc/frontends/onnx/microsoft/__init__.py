"""Operators of the domain `com.microsoft`: what onnxruntime's optimizers, quantizers and exporters write.

Most of them are functions of the standard's operators and are written as such (`compose.py`), so that the passes
find the same patterns in them as in a graph that was never fused. There is no schema for them in the onnx package;
the attributes' defaults are those of onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable

from dscc.frontends.onnx.registry import Converter, converter

DOMAIN = "com.microsoft"


def contrib(*ops: str, patterns: bool = False) -> Callable[[Converter], Converter]:
    """Register the decorated function for operators of this domain; see `registry.converter`."""
    return converter(*ops, domain=DOMAIN, patterns=patterns)
