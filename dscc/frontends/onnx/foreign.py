"""A region of the graph that another engine runs: as an ONNX model, and as a call in the Relax function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from tvm import relax

from dscc import library
from dscc.elements import STRING, numpy_dtype
from dscc.errors import UnsupportedError
from dscc.fallback import Region
from dscc.frontends.onnx import trial
from dscc.frontends.onnx.extract import Extract
from dscc.frontends.onnx.kinds import (
    Container,
    OptionalKind,
    SequenceKind,
    Strings,
    TensorKind,
    kind_of,
    known,
    result_type,
    wrap,
)
from dscc.frontends.onnx.node import Node
from dscc.frontends.onnx.shapes import shape_expr
from dscc.frontends.onnx.values import Value
from dscc.runtime.engines import ENGINES, Engine, EngineError

if TYPE_CHECKING:
    from dscc.frontends.onnx.convert import Importer, Scope
    from dscc.frontends.onnx.cut import Cut

Nodes = Sequence[tuple[int, onnx.NodeProto]]
RANDOM = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout")
)


def compute(cut: Cut, importer: Importer, scope: Scope, nodes: Nodes) -> bool:
    """Compute nodes whose inputs are constants now, and add their outputs to `scope`; False where that cannot be."""
    if any(proto.op_type in RANDOM for _, proto in nodes):
        return False
    extract = Extract(cut, importer, scope, nodes)
    if extract.inputs:
        return False
    for kind in ENGINES.values():
        if kind.version() is not None:
            try:
                outputs = trial.run(kind, extract.text())
            except EngineError:
                continue
            if all(isinstance(item, np.ndarray | np.generic) for item in outputs):
                for name, item in zip(extract.outputs, outputs, strict=True):
                    scope[name] = known(name, importer.bb, np.asarray(item))
                return True
    return False


def call(cut: Cut, importer: Importer, scope: Scope, nodes: Nodes, number: int) -> list[Region]:
    """Call the nodes as region `number`; its outputs are added to `scope`. No region where all of it is constant.

    Raises:
        Unheld: compiled code cannot hold one of the outputs.
        FrontendError: no engine takes the region.
    """
    if compute(cut, importer, scope, nodes):
        return []
    errors = [cut.reasons[index] for index, _ in nodes]
    extract = Extract(cut, importer, scope, nodes)
    engine = _engine(extract, errors[0])
    kinds = extract.output_kinds(engine)
    loose = [_loose(kind) for kind in kinds]
    types = [result_type(kind) for kind in loose]
    inputs = list(extract.inputs.values())
    arguments = [shape_expr([number]), *(value.expr for value in inputs)]
    made = library.call("fallback", arguments, types[0] if len(types) == 1 else relax.TupleType(types))
    result = importer.bb.emit(made, f"region_{number}")
    node = Node(nodes[0][1], f"region {number}", 1, importer, {})
    for index, (name, kind, free) in enumerate(zip(extract.outputs, kinds, loose, strict=True)):
        part = result if len(types) == 1 else importer.bb.emit(relax.TupleGetItem(result, index))
        value = wrap(importer.bb, importer.dims, free, part, name)
        if isinstance(kind, TensorKind) and kind.dims is not None and kind.dtype != STRING:
            have = value.shape
            shape = [h if want is None else want for h, want in zip(have, kind.dims, strict=True)]
            stated = node.restate(value.expr, shape, f"output '{name}'")
            value = Value(name, importer.bb, expr=stated, element=kind.dtype)
        scope[name] = value
    outputs = [scope[name] for name in extract.outputs]
    return [
        Region(
            model=extract.text(),
            engine=engine.name,
            version=engine.version() or "",
            what=_what(nodes),
            why="; ".join(dict.fromkeys(error.reason for error in errors)),
            cost=f"each run hands over {_sizes(inputs)} and copies {_sizes(outputs)}",
            inputs=tuple(_spec(kind_of(value)) for value in inputs),
            outputs=tuple(_spec(kind) for kind in kinds),
        )
    ]


def _engine(extract: Extract, error: UnsupportedError) -> Engine:
    """The first engine that is installed and takes the region."""
    said = []
    for kind in ENGINES.values():
        if kind.version() is None:
            said.append(f"{kind.name} is not installed")
            continue
        try:
            return trial.make(kind, extract.text())
        except EngineError as err:
            said.append(f"{kind.name}: {str(err)[:200]}")
    raise UnsupportedError(f"{error}; nor does another engine run it ({'; '.join(said)})")


def _loose(kind: Any) -> Any:
    """The kind with all dimensions unknown that are no numbers: they are compared when the region has run."""
    if not isinstance(kind, TensorKind) or kind.dims is None:
        return kind
    return TensorKind(kind.dtype, tuple(None for _ in kind.dims))


def _spec(kind: Any) -> str:
    """The kind as dscc/runtime/fallback.py has it."""
    if isinstance(kind, SequenceKind):
        return f"seq:{_spec(kind.element)}"
    return f"opt:{_spec(kind.element)}" if isinstance(kind, OptionalKind) else str(kind.dtype)


def _what(nodes: Nodes) -> str:
    """`node 3 'a' (Foo)`, and for more than one `5 nodes, 3 to 9 (3 Foo, 2 Bar)`."""
    from dscc.frontends.onnx.check import label
    from dscc.frontends.onnx.convert import qualified

    if len(nodes) == 1:
        return label(*nodes[0])
    names = Counter(qualified(proto) for _, proto in nodes)
    counted = ", ".join(name if count == 1 else f"{count} {name}" for name, count in names.items())
    indices = [index for index, _ in nodes]
    return f"{len(nodes)} nodes from {indices[0]} to {indices[-1]} ({counted})"


def _sizes(values: Sequence[Value]) -> str:
    """The types of tensors, and their bytes where these are known."""
    total, fixed, texts = 0, True, []
    for value in values:
        kind = kind_of(value)
        texts.append(str(kind))
        if isinstance(value, Container | Strings) or not all(isinstance(dim, int) for dim in kind.dims or ("?",)):
            fixed = False
        else:
            total += int(np.prod(kind.dims, dtype=np.int64)) * numpy_dtype(kind.dtype).itemsize
    if not texts:
        return "nothing"
    shown = ", ".join(texts[:4]) + (f" and {len(texts) - 4} more" if len(texts) > 4 else "")
    return f"{shown} ({total} bytes)" if fixed else shown
