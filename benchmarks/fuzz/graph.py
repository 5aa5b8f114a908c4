"""A graph under construction, with the values that it computes.

Every node is evaluated when it is added, by onnx's reference evaluator, for each of several *bindings* of the
symbolic dimensions. So a generator sees shapes and contents of its operands as numbers: it proposes a node, and one
that does not fit, or whose results cannot be compared (NaN everywhere, huge), is rejected and leaves no trace. Shapes
that depend on data, or that the graph computes, need no algebra here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes  # noqa: F401  NumPy knows bfloat16 by name once it is imported
import numpy as np
import onnx
from onnx import helper

from benchmarks.fuzz import engines
from benchmarks.fuzz.engines import Array

BINDINGS = 3
MAX_ELEMENTS = 60_000
SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 20, 24, 31, 33)
LARGEST = {"float16": 200.0, "bfloat16": 1e4, "float32": 1e5, "float64": 1e6}


class Rejected(Exception):
    """A node that is not valid here, or whose result is of no use."""


class Undone(Rejected):
    """All that the generator has added is to be taken back."""


@dataclass
class Value:
    """A tensor of the graph: its content under every binding; `fixed` if the same array is a weight of the model."""

    name: str
    arrays: list[Array]
    fixed: bool = False
    users: int = 0

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.arrays[0].dtype

    @property
    def kind(self) -> str:
        """'f' float, 'i' signed, 'u' unsigned, 'b' bool."""
        return "f" if self.dtype.name == "bfloat16" else self.dtype.kind

    @property
    def ndim(self) -> int:
        return self.arrays[0].ndim

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [array.shape for array in self.arrays]

    def sizes(self, axis: int) -> tuple[int, ...]:
        """The extent of an axis under every binding."""
        return tuple(array.shape[axis] for array in self.arrays)

    def static(self, axis: int) -> bool:
        """Whether the extent is the same under every binding."""
        return len(set(self.sizes(axis))) == 1


@dataclass
class Input:
    """An input of the graph, with its declared dimensions."""

    value: Value
    dims: list[int | str]


@dataclass
class Graph:
    """What has been built so far."""

    rng: np.random.Generator
    opset: int = 20
    bindings: int = BINDINGS
    inputs: list[Input] = field(default_factory=list)
    weights: list[Value] = field(default_factory=list)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    symbols: dict[str, tuple[int, ...]] = field(default_factory=dict)
    counter: int = 0

    # Choices.

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def choose(self, options: Sequence[Any]) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def integer(self, low: int, high: int) -> int:
        """Uniform, both ends included."""
        if low > high:
            raise Rejected("an empty range")
        return int(self.rng.integers(low, high + 1))

    def pick(self, accept: Callable[[Value], bool] = lambda value: True) -> Value:
        """A value of the graph, more often one that is new or has no user yet."""
        found = [value for value in self.values if accept(value)]
        if not found:
            raise Rejected("no such value")
        weight = np.array([(4.0 if not v.users else 1.0) + 3.0 * i / len(found) for i, v in enumerate(found)])
        return found[int(self.rng.choice(len(found), p=weight / weight.sum()))]

    def floats(self, rank: int | None = None, least: int = 0) -> Value:
        """A value of a floating type; of this rank, or of at least `least`."""
        return self.pick(
            lambda v: v.kind == "f" and v.ndim >= least and (rank is None or v.ndim == rank) and not v.fixed
        )

    # Building.

    def name(self, base: str) -> str:
        self.counter += 1
        return f"{base}{self.counter}"

    def symbol(self) -> str:
        """A symbolic dimension, new or used before."""
        if self.symbols and self.chance(0.5):
            return str(self.choose(list(self.symbols)))
        name = f"s{len(self.symbols)}"
        self.symbols[name] = tuple(int(self.choose(SIZES)) for _ in range(self.bindings))
        return name

    def content(self, dtype: str, shape: Sequence[int]) -> Array:
        """Random content of a type, of moderate size."""
        if dtype == "bool":
            return self.rng.random(shape) < 0.5
        if dtype.startswith(("float", "bfloat")):
            values = self.rng.standard_normal(shape)
            return np.asarray(np.round(values * 64) / 64 if self.chance(0.2) else values).astype(dtype)
        low = 0 if dtype.startswith("u") else -9
        return self.rng.integers(low, 10, shape).astype(dtype)

    def input(self, dtype: str, dims: Sequence[int | str]) -> Value:
        """A new input of the model; symbols stand for other sizes under each binding."""
        arrays = [
            self.content(dtype, [self.symbols[d][i] if isinstance(d, str) else d for d in dims])
            for i in range(self.bindings)
        ]
        if max(array.size for array in arrays) > MAX_ELEMENTS:
            raise Rejected("too large")
        value = Value(self.name("x"), arrays)
        self.inputs.append(Input(value, list(dims)))
        self.values.append(value)
        return value

    def weight(self, array: Array, reuse: bool = False) -> Value:
        """A constant tensor: an initializer, or the output of a Constant node. `reuse`: later nodes may pick it."""
        value = Value(self.name("w"), [np.asarray(array)] * self.bindings, fixed=True)
        if self.chance(0.15):
            self.nodes.append(
                helper.make_node("Constant", [], [value.name], value=onnx.numpy_helper.from_array(value.arrays[0]))
            )
        else:
            self.weights.append(value)
        if reuse:
            self.values.append(value)
        return value

    def ints(self, *numbers: int, dtype: str = "int64") -> Value:
        """A constant list of integers, as shapes and axes are given."""
        return self.weight(np.array(numbers, dtype))

    def add(
        self, op: str, inputs: Sequence[Value | None], outputs: int = 1, domain: str = "", **attributes: Any
    ) -> list[Value]:
        """Add a node and compute it.

        Raises:
            Rejected: it is not valid on these operands, or its result cannot be compared.
        """
        node = self.node(op, inputs, outputs, domain, **attributes)
        types = [] if domain else _output_types(op, domain, self.opset, inputs)
        return self.attach([node], [value for value in inputs if value is not None], list(node.output), types)

    def node(
        self, op: str, inputs: Sequence[Value | str | None], outputs: int = 1, domain: str = "", **attributes: Any
    ) -> onnx.NodeProto:
        """A node for `attach`; its inputs are values, or names of what other nodes make."""
        given = {k: v for k, v in attributes.items() if v is not None}
        names = [value.name if isinstance(value, Value) else value or "" for value in inputs]
        return helper.make_node(op, names, [self.name("v") for _ in range(outputs)], domain=domain, **given)

    def attach(
        self,
        nodes: Sequence[onnx.NodeProto],
        operands: Sequence[Value],
        made: Sequence[str],
        types: Sequence[np.dtype[Any] | None] = (),
    ) -> list[Value]:
        """Add nodes whose last results are the tensors `made`: what lies between may be sequences and the like.

        Args:
            operands: what the nodes take from the graph, their subgraphs included.
            types: of the results, where they are known: the evaluator computes some in wider ones.

        Raises:
            Rejected: as `add`.
        """
        imports = [helper.make_opsetid("", self.opset)]
        imports += [helper.make_opsetid(domain, 1) for domain in sorted({node.domain for node in nodes} - {""})]
        runs = [{value.name: value.arrays[i] for value in operands} for i in range(self.bindings)]
        try:
            results = engines.by_evaluator(nodes, imports, runs, made)
        except engines.Refused as err:
            if not self.lacking(nodes):
                raise Rejected(str(err)) from err
            try:
                results = engines.by_runtime(nodes, imports, runs, made)
            except engines.Refused as other:
                raise Rejected(str(other)) from other
        values = [Value(name, [np.asarray(r[i]) for r in results]) for i, name in enumerate(made)]
        for value, dtype in zip(values, types, strict=False):
            if dtype is not None and value.dtype != dtype:
                value.arrays = [array.astype(dtype) for array in value.arrays]
        for value in values:
            check(value)
        for operand in operands:
            operand.users += 1
        self.nodes.extend(nodes)
        self.values.extend(values)
        return values

    @staticmethod
    def lacking(nodes: Sequence[onnx.NodeProto]) -> bool:
        """Whether onnx's evaluator is known to lack one of these, so that onnxruntime computes them."""
        return any(node.domain or node.op_type in _LACKING for node in nodes)

    # Taking back.

    def mark(self) -> tuple[int, ...]:
        """Where the graph stands, for `rewind`."""
        return len(self.inputs), len(self.weights), len(self.nodes), len(self.values)

    def rewind(self, mark: tuple[int, ...]) -> None:
        """Take back what was added since."""
        for part, size in zip((self.inputs, self.weights, self.nodes, self.values), mark, strict=True):
            del part[size:]  # type: ignore[attr-defined]

    # Graphs within the graph.

    def inner(self, given: Sequence[Value] = ()) -> Inner:
        """A graph that sees the values of this one, and `given`, its own inputs; for the body of a control operator."""
        return Inner(
            self.rng, self.opset, self.bindings, values=[*self.values, *given], symbols=self.symbols, outer=self
        )

    def model(self, outputs: Sequence[Value]) -> onnx.ModelProto:
        """The graph so far as a model with these outputs."""
        graph = helper.make_graph(
            self.nodes,
            "fuzz",
            [helper.make_tensor_value_info(i.value.name, _code(i.value.dtype), i.dims) for i in self.inputs],
            [helper.make_tensor_value_info(v.name, _code(v.dtype), [None] * v.ndim) for v in outputs],
            [onnx.numpy_helper.from_array(w.arrays[0], w.name) for w in self.weights],
        )
        domains = sorted({node.domain for node in self.nodes if node.domain})
        imports = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
        return helper.make_model(graph, opset_imports=imports, ir_version=10)

    def feeds(self) -> list[dict[str, Array]]:
        """The inputs, by name, for every binding."""
        return [{i.value.name: i.value.arrays[b] for i in self.inputs} for b in range(self.bindings)]


