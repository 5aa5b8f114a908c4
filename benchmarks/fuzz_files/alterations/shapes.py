"""Alterations of shapes and types."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from benchmarks.fuzz_files import fields
from benchmarks.fuzz_files.fields import Random, pick
from benchmarks.fuzz_files.file import EXTENTS, File, some

SYMBOLS = ("", "n", "batch", "?", "n*2", "-1", "0", "None", "a b", "é")


def dimension(rng: Random, file: File) -> None:
    dims = [dim for shape in fields.messages(file.model.graph, "TensorShapeProto") for dim in shape.dim]
    dim = some(rng, dims)
    if rng.random() < 0.4:
        dim.dim_param = pick(rng, SYMBOLS)
    else:
        dim.dim_value = pick(rng, EXTENTS) if rng.random() < 0.7 else dim.dim_value + int(pick(rng, (-1, 1)))


def rank(rng: Random, file: File) -> None:
    info = some(rng, [*file.model.graph.input, *file.model.graph.output])
    shape = info.type.tensor_type.shape
    choice = rng.integers(4)
    if choice == 0:
        info.type.tensor_type.ClearField("shape")
    elif choice == 1 and shape.dim:
        del shape.dim[int(rng.integers(len(shape.dim)))]
    else:
        shape.dim.add(dim_value=pick(rng, EXTENTS[:8]))


def element_type(rng: Random, file: File) -> None:
    tensors = list(fields.messages(file.model.graph, "Tensor"))
    some(rng, tensors).elem_type = int(rng.integers(0, 28))


def kind_of_input(rng: Random, file: File) -> None:
    """A sequence, an optional, a map or nothing instead of a tensor."""
    info = some(rng, [*file.model.graph.input, *file.model.graph.output])
    old = onnx.TypeProto()
    old.CopyFrom(info.type)
    info.ClearField("type")
    choice = rng.integers(4)
    if choice == 0:
        info.type.sequence_type.elem_type.CopyFrom(old)
    elif choice == 1:
        info.type.optional_type.elem_type.CopyFrom(old)
    elif choice == 2:
        info.type.map_type.key_type = TensorProto.INT64
        info.type.map_type.value_type.CopyFrom(old)
