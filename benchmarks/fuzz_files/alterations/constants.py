"""Alterations of weights."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from benchmarks.fuzz_files import fields
from benchmarks.fuzz_files.fields import Random, pick
from benchmarks.fuzz_files.file import EXTENTS, INDICES, File, Nothing, some


def weight_type(rng: Random, file: File) -> None:
    some(rng, file.weights()).data_type = int(rng.integers(0, 28))


def weight_dims(rng: Random, file: File) -> None:
    tensor = some(rng, file.weights())
    choice = rng.integers(4)
    if choice == 0 or not tensor.dims:
        tensor.dims.append(pick(rng, EXTENTS))
    elif choice == 1:
        del tensor.dims[int(rng.integers(len(tensor.dims)))]
    elif choice == 2:
        tensor.dims[:] = list(tensor.dims)[::-1]
    else:
        tensor.dims[int(rng.integers(len(tensor.dims)))] = pick(rng, EXTENTS)


def weight_bytes(rng: Random, file: File) -> None:
    tensor = some(rng, [tensor for tensor in file.weights() if tensor.raw_data])
    tensor.raw_data = fields.altered(rng, tensor.raw_data)


def weight_values(rng: Random, file: File) -> None:
    """Other numbers of the same type: integers that steer an operator become odd or huge."""
    known = [t for t in file.weights() if t.raw_data and not t.external_data and t.data_type in (1, 6, 7)]
    tensor = some(rng, [t for t in known if t.data_location == TensorProto.DEFAULT])
    array = numpy_helper.to_array(tensor).copy()
    flat = array.reshape(-1)
    if not flat.size:
        raise Nothing
    position = int(rng.integers(flat.size))
    if array.dtype.kind == "f":
        flat[position] = pick(rng, fields.FLOATS)
    else:
        limits = np.iinfo(array.dtype)
        value = pick(rng, INDICES) if rng.random() < 0.6 else int(flat[position]) + int(pick(rng, (-1, 1)))
        flat[position] = min(max(value, limits.min), limits.max)
    tensor.raw_data = array.tobytes()


def weight_or_input(rng: Random, file: File) -> None:
    """A weight becomes an input, an input a weight."""
    graph = file.model.graph
    if graph.initializer and rng.random() < 0.6:
        index = int(rng.integers(len(graph.initializer)))
        tensor = graph.initializer[index]
        graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
        if rng.random() < 0.8:
            del graph.initializer[index]
        return
    index = int(rng.integers(len(graph.input)))
    info = graph.input[index]
    shape = [min(max(dim.dim_value, 1), 8) for dim in info.type.tensor_type.shape.dim]
    graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), info.name))
    del graph.input[index]


def sparse_weight(rng: Random, file: File) -> None:
    tensor = some(rng, list(file.model.graph.initializer))
    sparse = file.model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(tensor)
    sparse.indices.CopyFrom(numpy_helper.from_array(np.arange(3), "indices"))
    sparse.dims.extend(tensor.dims)
    if rng.random() < 0.7:
        file.model.graph.initializer.remove(tensor)
