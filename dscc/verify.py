"""How far the outputs of a compiled model are from a reference, and which node is the first to depart from it."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dscc.elements import is_real
from dscc.errors import FrontendError, InputError, first_line
from dscc.feeds import Feeds
from dscc.runtime.containers import flatten

if TYPE_CHECKING:
    import onnx

Array = np.ndarray[Any, Any]

_LOG = logging.getLogger(__name__)
# Relative to the largest reference output; what single-precision networks of a hundred layers show between engines.
TOLERANCE = 1e-4
# Four units in the last place of the largest: engines round intermediate halves at other points.
_NARROW = {"float16": 4e-3, "bfloat16": 3e-2}


@dataclass(frozen=True)
class Difference:
    """How one output differs from its reference.

    Attributes:
        name: of the output.
        max_abs: largest absolute difference.
        max_rel: `max_abs` over the largest absolute reference value; 0 for equal outputs.
        max_ulp: largest distance in representable numbers, among the elements that differ by more than the absolute
            tolerance.
        cosine: of the angle between both, as vectors; 1 where both are zero.
        reason: why the two cannot be compared or do not agree in kind (shapes, NaNs); empty otherwise.
        usual: the tolerance for outputs of its type.
    """

    name: str
    max_abs: float
    max_rel: float
    max_ulp: int
    cosine: float
    reason: str = ""
    usual: float = TOLERANCE

    def within(self, tolerance: float | None = None) -> bool:
        """Whether the output agrees to `tolerance`, or the usual one, relative to the largest reference value."""
        return not self.reason and self.max_rel <= (self.usual if tolerance is None else tolerance)


def compare(name: str, got: Array, want: Array, atol: float | None = None) -> Difference:
    """Compare one output with its reference; integers and booleans are compared as numbers.

    Args:
        name: of the output, for the report.
        got: what dscc computed.
        want: the reference, of the same shape.
        atol: differences up to this count as no ULP; by default 1e-6 of the largest reference value, below which
            cancellation makes ULPs meaningless.
    """
    failed = Difference(name, np.inf, np.inf, 0, 0.0)
    if got.shape != want.shape:
        return _because(failed, f"shape {got.shape}, expected {want.shape}")
    if got.dtype != want.dtype:
        return _because(failed, f"type {got.dtype}, expected {want.dtype}")
    if got.dtype.kind == "c":
        got, want = (np.stack([x.real, x.imag]) for x in (got, want))
    if not is_real(got.dtype):
        same = bool(np.array_equal(got, want))
        return Difference(name, 0.0, 0.0, 0, 1.0) if same else _because(failed, "values that are no numbers differ")
    a, b = got.astype(np.float64).ravel(), want.astype(np.float64).ravel()
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return _because(failed, "infinities or NaNs are not at the same places")
    a, b = a[finite], b[finite]
    if a.size == 0:
        return Difference(name, 0.0, 0.0, 0, 1.0)
    distance = np.abs(a - b)
    largest = float(np.abs(b).max())
    max_abs = float(distance.max())
    far = distance > (1e-6 * largest if atol is None else atol)
    ulp = _ulps(got.ravel()[finite][far], want.ravel()[finite][far]) if got.dtype.kind == "f" else int(max_abs)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    cosine = float(a @ b) / norms if norms else float(max_abs == 0)
    max_rel = max_abs / largest if largest else (np.inf if max_abs else 0.0)
    return Difference(name, max_abs, max_rel, ulp, cosine, usual=_NARROW.get(got.dtype.name, TOLERANCE))


def _because(failed: Difference, reason: str) -> Difference:
    return Difference(failed.name, failed.max_abs, failed.max_rel, failed.max_ulp, failed.cosine, reason)


def _ulps(got: Array, want: Array) -> int:
    """The largest number of representable values between two arrays of one float type."""
    if got.size == 0:
        return 0
    bits = np.dtype(f"u{got.dtype.itemsize}")
    sign = bits.type(1 << (8 * bits.itemsize - 1))

    def ordered(x: Array) -> Array:
        # Sign and magnitude to a number line: negative floats count downwards from the middle.
        raw = np.ascontiguousarray(x).view(bits)
        return np.where(raw & sign, ~raw, raw | sign)

    a, b = ordered(got), ordered(want)
    return int(np.where(a > b, a - b, b - a).max())


@dataclass(frozen=True)
class Reference:
    """An engine that is trusted: onnxruntime where it is installed, else onnx's own reference evaluator."""

    engine: str
    run: Callable[[Sequence[str] | None, Mapping[str, Array]], list[Array]]
    inputs: Sequence[Any]
    outputs: Sequence[str]


