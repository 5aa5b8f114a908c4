"""Which function converts which operator.

    @converter("Gelu", since=20)
    def gelu(node: Node, x: Value) -> Expr: ...

A converter gets the node and its inputs (None for one that is left out) and returns its output, or a tuple of
outputs: a Relax expression, a NumPy array for content known while compiling, or a Value. The greatest `since` up to
the model's opset wins. Operators of other domains may come from plug-ins (operator.py).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from dscc.errors import PluginError
from dscc.plugins import registry

if TYPE_CHECKING:
    from dscc.frontends.onnx.operator import OnnxOperator

Converter = Callable[..., Any]

_TABLE: dict[tuple[str, str], dict[int, Converter]] = {}
_DECODING: set[Converter] = set()
_DOMAINS = {"ai.onnx": ""}


def canonical_domain(domain: str) -> str:
    """The empty string for ONNX's own domain, which has two spellings."""
    return _DOMAINS.get(domain, domain)


def converter(*ops: str, since: int = 1, domain: str = "", patterns: bool = False) -> Callable[[Converter], Converter]:
    """Register the decorated function for the operators `ops` of `domain`, from opset version `since` on.

    Args:
        patterns: the function heeds `Value.element`: it takes inputs that are bit patterns of another type.
    """

    def register(function: Converter) -> Converter:
        for op in ops:
            versions = _TABLE.setdefault((domain, op), {})
            if since in versions:
                both = f"{versions[since].__name__} and {function.__name__}"
                raise ValueError(f"operator '{op}', version {since}, has two converters: {both}")
            versions[since] = function
        if patterns:
            _DECODING.add(function)
        return function

    return register


@cache
def _load_all() -> None:
    from dscc.frontends.onnx import microsoft, ml, ops

    for package in (ops, microsoft, ml):
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")


def find(domain: str, op: str, opset: int) -> Converter | None:
    """The converter of an operator for a model of version `opset`, or None."""
    _load_all()
    versions = _TABLE.get((canonical_domain(domain), op), {})
    known = [since for since in versions if since <= opset]
    return versions[max(known)] if known else None


def contributed(domain: str, op: str, version: int) -> OnnxOperator | None:
    """The operator of a plug-in for a model that imports this version of the domain, or None.

    Raises:
        PluginError: dscc converts the operator itself.
    """
    offered = registry().operators.values()
    known = [cls for cls in offered if (cls.domain, cls.op) == (domain, op) and cls.since <= version]
    if not known:
        return None
    cls = max(known, key=lambda cls: cls.since)
    if (canonical_domain(domain), op) in _TABLE:
        owner = registry().owner("operator", cls.label()).name
        raise PluginError(
            f"operator '{domain}.{op}' is provided by both 'dscc.frontends' and '{owner}'; block one of them with "
            f"'-p no:{owner}'"
        )
    return _made(cls)


@cache
def _made(cls: type[OnnxOperator]) -> OnnxOperator:
    return cls()


def heeds_patterns(function: Converter) -> bool:
    """Whether a converter takes inputs that are bit patterns of another type."""
    return function in _DECODING


def operators() -> dict[tuple[str, str], tuple[int, ...]]:
    """(domain, operator) to the versions it has converters for."""
    _load_all()
    return {key: tuple(sorted(versions)) for key, versions in sorted(_TABLE.items())}
