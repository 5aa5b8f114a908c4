"""Alterations of a model file that know what ONNX is, one function each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from benchmarks.fuzz_files import fields
from benchmarks.fuzz_files.bases import Base
from benchmarks.fuzz_files.fields import Random, pick

SYMBOLS = ("", "n", "batch", "?", "n*2", "-1", "0", "None", "a b", "é")
EXTENTS = (0, 1, 2, 3, 5, 17, -1, -2, 2**16, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, -(2**63))
INDICES = (0, 1, -1, 2, -2, 3, 5, 100, 2**31 - 1, -(2**31), 2**31, 2**40, 2**62, 2**63 - 1, -(2**63), -(2**63) + 1)
PLACES = (
    "../m.onnx", "/etc/hostname", "a.bin", "sub/b.bin", "sub/../a.bin", "link.bin", "away.bin", "hard.bin", "loop.bin",
    "sub", ".", "", "missing.bin", "a\0b", "/dev/zero", "/proc/self/mem", "pipe", "C:\\x", "x" * 300, "file://a.bin",
)  # fmt: skip


@dataclass
class File:
    """A model that is being altered, and the files beside it."""

    model: onnx.ModelProto
    files: dict[str, bytes] = field(default_factory=dict)
    content: bytes | None = None  # what is written instead of the model, once its bytes are altered

    def write(self, folder: Path) -> Path:
        """Put all of it into an empty folder; the path of the model."""
        content = self.model.SerializeToString() if self.content is None else self.content
        path = folder / "m.onnx"
        path.write_bytes(content)
        for name, data in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        if self.files:
            (folder / "link.bin").symlink_to("a.bin")
            (folder / "away.bin").symlink_to("/etc/hostname")
            (folder / "loop.bin").symlink_to("loop.bin")
            (folder / "hard.bin").hardlink_to(path)
        return path


Alteration = Callable[[Random, File], None]


class Nothing(Exception):
    """The file has nothing that could be altered so."""


# What protobuf and NumPy do not take is not written either.
IMPOSSIBLE = (Nothing, DecodeError, EncodeError, TypeError, ValueError)


def alter(seed: int, number: int, base: Base, kept: Sequence[int] | None = None) -> tuple[File, int]:
    """The file `number` of a seed, and how many alterations it has.

    Args:
        kept: which of its alterations are made; each has a generator of its own, so that others can be left out.
    """
    rng = np.random.default_rng([seed, number])
    file = File(onnx.ModelProto.FromString(base.model), dict(base.files))
    count = int(pick(rng, (1, 1, 1, 2, 2, 3, 4, 8)))
    chosen = [TABLE[int(rng.choice(len(TABLE), p=_WEIGHTS))] for _ in range(count)]
    for index, alteration in enumerate(chosen):
        if kept is None or index in kept:
            for attempt in range(5):
                try:
                    alteration(np.random.default_rng([seed, number, index, attempt]), file)
                    break
                except IMPOSSIBLE:
                    continue
    return file, count


def _graphs(model: onnx.ModelProto) -> list[onnx.GraphProto]:
    return [graph for graph in fields.messages(model, "GraphProto") if graph.node]


def _nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return list(fields.messages(model, "NodeProto"))


def _some(rng: Random, items: Sequence[Any]) -> Any:
    if not items:
        raise Nothing
    return pick(rng, items)


def _names(model: onnx.ModelProto) -> list[str]:
    found = {name for node in _nodes(model) for name in (*node.input, *node.output)}
    return [*sorted(found), "", "nothing"]


# Fields and bytes.


def any_field(rng: Random, file: File) -> None:
    fields.change(rng, fields.within(rng, file.model))


def field_of_node(rng: Random, file: File) -> None:
    fields.change(rng, fields.within(rng, _some(rng, _nodes(file.model))))


def some_bytes(rng: Random, file: File) -> None:
    content = file.model.SerializeToString() if file.content is None else file.content
    for _ in range(int(pick(rng, (1, 1, 2, 5)))):
        content = fields.altered(rng, content)
    file.content = content


def name_in_bytes(rng: Random, file: File) -> None:
    """A name that is no UTF-8."""
    names = [name for name in _names(file.model) if len(name.encode()) > 1]
    old = _some(rng, names).encode()
    content = file.model.SerializeToString() if file.content is None else file.content
    file.content = content.replace(old, b"\xff\xfe" + old[2:], int(pick(rng, (1, 2, 1000))))


# Shapes and types.


def dimension(rng: Random, file: File) -> None:
    dims = [dim for shape in fields.messages(file.model.graph, "TensorShapeProto") for dim in shape.dim]
    dim = _some(rng, dims)
    if rng.random() < 0.4:
        dim.dim_param = pick(rng, SYMBOLS)
    else:
        dim.dim_value = pick(rng, EXTENTS) if rng.random() < 0.7 else dim.dim_value + int(pick(rng, (-1, 1)))


def rank(rng: Random, file: File) -> None:
    info = _some(rng, [*file.model.graph.input, *file.model.graph.output])
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
    _some(rng, tensors).elem_type = int(rng.integers(0, 28))


def kind_of_input(rng: Random, file: File) -> None:
    """A sequence, an optional, a map or nothing instead of a tensor."""
    info = _some(rng, [*file.model.graph.input, *file.model.graph.output])
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


# Weights.


def _dense(file: File) -> list[TensorProto]:
    return list(fields.messages(file.model, "TensorProto"))


def weight_type(rng: Random, file: File) -> None:
    _some(rng, _dense(file)).data_type = int(rng.integers(0, 28))


def weight_dims(rng: Random, file: File) -> None:
    tensor = _some(rng, _dense(file))
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
    tensor = _some(rng, [tensor for tensor in _dense(file) if tensor.raw_data])
    tensor.raw_data = fields.altered(rng, tensor.raw_data)


def weight_values(rng: Random, file: File) -> None:
    """Other numbers of the same type: integers that steer an operator become odd or huge."""
    known = [t for t in _dense(file) if t.raw_data and not t.external_data and t.data_type in (1, 6, 7)]
    tensor = _some(rng, [t for t in known if t.data_location == TensorProto.DEFAULT])
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
    index = int(rng.integers(len(_sure(graph.input))))
    info = graph.input[index]
    shape = [min(max(dim.dim_value, 1), 8) for dim in info.type.tensor_type.shape.dim]
    graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), info.name))
    del graph.input[index]


def _sure(items: Any) -> Any:
    if not items:
        raise Nothing
    return items


def sparse_weight(rng: Random, file: File) -> None:
    tensor = _some(rng, list(file.model.graph.initializer))
    sparse = file.model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(tensor)
    sparse.indices.CopyFrom(numpy_helper.from_array(np.arange(3), "indices"))
    sparse.dims.extend(tensor.dims)
    if rng.random() < 0.7:
        file.model.graph.initializer.remove(tensor)


# External data.


def move_outside(rng: Random, file: File) -> None:
    tensor = _some(rng, [t for t in _dense(file) if t.raw_data])
    content = file.files.get("a.bin", b"").ljust(64, b"\0")
    file.files["a.bin"] = content + tensor.raw_data
    for key, value in (("location", "a.bin"), ("offset", len(content)), ("length", len(tensor.raw_data))):
        tensor.external_data.add(key=key, value=str(value))
    tensor.data_location = TensorProto.EXTERNAL
    if rng.random() < 0.8:
        tensor.ClearField("raw_data")


def place(rng: Random, file: File) -> None:
    """Another location, offset or length."""
    tensor = _some(rng, [t for t in _dense(file) if t.external_data])
    entry = pick(rng, tensor.external_data)
    if entry.key == "location":
        entry.value = pick(rng, PLACES)
    elif rng.random() < 0.5:
        entry.value = str(pick(rng, (*EXTENTS, 10**30)))
    else:
        entry.value = pick(rng, ("", "x", "1e3", "0x10", " 4", "+4", "4.0", "٣", "-0", "0" * 400))


def places_swapped(rng: Random, file: File) -> None:
    tensors = [t for t in _dense(file) if t.external_data]
    one, other = _some(rng, tensors), _some(rng, tensors)
    fields.change(rng, _some(rng, list(one.external_data)))
    del other.external_data[:]
    other.external_data.extend(one.external_data)


def outside_bytes(rng: Random, file: File) -> None:
    name = _some(rng, sorted(file.files))
    file.files[name] = fields.altered(rng, file.files[name])


# Nodes, edges and names.


def edge(rng: Random, file: File) -> None:
    node = _some(rng, [node for node in _nodes(file.model) if node.input])
    node.input[int(rng.integers(len(node.input)))] = pick(rng, _names(file.model))


def more_or_fewer_edges(rng: Random, file: File) -> None:
    node = _some(rng, _nodes(file.model))
    names = pick(rng, (node.input, node.output))
    if names and rng.random() < 0.6:
        del names[int(rng.integers(len(names)))]
    else:
        names.append(pick(rng, _names(file.model)))


def output_name(rng: Random, file: File) -> None:
    node = _some(rng, [node for node in _nodes(file.model) if node.output])
    node.output[int(rng.integers(len(node.output)))] = pick(rng, _names(file.model))


def rename(rng: Random, file: File) -> None:
    """One name everywhere, to something odd or to another one."""
    old, new = pick(rng, _names(file.model)), pick(rng, (*fields.TEXTS, *_names(file.model)[:8]))
    for node in _nodes(file.model):
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for kind in ("ValueInfoProto", "TensorProto"):
        for each in fields.messages(file.model, kind):
            if each.name == old:
                each.name = new


def operator(rng: Random, file: File) -> None:
    node = _some(rng, _nodes(file.model))
    node.op_type = _some(rng, _OPERATORS)
    if rng.random() < 0.1:
        node.domain = pick(rng, ("ai.onnx", "ai.onnx.ml", "com.microsoft", "local", "org.x"))


_OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""})


def node_list(rng: Random, file: File) -> None:
    """A node is left out, doubled or moved."""
    graph = _some(rng, _graphs(file.model))
    nodes = [_copy(node) for node in graph.node]
    index, target = (int(rng.integers(len(nodes))) for _ in range(2))
    node = nodes[index] if rng.random() < 0.4 else nodes.pop(index)
    if rng.random() < 0.6:
        nodes.insert(target, node)
    del graph.node[:]
    graph.node.extend(nodes)


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


# Attributes.


def attribute_value(rng: Random, file: File) -> None:
    attribute = _some(rng, list(fields.messages(file.model, "AttributeProto")))
    if attribute.type == AttributeProto.INT:
        attribute.i = pick(rng, INDICES)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = pick(rng, fields.FLOATS)
    elif attribute.type == AttributeProto.INTS:
        if attribute.ints and rng.random() < 0.7:
            attribute.ints[int(rng.integers(len(attribute.ints)))] = pick(rng, INDICES)
        elif attribute.ints and rng.random() < 0.5:
            del attribute.ints[-1]
        else:
            attribute.ints.append(pick(rng, INDICES))
    elif attribute.type == AttributeProto.STRING:
        words = (b"", b"\xff", b"linear", b"SAME_LOWER", b"VALID", b"reflect", b"wrap", b"ij,jk->", b"...->")
        attribute.s = pick(rng, words) if rng.random() < 0.7 else fields.altered(rng, attribute.s)
    else:
        fields.change(rng, fields.within(rng, attribute))


def attribute_type(rng: Random, file: File) -> None:
    attribute = _some(rng, list(fields.messages(file.model, "AttributeProto")))
    attribute.type = int(rng.integers(0, 15))


def attribute_list(rng: Random, file: File) -> None:
    """An attribute is taken away, doubled, comes from another node, or refers to one of a function."""
    node = _some(rng, _nodes(file.model))
    choice = rng.integers(4)
    if choice == 0 and node.attribute:
        del node.attribute[int(rng.integers(len(node.attribute)))]
    elif choice == 1 and node.attribute:
        node.attribute.append(pick(rng, node.attribute))
    elif choice == 2:
        node.attribute.append(_some(rng, list(fields.messages(file.model, "AttributeProto"))))
    else:
        name = pick(rng, [a.name for a in node.attribute] or ["axis"])
        node.attribute.add(name=name, type=AttributeProto.INT, ref_attr_name=pick(rng, ("alpha", "nothing", name)))


# Versions, functions and subgraphs.


def opset(rng: Random, file: File) -> None:
    imports = file.model.opset_import
    choice = rng.integers(5)
    if choice == 0 and imports:
        del imports[int(rng.integers(len(imports)))]
    elif choice == 1:
        domain = pick(rng, ("", "ai.onnx", "ai.onnx.ml", "x", "com.microsoft"))
        imports.add(domain=domain, version=pick(rng, (1, 9, 99)))
    elif choice == 2:
        file.model.ir_version = pick(rng, fields.NUMBERS)
    else:
        version = int(rng.integers(-1, 29)) if rng.random() < 0.8 else pick(rng, fields.NUMBERS)
        _some(rng, list(imports)).version = version


def into_function(rng: Random, file: File) -> None:
    """A node becomes a call of a function that has its body; or a call within a function becomes one of itself."""
    functions = file.model.functions
    if functions and rng.random() < 0.5:
        function, callee = pick(rng, functions), pick(rng, functions)
        node = _some(rng, list(function.node))
        node.op_type, node.domain = callee.name, callee.domain
        return
    node = _some(rng, list(file.model.graph.node))
    inputs = list(dict.fromkeys(name for name in node.input if name))
    name = f"Made{len(functions)}"
    functions.append(
        helper.make_function(
            "local", name, inputs, [o for o in node.output if o], [_copy(node)], list(file.model.opset_import)
        )
    )
    call = helper.make_node(name, inputs, [o for o in node.output if o], domain="local")
    node.CopyFrom(call)
    if not any(each.domain == "local" for each in file.model.opset_import):
        file.model.opset_import.add(domain="local", version=1)


def into_branch(rng: Random, file: File) -> None:
    """A node moves into a branch of an If, or the body of a Loop, nested a few or many times."""
    graph = _some(rng, _graphs(file.model))
    node = _some(rng, list(graph.node))
    outputs = [name for name in node.output if name]
    inner = _copy(node)
    yes, trips = f"yes{len(graph.node)}", f"trips{len(graph.node)}"
    for depth in range(int(pick(rng, (1, 1, 2, 3, 12, 40)))):
        infos = [helper.make_empty_tensor_value_info(name) for name in outputs]
        if rng.random() < 0.7:
            branch = helper.make_graph([inner], f"branch{depth}", [], infos)
            other = branch if depth < 2 else helper.make_graph([_copy(node)], f"other{depth}", [], infos)
            inner = helper.make_node("If", [yes], outputs, then_branch=branch, else_branch=other)
        else:
            go = f"go{depth}"
            passed = helper.make_node("Identity", [yes], [go])
            body = helper.make_graph(
                [passed, inner],
                f"body{depth}",
                [helper.make_tensor_value_info(f"i{depth}", 7, []), helper.make_tensor_value_info(f"c{depth}", 9, [])],
                [helper.make_tensor_value_info(go, 9, []), *infos],
            )
            inner = helper.make_node("Loop", [trips, yes], outputs, body=body)
    node.CopyFrom(inner)
    graph.initializer.append(numpy_helper.from_array(np.array(True), yes))
    graph.initializer.append(numpy_helper.from_array(np.array(int(pick(rng, (0, 1, 2, 3)))), trips))


TABLE: tuple[Alteration, ...] = (
    any_field, field_of_node, some_bytes, name_in_bytes, dimension, rank, element_type, kind_of_input, weight_type,
    weight_dims, weight_bytes, weight_values, weight_or_input, sparse_weight, move_outside, place, places_swapped,
    outside_bytes, edge, more_or_fewer_edges, output_name, rename, operator, node_list, attribute_value, attribute_type,
    attribute_list, opset, into_function, into_branch,
)  # fmt: skip
# Those that end at the parser or in the first checks are the rarer ones.
_RARE: dict[Alteration, float] = {
    some_bytes: 0.7, any_field: 0.7, name_in_bytes: 0.3, sparse_weight: 0.3, attribute_type: 0.4, output_name: 0.4,
}  # fmt: skip
_OFTEN: dict[Alteration, float] = {weight_values: 2.5, dimension: 1.5, attribute_value: 2.5, operator: 2.5, edge: 1.5}
_WEIGHTS = np.array([_RARE.get(each, _OFTEN.get(each, 1.0)) for each in TABLE])
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