def reference(model: Path, engine: str | None = None) -> Reference:
    """The reference engine for an ONNX file.

    Raises:
        FrontendError: the file is missing, or the engine cannot read it.
    """
    if not model.is_file():
        raise FrontendError(f"model file '{model}' does not exist")
    engine = engine or ("onnxruntime" if importlib.util.find_spec("onnxruntime") and _plain(model) else "onnx")
    try:
        return _onnxruntime(model) if engine == "onnxruntime" else _evaluator(model)
    # Engines raise types of their own, without a common base.
    except Exception as err:
        said = first_line(err)
        raise FrontendError(f"{engine} cannot read '{model}': {said}") from err


def _without_weights(model: Path) -> onnx.ModelProto | None:
    """The model less what lies in other files; None where the file is damaged: the engine then says what is wrong."""
    import onnx

    try:
        return onnx.load(model, load_external_data=False)
    except Exception as err:  # noqa: BLE001  whatever a damaged file raises
        _LOG.debug("'%s' cannot be looked into: %s", model, first_line(err))
        return None


def _plain(model: Path) -> bool:
    """Whether NumPy itself has the types of all inputs and outputs: onnxruntime's Python takes no others."""
    import onnx

    proto = _without_weights(model)
    if proto is None:
        return True
    last = onnx.TensorProto.COMPLEX128
    return all(value.type.tensor_type.elem_type <= last for value in (*proto.graph.input, *proto.graph.output))


def _onnxruntime(model: Path) -> Reference:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # onnxruntime 1.32 rounds the rows of products with weights of few bits to 8 bits, unless told not to: 0.6% off.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", _REAL_ROWS)
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(model.parent))
    session = onnxruntime.InferenceSession(_with_real_rows(model), options, providers=["CPUExecutionProvider"])
    return Reference(
        f"onnxruntime {onnxruntime.__version__}",
        lambda names, feeds: session.run(names, dict(feeds)),
        session.get_inputs(),
        [info.name for info in session.get_outputs()],
    )


_REAL_ROWS = "1"  # the accuracy level at which rows stay float32


def _with_real_rows(model: Path) -> str | bytes:
    """The model for onnxruntime: without the leave to round rows, where a MatMulNBits gives it."""
    proto = _without_weights(model)
    if proto is None:
        return str(model)
    given = [
        attribute
        for graph in (proto.graph, *proto.functions)
        for node in graph.node
        for attribute in node.attribute
        if node.op_type == "MatMulNBits" and attribute.name == "accuracy_level"
    ]
    for attribute in given:
        attribute.i = int(_REAL_ROWS)
    return proto.SerializeToString() if given else str(model)


@dataclass(frozen=True)
class _Input:
    name: str
    type: str
    shape: list[int | str]


def _evaluator(model: Path) -> Reference:
    import onnx

    from dscc.evaluator import trusted

    proto = onnx.load(model)
    evaluator = trusted(proto)
    constants = {tensor.name for tensor in proto.graph.initializer}
    return Reference(
        f"onnx reference evaluator {onnx.__version__}",
        lambda names, feeds: [np.asarray(value) for value in evaluator.run(names, dict(feeds))],
        [_input_info(value) for value in proto.graph.input if value.name not in constants],
        [value.name for value in proto.graph.output],
    )


def _input_info(value: onnx.ValueInfoProto) -> _Input:
    import onnx

    tensor = value.type.tensor_type
    element = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    dims = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in tensor.shape.dim]
    return _Input(value.name, f"tensor({element})", dims)


