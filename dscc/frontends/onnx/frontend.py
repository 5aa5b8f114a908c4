"""The front end for ONNX models."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import onnx
import tvm

from dscc.frontends.base import Frontend
from dscc.frontends.onnx.canonicalise import canonicalise
from dscc.frontends.onnx.cut import read
from dscc.frontends.onnx.load import load
from dscc.options import CompileOptions


class OnnxFrontend(Frontend):
    """Reads `.onnx` files, and `onnx.ModelProto`s that are in memory."""

    name: ClassVar[str] = "onnx"
    suffixes: ClassVar[tuple[str, ...]] = (".onnx",)

    @classmethod
    def reads(cls, model: object) -> bool:
        return isinstance(model, onnx.ModelProto)

    def load(self, model: Path | Any, options: CompileOptions) -> tvm.IRModule:
        proto = canonicalise(load(model))
        return read(proto, options.input_shapes, options.fallback)
