"""The page of ONNX operators: every one that the standard has, and what becomes of it.

It asks the registry of converters, onnx's schemas, and the engines of the fallback for what they have.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import onnx

from docs.markdown import NOTE, table

CONTRIB = "com.microsoft"

NATIVE = "native"
BODY = "function body"
NOT_YET = "not yet"
MEANING = {
    NATIVE: "a converter compiles it",
    BODY: "the standard defines it by other operators, which are compiled in its place",
    "fallback": "the engine named runs it, unless `--no-fallback` is given, which makes it an error",
    NOT_YET: "an error that names it",
}


def operators() -> str:
    """Every operator of the standard's domains under a heading for each; of onnxruntime's, those with a converter."""
    found = statuses()
    parts = [
        "# ONNX operators",
        NOTE,
        f"All operators of onnx {onnx.__version__}, and what becomes of each when a model of its newest opset is "
        f"compiled. An operator that is deprecated there is listed as of its last opset.",
        table(["status", "what happens", "operators"], _summary(found)),
        "A converter takes over at each opset listed. An operator that is native may still be run by the fallback for "
        "what compiled code does not compute on, such as strings; the compile says so.",
    ]
    for domain in sorted({domain for domain, _ in found}):
        rows = [
            [f"`{name}`", status, _versions(domain, name) if status == NATIVE else ""]
            for (where, name), status in sorted(found.items())
            if where == domain
        ]
        parts += [f"## {domain or 'ai.onnx'}", table(["operator", "status", "converters since opset"], rows)]
    return "\n\n".join(parts)


def statuses() -> dict[tuple[str, str], str]:
    """(domain, operator) to its status."""
    from dscc.frontends.onnx import registry

    schemas = newest()
    contrib = {key: NATIVE for key in registry.operators() if key[0] == CONTRIB}
    return {key: _status(schema) for key, schema in schemas.items()} | contrib


def newest() -> dict[tuple[str, str], Any]:
    """The newest schema of every operator; of a deprecated one the newest that is in use."""
    found: dict[tuple[str, str], Any] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        key = (schema.domain, schema.name)
        if key not in found or (not schema.deprecated and schema.since_version > found[key].since_version):
            found[key] = schema
    return found


def _status(schema: Any) -> str:
    from dscc.frontends.onnx import registry

    if registry.find(schema.domain, schema.name, schema.since_version) is not None:
        return NATIVE
    if schema.has_function or schema.has_context_dependent_function:
        return BODY
    if not _held(schema):
        return NOT_YET
    engine = next((name for name, has in _ENGINES.items() if has(schema)), None)
    return NOT_YET if engine is None else f"fallback: {engine}"


def _held(schema: Any) -> bool:
    """Whether compiled code can hold what the operator takes and gives: tensors, sequences and optionals."""
    formals = [*schema.inputs, *schema.outputs]
    return all(any("map(" not in kind for kind in formal.types) for formal in formals)


def _by_onnxruntime(schema: Any) -> bool:
    return (schema.domain, schema.name) in _kernels()


@cache
def _kernels() -> frozenset[tuple[str, str]]:
    """What onnxruntime has a kernel for on the CPU."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    kernels = state.get_all_opkernel_def()
    return frozenset((each.domain, each.op_name) for each in kernels if each.provider == "CPUExecutionProvider")


def _by_reference(schema: Any) -> bool:
    folder = {"": "", "ai.onnx.ml": "aionnxml.", "ai.onnx.preview.training": "aionnx_preview_training."}
    if schema.domain not in folder:
        return False
    module = importlib.import_module(f"onnx.reference.ops.{folder[schema.domain]}_op_list")
    try:
        module.load_op(schema.domain, schema.name, schema.since_version)
    except (NotImplementedError, RuntimeError):
        return False
    return True


_ENGINES: dict[str, Callable[[Any], bool]] = {"onnxruntime": _by_onnxruntime, "reference": _by_reference}


def _summary(found: dict[tuple[str, str], str]) -> list[list[str]]:
    counted = Counter(status.partition(":")[0] for status in found.values())
    return [[status, meaning, str(counted[status])] for status, meaning in MEANING.items()]


def _versions(domain: str, name: str) -> str:
    from dscc.frontends.onnx import registry

    return ", ".join(map(str, registry.operators()[domain, name]))
