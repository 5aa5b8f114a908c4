"""Reading an ONNX file: what is wrong with it is said here, once, in one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor

from dscc.errors import FrontendError

MAX_BYTES = 2**31 - 1  # what a protobuf message may have; larger models keep their weights outside
MIN_OPSET = 1


def load(model: Path | str | onnx.ModelProto) -> onnx.ModelProto:
    """The model with all its weights in memory.

    Raises:
        FrontendError: the file is missing, empty, truncated, too large or not ONNX, or its external data is missing
        or lies outside the model's folder.
    """
    if isinstance(model, onnx.ModelProto):
        _check(model, "the model")
        if any(_external(tensor) for tensor in _tensors(model)):
            raise FrontendError("the model keeps weights in external files; pass its path instead, or load them first")
        return model
    path = Path(model)
    proto = _parse(path)
    _check(proto, f"'{path}'")
    _load_external(proto, path)
    return proto


def _parse(path: Path) -> onnx.ModelProto:
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
        data = path.read_bytes()
    except OSError as err:
        raise FrontendError(f"cannot read model file '{path}': {err.strerror}") from err
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as err:
        raise FrontendError(
            f"model file '{path}' is not ONNX, or is truncated ({size} bytes); export or download it again"
        ) from err
    return proto


def _check(model: onnx.ModelProto, what: str) -> None:
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise FrontendError(f"{what} is not an ONNX model: it has no graph; export or download it again")
    if not model.graph.output:
        raise FrontendError(
            f"{what} has a graph without outputs, so there is nothing to compute; export it again with outputs"
        )
    if not model.opset_import:
        raise FrontendError(f"{what} names no opset version; an ONNX model imports at least one")
    newest = onnx.defs.onnx_opset_version()
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and not MIN_OPSET <= opset.version <= newest:
            raise FrontendError(
                f"{what} uses opset {opset.version}; supported: {MIN_OPSET} to {newest}; convert it or update onnx"
            )


def _external(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location == onnx.TensorProto.EXTERNAL


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: object) -> Iterator[onnx.TensorProto]:
    for node in nodes:  # type: ignore[attr-defined]
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _graph_tensors(attribute.g)
            for graph in attribute.graphs:
                yield from _graph_tensors(graph)


def _load_external(model: onnx.ModelProto, path: Path) -> None:
    folder = path.parent.resolve()
    for tensor in _tensors(model):
        if not _external(tensor):
            continue
        location = ExternalDataInfo(tensor).location
        target = (folder / location).resolve()
        if os.path.isabs(location) or not target.is_relative_to(folder):
            raise FrontendError(
                f"weight '{tensor.name}' of '{path}' is kept in '{location}', outside the model's folder; "
                f"only files beside the model are read"
            )
        if not target.is_file():
            raise FrontendError(
                f"weight '{tensor.name}' of '{path}' is kept in '{location}', which is missing; put it beside the model"
            )
        try:
            load_external_data_for_tensor(tensor, str(folder))
        except (OSError, ValueError, onnx.checker.ValidationError) as err:
            raise FrontendError(f"weight '{tensor.name}' of '{path}' cannot be read from '{location}': {err}") from err
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