def differences(module: Any, engine: Reference, feeds: Feeds, atol: float | None = None) -> list[Difference]:
    """Run both engines on the same inputs and compare every output."""
    names = [info.name for info in module.get_outputs()]
    missing = [name for name in names if name not in engine.outputs]
    if missing:
        raise InputError(f"the reference has no output '{missing[0]}'; it has: {', '.join(engine.outputs)}")
    got = module.run(names, feeds)
    try:
        want = engine.run(names, feeds)
    except Exception as err:
        said = first_line(err)
        raise InputError(f"{engine.engine} failed on these inputs: {said}") from err
    return [diff for name, g, w in zip(names, got, want, strict=True) for diff in _compare_all(name, g, w, atol)]


def _compare_all(name: str, got: Any, want: Any, atol: float | None) -> list[Difference]:
    """Differences of all tensors of an output: of one, or of those of a sequence."""
    ours, theirs = flatten(name, got), flatten(name, want)
    missing = [key for key in {**ours, **theirs} if key not in ours or key not in theirs]
    if missing:
        failed = Difference(name, np.inf, np.inf, 0, 0.0)
        return [_because(failed, f"{len(ours)} tensors, expected {len(theirs)}")]
    return [compare(key, np.asarray(ours[key]), np.asarray(theirs[key]), atol) for key in ours]


@dataclass(frozen=True)
class Departure:
    """The first node, in the order of the graph, one of whose outputs departs from the reference.

    Attributes:
        node: the node's name, or its first output where it has none.
        operator: its type.
        difference: of that output.
        fused: it departs only when its neighbours are fused around it, not when every value is an output.
    """

    node: str
    operator: str
    difference: Difference
    fused: bool


def first_departure(
    model: Path, feeds: Feeds, load: Callable[[Path], Any], tolerance: float | None = None
) -> Departure | None:
    """Find the first node that departs from the reference, by compiling the model with intermediate values as outputs.

    First with all of them, which stops most fusion. Where everything agrees then, the fault is in what gets fused: the
    first faulty value is found by bisection, with one intermediate value exposed at a time.

    Args:
        model: an ONNX file.
        feeds: the inputs.
        load: compiles and loads an ONNX file.
        tolerance: relative to the largest value of each output; by default the usual one of its type.
    """
    import onnx

    proto = onnx.load(model)
    values = _intermediate_values(proto)
    with tempfile.TemporaryDirectory(prefix="dscc-verify-") as folder:
        exposed = Path(folder) / "exposed.onnx"

        def check(names: Sequence[str]) -> dict[str, Difference]:
            _save_with_outputs(proto, names, exposed)
            return {diff.name: diff for diff in differences(load(exposed), reference(exposed), feeds)}

        found = check([name for name, _ in values])
        for name, node in values:
            if name in found and not found[name].within(tolerance):
                return Departure(node.name or name, node.op_type, found[name], fused=False)
        low, high = 0, len(values)
        worst: Difference | None = None
        while low < high:
            middle = (low + high) // 2
            name = values[middle][0]
            diff = check([name])[name]
            if diff.within(tolerance):
                low = middle + 1
            else:
                high, worst = middle, diff
        if worst is None:
            return None
        name, node = values[low]
        return Departure(node.name or name, node.op_type, worst, fused=True)


def _intermediate_values(proto: onnx.ModelProto) -> list[tuple[str, onnx.NodeProto]]:
    """Every tensor that a node of the main graph computes, in order, with its node."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(proto)
    tensors = {
        value.name
        for value in [*inferred.graph.value_info, *inferred.graph.output]
        if value.type.HasField("tensor_type")
    }
    return [(name, node) for node in proto.graph.node for name in node.output if name in tensors]


def _save_with_outputs(proto: onnx.ModelProto, names: Iterable[str], path: Path) -> None:
    """Write the model with `names` as its only outputs; large weights go into a file beside it."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(proto)
    known = {value.name: value for value in [*inferred.graph.value_info, *inferred.graph.output]}
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    del changed.graph.output[:]
    changed.graph.output.extend(known[name] for name in names)
    onnx.save_model(changed, path, save_as_external_data=changed.ByteSize() > 1 << 30)
