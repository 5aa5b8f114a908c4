"""Reading an ONNX file: what is wrong with it is said here, once, in one line."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from dscc import scratch
from dscc.errors import FrontendError
from dscc.frontends.onnx import external
from dscc.frontends.onnx.check import check, check_tensor, tensors
from dscc.frontends.onnx.lean import Irregular, lean

MAX_BYTES = 2**31 - 1  # what a protobuf message may have; larger models keep their weights outside


def load(model: Path | str | onnx.ModelProto) -> onnx.ModelProto:
    """The model, checked; large weights are mapped when they are needed (external.py), wherever they are.

    Raises:
        FrontendError: the file is missing, empty, truncated, too large or not ONNX, it breaks a rule of the standard
        (check.py), or its external data is missing or lies outside the model's folder.
    """
    path = None if isinstance(model, onnx.ModelProto) else Path(model)
    proto, held = (model, {}) if isinstance(model, onnx.ModelProto) else _parse(Path(model))
    check(proto, "the model" if path is None else f"'{path}'")
    for what, tensor, _ in tensors(proto):
        check_tensor(tensor, what)
        if path is None and external.is_external(tensor):
            raise FrontendError("the model keeps weights in external files; pass its path instead, or load them first")
    if path is not None:
        external.attach(tensors(proto), path)
        for index, place in held.items():
            external.point(proto.graph.initializer[index], path, *place)
    return proto


def _parse(path: Path) -> tuple[onnx.ModelProto, dict[int, tuple[int, int]]]:
    """The model without its large weights, and where in the file these are, by their indices among the initializers."""
    if not path.exists():
        raise FrontendError(f"cannot find model file '{path}'; check the path")
    if not path.is_file():
        raise FrontendError(f"model '{path}' is not a file; pass the .onnx file itself")
    try:
        size = path.stat().st_size
        if size == 0:
            raise FrontendError(f"model file '{path}' is empty (0 bytes); expected an ONNX model")
        if size > MAX_BYTES:
            raise FrontendError(
                f"model file '{path}' has {size} bytes; allowed: {MAX_BYTES}; save its weights as external data"
            )
        mapping = scratch.mapped(path, size)
    except OSError as err:
        raise FrontendError(f"cannot read model file '{path}': {err.strerror}") from err
    proto = onnx.ModelProto()
    try:
        try:
            found = lean(memoryview(mapping))
            proto.ParseFromString(found.text)
            return proto, found.weights
        except Irregular:
            proto.ParseFromString(mapping[:])
    except DecodeError as err:
        raise FrontendError(
            f"model file '{path}' is not ONNX, or is truncated ({size} bytes); export or download it again"
        ) from err
    return proto, {}
