"""dscc compiles trained models to fast native code.

    artifact = dscc.compile("model.onnx")
    artifact.save("model.dscc")
    outputs = dscc.load("model.dscc").run(None, {"x": x})

Every name is loaded when it is first used, so that `import dscc` costs nothing and a machine that only runs artifacts
never imports the compiler.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dscc.artifact import Artifact
    from dscc.compiler import compile
    from dscc.errors import DsccError
    from dscc.frontends.base import Frontend
    from dscc.frontends.onnx.operator import OnnxOperator
    from dscc.hookspecs import hookimpl
    from dscc.options import CompileOptions
    from dscc.passes.base import Pass
    from dscc.passes.rewrite import RewritePass
    from dscc.runtime import Module, load
    from dscc.targets.base import Target

__version__ = "0.1.0"

__all__ = [
    "Artifact",
    "CompileOptions",
    "DsccError",
    "Frontend",
    "Module",
    "OnnxOperator",
    "Pass",
    "RewritePass",
    "Target",
    "compile",
    "hookimpl",
    "load",
]

_HOME = {
    "Artifact": "dscc.artifact",
    "CompileOptions": "dscc.options",
    "DsccError": "dscc.errors",
    "Frontend": "dscc.frontends.base",
    "Module": "dscc.runtime",
    "OnnxOperator": "dscc.frontends.onnx.operator",
    "Pass": "dscc.passes.base",
    "RewritePass": "dscc.passes.rewrite",
    "Target": "dscc.targets.base",
    "compile": "dscc.compiler",
    "hookimpl": "dscc.hookspecs",
    "load": "dscc.runtime",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dscc' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
