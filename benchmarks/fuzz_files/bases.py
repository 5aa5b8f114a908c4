"""The files that are altered: small models of every kind of content, ONNX's backend test suite, and real models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.test_case import TestCase

from benchmarks import models, onnx_cases

N = helper.make_node
Array = np.ndarray[Any, Any]

REAL = ("ppocr_cls", "basic_pitch", "silero_vad", "silero_vad_op18_ifless", "magika_v3_3", "ppocrv4_det", "centerface")
"""Models of benchmarks/models.json that are small enough to be altered and read often."""


@dataclass(frozen=True)
class Base:
    """A model file, and the files that it keeps weights in."""

    name: str
    model: bytes
    files: Mapping[str, bytes] = field(default_factory=dict)


def names(kinds: Sequence[str]) -> list[str]:
    """The bases to draw from, the more of a name the likelier.

    Args:
        kinds: of `made` (here), `suite` (ONNX's own) and `real`.
    """
    many = 1000 if "suite" in kinds else len(MADE)
    found = [f"made:{name}" for name in MADE for _ in range(many // len(MADE))] if "made" in kinds else []
    found += [f"suite:{name}" for name in sorted(_suite())] if "suite" in kinds else []
    found += [f"real:{name}" for name in REAL for _ in range(max(1, many // 4 // len(REAL)))] if "real" in kinds else []
    return found


@lru_cache(maxsize=512)
def base(name: str) -> Base:
    """The base called `name`."""
    kind, _, rest = name.partition(":")
    if kind == "made":
        model = MADE[rest]()
        return outside(name, model) if rest == "external" else Base(name, model.SerializeToString())
    if kind == "suite":
        return Base(name, onnx_cases.model_of(_suite()[rest]).SerializeToString())
    return Base(name, models.fetch(rest).read_bytes())


@cache
def _suite() -> Mapping[str, TestCase]:
    return onnx_cases.load_cases()


def outside(name: str, model: onnx.ModelProto) -> Base:
    """The model with its weights in two files."""
    contents = {"a.bin": b"", "sub/b.bin": b""}
    for index, tensor in enumerate(model.graph.initializer):
        file = list(contents)[index % 2]
        start, raw = -(-len(contents[file]) // 64) * 64, numpy_helper.to_array(tensor).tobytes()
        contents[file] = contents[file].ljust(start, b"\0") + raw
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", file), ("offset", start), ("length", len(raw))):
            tensor.external_data.add(key=key, value=str(value))
    return Base(name, model.SerializeToString(), contents)


def noise(*shape: int) -> Array:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Sequence[str],
    weights: Mapping[str, Array] | None = None,
    opset: int = 21,
    functions: Sequence[onnx.FunctionProto] = (),
    types: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    types = types or {}
    return helper.make_model(
        helper.make_graph(
            list(nodes),
            "graph",
            [helper.make_tensor_value_info(n, types.get(n, TensorProto.FLOAT), s) for n, s in inputs.items()],
            [helper.make_empty_tensor_value_info(n) for n in outputs],
            [numpy_helper.from_array(np.asarray(array), n) for n, array in (weights or {}).items()],
        ),
        opset_imports=[
            helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("local", 1)
        ],
        functions=list(functions),
        ir_version=10,
    )  # fmt: skip


def _graph(
    name: str, nodes: Sequence[onnx.NodeProto], inputs: Sequence[Any], outputs: Sequence[Any], **rest: Any
) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), name, list(inputs), list(outputs), **rest)


def _info(name: str, shape: Sequence[int | str] | None = None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _dense() -> onnx.ModelProto:
    return model(
        [N("Gemm", ["x", "w", "b"], ["g"], "first", transB=1), N("Relu", ["g"], ["r"]),
         N("MatMul", ["r", "v"], ["m"], "second"), N("Softmax", ["m"], ["y"], axis=-1)],
        {"x": ("batch", 8)}, ["y"], {"w": noise(16, 8), "b": noise(16), "v": noise(16, 4)},
    )  # fmt: skip


def _typed() -> onnx.ModelProto:
    """Weights in the typed fields rather than as bytes, of several types."""
    made = model([N("Mul", ["x", "w"], ["m"]), N("Cast", ["h"], ["c"], to=1), N("Add", ["m", "c"], ["a"]),
                  N("Gather", ["a", "i"], ["g"]), N("Where", ["t", "g", "g"], ["y"])],
                 {"x": ("n", 4)}, ["y"])  # fmt: skip
    for name, kind, values in (
        ("w", TensorProto.FLOAT, [1.0, 2, 3, 4]), ("h", TensorProto.FLOAT16, [0.5, 1, 1.5, 2]),
        ("i", TensorProto.INT64, [0, 0, -1]), ("t", TensorProto.BOOL, [True, False, True, True]),
    ):  # fmt: skip
        made.graph.initializer.append(helper.make_tensor(name, kind, [len(values)], values))
    return made


def _convolutions() -> onnx.ModelProto:
    return model(
        [N("Conv", ["x", "w", "b"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
         N("BatchNormalization", ["c", "s", "b", "mean", "var"], ["n"]), N("Relu", ["n"], ["r"]),
         N("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
         N("ConvTranspose", ["p", "t"], ["u"], strides=[2, 2], group=2),
         N("Resize", ["u", "", "scales"], ["z"], mode="linear"), N("GlobalAveragePool", ["z"], ["a"]),
         N("Flatten", ["a"], ["y"])],
        {"x": ("batch", 3, "h", "w_")}, ["y"],
        {"w": noise(4, 3, 3, 3), "b": noise(4), "s": noise(4), "mean": noise(4), "var": np.abs(noise(4)),
         "t": noise(4, 2, 2, 2), "scales": np.array([1, 1, 2, 2], np.float32)},
    )  # fmt: skip


def _shapes() -> onnx.ModelProto:
    return model(
        [N("Shape", ["x"], ["s"]), N("Gather", ["s", "zero"], ["n"]), N("Unsqueeze", ["n", "axis"], ["u"]),
         N("Concat", ["u", "tail"], ["target"], axis=0), N("Reshape", ["x", "target"], ["r"]),
         N("Slice", ["r", "starts", "ends", "axes", "steps"], ["c"]), N("Pad", ["c", "pads"], ["p"]),
         N("Range", ["zero", "n", "one"], ["range"]), N("Expand", ["p", "grow"], ["e"]),
         N("Tile", ["e", "grow"], ["t"]), N("TopK", ["t", "k"], ["values", "indices"]),
         N("Split", ["values", "parts"], ["y", "rest"], axis=-1), N("NonZero", ["y"], ["nz"]),
         N("Shape", ["r"], ["sizes"]),
         N("ConstantOfShape", ["sizes"], ["filled"], value=numpy_helper.from_array(np.array([2.0], np.float32)))],
        {"x": ("n", 12)}, ["y", "nz", "range", "filled", "indices"],
        {"zero": np.array(0), "one": np.array(1), "axis": np.array([0]), "tail": np.array([3, -1]),
         "starts": np.array([0, 1]), "ends": np.array([3, 2**62]), "axes": np.array([1, 2]), "steps": np.array([1, 1]),
         "pads": np.array([0, 0, 1, 0, 0, 1]), "grow": np.array([1, 1, 1]), "k": np.array([3]),
         "parts": np.array([1, 2])},
    )  # fmt: skip


def _control() -> onnx.ModelProto:
    """An If within a Loop, with values captured from both graphs around, and a Scan."""
    inner = N(
        "If", ["even"], ["step"],
        then_branch=_graph("then", [N("Add", ["state", "bias"], ["t"])], [], [_info("t")]),
        else_branch=_graph("else", [N("Mul", ["state", "x"], ["e"])], [], [_info("e")]),
    )  # fmt: skip
    body = _graph(
        "body",
        [N("Mod", ["i", "two"], ["odd"]), N("Equal", ["odd", "nought"], ["even"]), inner, N("Identity", ["go"], ["on"]),
         N("ReduceSum", ["step"], ["sum"], keepdims=0)],
        [_info("i", [], TensorProto.INT64), _info("go", [], TensorProto.BOOL), _info("state", ["n", 4])],
        [_info("on", [], TensorProto.BOOL), _info("step", ["n", 4]), _info("sum", [])],
    )  # fmt: skip
    each = _graph(
        "each", [N("Add", ["total", "row"], ["next"]), N("Identity", ["next"], ["out"])],
        [_info("total", [4]), _info("row", [4])], [_info("next", [4]), _info("out", [4])],
    )  # fmt: skip
    return model(
        [N("Loop", ["trips", "yes", "x"], ["looped", "sums"], "loop", body=body),
         N("Scan", ["start", "looped"], ["last", "rows"], "scan", body=each, num_scan_inputs=1)],
        {"x": ("n", 4)}, ["last", "rows", "sums"],
        {"trips": np.array(3), "yes": np.array(True), "two": np.array(2), "nought": np.array(0), "bias": noise(4),
         "start": noise(4)},
    )  # fmt: skip


def _functions() -> onnx.ModelProto:
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
    scale = N("Scaled", ["a"], ["s"], domain="local")
    scale.attribute.add(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="alpha")
    elu = N("Elu", ["b"], ["c"])
    elu.attribute.add(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="alpha")
    outer = helper.make_function(
        "local", "Block", ["a", "w"], ["r"], [scale, N("MatMul", ["s", "w"], ["r"])], imports, ["alpha"]
    )
    inner = helper.make_function("local", "Scaled", ["b"], ["d"], [elu, N("Neg", ["c"], ["d"])], imports, ["alpha"])
    return model(
        [N("Block", ["x", "w"], ["h"], domain="local", alpha=0.5),
         N("Block", ["h", "w"], ["y"], domain="local", alpha=2.0)],
        {"x": ("n", 6)}, ["y"], {"w": noise(6, 6)}, functions=[outer, inner],
    )  # fmt: skip


def _sequences() -> onnx.ModelProto:
    return model(
        [N("SplitToSequence", ["x"], ["parts"], axis=0, keepdims=1), N("SequenceLength", ["parts"], ["length"]),
         N("SequenceAt", ["parts", "first"], ["one"]), N("SequenceInsert", ["parts", "one", "first"], ["more"]),
         N("ConcatFromSequence", ["more"], ["joined"], axis=0), N("Optional", ["joined"], ["maybe"]),
         N("OptionalHasElement", ["maybe"], ["has"]), N("OptionalGetElement", ["maybe"], ["y"])],
        {"x": (3, 4)}, ["y", "length", "has"], {"first": np.array(0)},
    )  # fmt: skip


def _quantized() -> onnx.ModelProto:
    return model(
        [N("QuantizeLinear", ["x", "s", "z"], ["q"]), N("DequantizeLinear", ["q", "s", "z"], ["d"]),
         N("QLinearMatMul", ["q", "s", "z", "w", "s", "wz", "s", "z"], ["m"]),
         N("DequantizeLinear", ["m", "s", "z"], ["f"]),
         N("MatMulInteger", ["q", "w", "z", "wz"], ["i"]), N("Cast", ["i"], ["c"], to=1),
         N("DequantizeLinear", ["w", "axis_s", "axis_z"], ["dw"], axis=1), N("MatMul", ["d", "dw"], ["p"]),
         N("DynamicQuantizeLinear", ["p"], ["dq", "ds", "dz"]), N("Sum", ["f", "c", "p"], ["y"])],
        {"x": ("n", 8)}, ["y", "dq"],
        {"s": np.array(0.1, np.float32), "z": np.array(128, np.uint8), "wz": np.array(0, np.int8),
         "w": np.arange(-16, 16, dtype=np.int8).reshape(8, 4), "axis_s": np.abs(noise(4)),
         "axis_z": np.zeros(4, np.int8)},
    )  # fmt: skip


def _recurrent() -> onnx.ModelProto:
    return model(
        [N("LSTM", ["x", "w", "r", "b"], ["seq", "h", "c"], hidden_size=5, direction="bidirectional"),
         N("GRU", ["x", "gw", "gr"], ["gs"], hidden_size=5, linear_before_reset=1),
         N("RNN", ["x", "rw", "rr", "", "lengths"], ["rs"], hidden_size=5, activations=["Relu"])],
        {"x": ("time", 2, 4)}, ["seq", "h", "gs", "rs"],
        {"w": noise(2, 20, 4), "r": noise(2, 20, 5), "b": noise(2, 40), "gw": noise(1, 15, 4), "gr": noise(1, 15, 5),
         "rw": noise(1, 5, 4), "rr": noise(1, 5, 5), "lengths": np.array([1, 2], np.int32)},
    )  # fmt: skip


def _attention() -> onnx.ModelProto:
    return model(
        [N("LayerNormalization", ["x", "g", "b"], ["n"], axis=-1), N("MatMul", ["n", "wq"], ["q0"]),
         N("Reshape", ["q0", "heads"], ["q1"]), N("Transpose", ["q1"], ["q"], perm=[0, 2, 1, 3]),
         N("Transpose", ["q1"], ["k"], perm=[0, 2, 3, 1]), N("MatMul", ["q", "k"], ["s0"]),
         N("Div", ["s0", "root"], ["s"]), N("Softmax", ["s"], ["p"], axis=-1), N("MatMul", ["p", "q"], ["o"]),
         N("Transpose", ["o"], ["o1"], perm=[0, 2, 1, 3]), N("Reshape", ["o1", "flat"], ["o2"]),
         N("Einsum", ["o2", "wq"], ["o3"], equation="bsi,ij->bsj"), N("Add", ["x", "o3"], ["y"])],
        {"x": ("batch", "seq", 16)}, ["y"],
        {"g": noise(16), "b": noise(16), "wq": noise(16, 16), "heads": np.array([0, 0, 4, 4]),
         "flat": np.array([0, 0, 16]), "root": np.array(2.0, np.float32)},
    )  # fmt: skip


def _microsoft() -> onnx.ModelProto:
    d = "com.microsoft"
    return model(
        [N("SkipLayerNormalization", ["x", "x", "g", "b"], ["n"], domain=d), N("Gelu", ["n"], ["ge"], domain=d),
         N("FusedMatMul", ["ge", "w"], ["f"], domain=d, alpha=0.5, transB=1),
         N("MatMulNBits", ["f", "packed", "scales"], ["m"], domain=d, K=16, N=4, bits=4, block_size=16),
         N("RotaryEmbedding", ["x", "ids", "cos", "sin"], ["rot"], domain=d, num_heads=2)],
        {"x": (1, "seq", 16)}, ["m", "rot"],
        {"g": noise(16), "b": noise(16), "w": noise(16, 16), "packed": np.full((4, 1, 8), 0x5A, np.uint8),
         "scales": noise(4), "ids": np.array([0]), "cos": noise(64, 4), "sin": noise(64, 4)},
    )  # fmt: skip


def _elsewhere() -> onnx.ModelProto:
    """Strings, which another engine computes on, between nodes that are compiled."""
    return model(
        [N("StringNormalizer", ["text"], ["lower"], case_change_action="LOWER"),
         N("StringConcat", ["lower", "lower"], ["double"]), N("Mul", ["x", "w"], ["y"])],
        {"text": ("n",), "x": ("n", 4)}, ["double", "y"], {"w": noise(4)}, types={"text": TensorProto.STRING},
    )  # fmt: skip


MADE: dict[str, Callable[[], onnx.ModelProto]] = {
    "dense": _dense,
    "external": _dense,
    "typed": _typed,
    "convolutions": _convolutions,
    "shapes": _shapes,
    "control": _control,
    "functions": _functions,
    "sequences": _sequences,
    "quantized": _quantized,
    "recurrent": _recurrent,
    "attention": _attention,
    "microsoft": _microsoft,
    "elsewhere": _elsewhere,
}