def _output_types(op: str, domain: str, opset: int, inputs: Sequence[Value | None]) -> list[np.dtype[Any] | None]:
    """The types of the outputs where they are those of an input; operands of types that the operator lacks are
    rejected, since NumPy takes them.
    """
    try:
        schema = onnx.defs.get_schema(op, opset, domain)
    except onnx.defs.SchemaError as err:
        raise Rejected(f"{op} is not in opset {opset}") from err
    bound: dict[str, np.dtype[Any]] = {}
    for i, value in enumerate(inputs):
        formal = schema.inputs[min(i, len(schema.inputs) - 1)]
        if value is None:
            continue
        if f"tensor({_SPELLED.get(value.dtype.name, value.dtype.name)})" not in formal.types:
            raise Rejected(f"{op} takes no {value.dtype}")
        heterogeneous = formal.option == onnx.defs.OpSchema.FormalParameterOption.Variadic and not formal.is_homogeneous
        if not heterogeneous and bound.setdefault(formal.type_str, value.dtype) != value.dtype:
            raise Rejected(f"{op} takes operands of one type")
    return [bound.get(formal.type_str) for formal in schema.outputs]


_SPELLED = {"float32": "float", "float64": "double"}
_LACKING = frozenset("LSTM GRU RNN Scan Loop MaxRoiPool GlobalLpPool MeanVarianceNormalization MaxUnpool".split())


def check(value: Value) -> None:
    """Reject a result that is of no use for a comparison."""
    if len({(array.dtype, array.ndim) for array in value.arrays}) > 1:
        raise Rejected("rank or type depends on the sizes")
    if value.dtype.name not in TYPES:
        raise Rejected(f"type {value.dtype}")
    for array in value.arrays:
        if array.size > MAX_ELEMENTS:
            raise Rejected("too large")
        if value.kind == "f" and array.size:
            wide = array.astype(np.float64)
            if not np.isfinite(wide).all() or np.abs(wide).max() > LARGEST[value.dtype.name]:
                raise Rejected("not finite, or large")


TYPES = (
    *("float32", "float16", "float64", "bfloat16", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)


def _code(dtype: np.dtype[Any]) -> int:
    return int(helper.np_dtype_to_tensor_dtype(dtype))


@dataclass
class Inner(Graph):
    """The body of a control operator while it is built: it has no inputs of the model."""

    outer: Graph | None = None

    @property
    def depth(self) -> int:
        """How many control operators it lies in."""
        return 1 + (self.outer.depth if isinstance(self.outer, Inner) else 0)

    def name(self, base: str) -> str:
        assert self.outer is not None
        return self.outer.name(base)

    def symbol(self) -> str:
        raise Rejected("a graph within another has no inputs of the model")

    def input(self, dtype: str, dims: Sequence[int | str]) -> Value:
        raise Rejected("a graph within another has no inputs of the model")

    def made(self) -> list[Value]:
        """What its nodes compute."""
        names = {name for node in self.nodes for name in node.output}
        return [v for v in self.values if v.name in names]

    def body(self, inputs: Sequence[Value], outputs: Sequence[Value]) -> onnx.GraphProto:
        """The graph, with these inputs and outputs. Their ranks are stated; it may run on other sizes."""
        infos = [
            [helper.make_tensor_value_info(v.name, _code(v.dtype), [None] * v.ndim) for v in values]
            for values in (inputs, outputs)
        ]
        weights = [onnx.numpy_helper.from_array(w.arrays[0], w.name) for w in self.weights]
        return helper.make_graph(self.nodes, "body", infos[0], infos[1], weights)

    def captured(self, inputs: Sequence[Value], outputs: Sequence[Value]) -> list[Value]:
        """What the graph takes from the one around it."""
        own = {v.name for v in inputs} | {name for node in self.nodes for name in node.output}
        used = read(self.nodes) | {v.name for v in outputs}
        return [v for v in self.values if v.name in used - own]


def read(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """Names that nodes read, those in their subgraphs included."""
    names: set[str] = set()
    for node in nodes:
        names.update(node.input)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                names |= read(attribute.g.node) | {output.name for output in attribute.g.output}
    return names
