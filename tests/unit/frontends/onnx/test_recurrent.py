"""LSTM, GRU and RNN over random attributes and odd shapes, against the standard's formulas in float64; the definition
and the scheduled kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from dscc.compiler import compile
from dscc.errors import FrontendError
from tests.unit.frontends.onnx.conftest import executable, load

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_FUNCTIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}
_NAMES = [
    "Sigmoid",
    "Tanh",
    "Relu",
    "Affine",
    "LeakyRelu",
    "ThresholdedRelu",
    "ScaledTanh",
    "HardSigmoid",
    "Elu",
    "Softsign",
    "Softplus",
]
_TWO = {"Affine", "ScaledTanh", "HardSigmoid"}
_ONE = {"LeakyRelu", "ThresholdedRelu", "Elu"} | _TWO


def _case(seed: int) -> tuple[str, dict[str, Any], dict[str, np.ndarray], list[str]]:
    """Operator, attributes, values of its inputs, and which of these are inputs of the model."""
    rng = np.random.default_rng(seed)

    def chance(share: float) -> bool:
        return bool(rng.random() < share)

    op = ["LSTM", "GRU", "RNN"][seed % 3]
    length, batch, size = (int(n) for n in (rng.integers(1, 8), rng.choice([1, 1, 2, 3, 5, 17]), rng.integers(1, 9)))
    hidden = int(rng.choice([1, 2, 3, 5, 8, 16, 17, 20, 33, 40]))
    direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
    directions, gates = 2 if direction == "bidirectional" else 1, _GATES[op]
    attrs: dict[str, Any] = {"direction": direction, "hidden_size": hidden}

    def tensor(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.5).astype(np.float32)

    values = {
        "X": tensor(length, batch, size),
        "W": tensor(directions, gates * hidden, size),
        "R": tensor(directions, gates * hidden, hidden),
    }
    if chance(0.7):
        values["B"] = tensor(directions, 2 * gates * hidden)
    if chance(0.4):
        values["sequence_lens"] = rng.integers(0, length + 1, batch).astype(np.int32)
    if chance(0.5):
        values["initial_h"] = tensor(directions, batch, hidden)
    if op == "LSTM" and chance(0.5):
        values["initial_c"] = tensor(directions, batch, hidden)
    if op == "LSTM" and chance(0.4):
        values["P"] = tensor(directions, 3 * hidden)
    if chance(0.5):
        names = [str(rng.choice(_NAMES)) for _ in range(_FUNCTIONS[op] * directions)]
        attrs["activations"] = names
        if chance(0.7) or {"Affine", "ScaledTanh"} & set(names):  # whose defaults nothing defines
            attrs["activation_alpha"] = [float(rng.uniform(0.1, 0.9)) for name in names if name in _ONE]
            attrs["activation_beta"] = [float(rng.uniform(0.1, 0.9)) for name in names if name in _TWO]
    if chance(0.3):
        attrs["clip"] = float(rng.uniform(0.2, 1.5))
    if op == "LSTM" and chance(0.3):
        attrs["input_forget"] = 1
    if op == "GRU" and chance(0.5):
        attrs["linear_before_reset"] = 1
    inputs = ["X", *(name for name in values if name != "X" and chance(0.3))]
    if "sequence_lens" in values:
        inputs = list(dict.fromkeys([*inputs, "sequence_lens"]))
    return op, attrs, values, inputs


_INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
_OPEN = {
    "X": ("s", "b", None),
    "sequence_lens": ("b",),
    "initial_h": (None, "b", None),
    "initial_c": (None, "b", None),
}


def _model(
    op: str, attrs: dict[str, Any], values: dict[str, np.ndarray], inputs: list[str], opset: int = 14
) -> onnx.ModelProto:
    """One node; lengths and batch of the model's inputs are symbolic."""
    names = [name if name in values else "" for name in _INPUTS[: 8 if op == "LSTM" else 6]]
    attrs = {name: value for name, value in attrs.items() if value != []}
    if not attrs.get("layout"):
        dims = {
            name: [d or n for d, n in zip(_OPEN.get(name, v.shape), v.shape, strict=True)] for name, v in values.items()
        }
    else:
        dims = {name: list(v.shape) for name, v in values.items()}
    outputs = ["Y", "Y_h", "Y_c"][: 3 if op == "LSTM" else 2]
    kinds = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in values.items()}
    graph = helper.make_graph(
        [helper.make_node(op, names, outputs, **attrs)],
        "test",
        [helper.make_tensor_value_info(name, kinds[name], dims[name]) for name in inputs],
        [helper.make_tensor_value_info(name, kinds["X"], None) for name in outputs],
        [onnx.numpy_helper.from_array(value, name) for name, value in values.items() if name not in inputs],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def _functions(attrs: dict[str, Any], op: str, direction: int) -> list[Callable[[np.ndarray], np.ndarray]]:
    default = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}[op]
    names = attrs.get("activations", default * 2)
    alphas, betas = iter(attrs.get("activation_alpha", [])), iter(attrs.get("activation_beta", []))
    found = []
    for name in names:
        a = next(alphas, _ALPHA.get(name)) if name in _ONE else None
        b = next(betas, 0.5) if name in _TWO else None
        found.append(partial(_FORMULAS[name], a, b))
    return found[direction * _FUNCTIONS[op] :][: _FUNCTIONS[op]]


_ALPHA = {"LeakyRelu": 0.01, "ThresholdedRelu": 1.0, "Elu": 1.0, "HardSigmoid": 0.2}
_FORMULAS: dict[str, Callable[[Any, Any, np.ndarray], np.ndarray]] = {
    "Sigmoid": lambda a, b, x: 1 / (1 + np.exp(-x)),
    "Tanh": lambda a, b, x: np.tanh(x),
    "Relu": lambda a, b, x: np.maximum(x, 0),
    "Affine": lambda a, b, x: a * x + b,
    "LeakyRelu": lambda a, b, x: np.where(x < 0, a * x, x),
    "ThresholdedRelu": lambda a, b, x: np.where(x > a, x, 0),
    "ScaledTanh": lambda a, b, x: a * np.tanh(b * x),
    "HardSigmoid": lambda a, b, x: np.clip(a * x + b, 0, 1),
    "Elu": lambda a, b, x: np.where(x < 0, a * (np.exp(x) - 1), x),
    "Softsign": lambda a, b, x: x / (1 + abs(x)),
    "Softplus": lambda a, b, x: np.log1p(np.exp(x)),
}


@np.errstate(over="ignore")
def _expected(op: str, attrs: dict[str, Any], given: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Y, Y_h and Y_c in float64, as the standard's formulas say; of an empty sequence zero, as onnxruntime says."""
    values = {name: value if name == "sequence_lens" else value.astype(np.float64) for name, value in given.items()}
    x, hidden, gates = values["X"], attrs["hidden_size"], _GATES[op]
    length, batch, _ = x.shape
    directions = len(values["W"])
    y = np.zeros((length, directions, batch, hidden))
    last = np.zeros((2, directions, batch, hidden))
    lengths = values.get("sequence_lens", np.full(batch, length))
    for d in range(directions):
        w, r = values["W"][d], values["R"][d].reshape(gates, hidden, hidden)
        bw, br = values.get("B", np.zeros((directions, 2 * gates * hidden)))[d].reshape(2, gates, hidden)
        p = values.get("P", np.zeros((directions, 3 * hidden)))[d].reshape(3, hidden)
        f = _functions(attrs, op, d)
        for n in range(batch):
            h = values.get("initial_h", last[:1] * 0 if length == 0 else np.zeros((directions, batch, hidden)))[d, n]
            c = values.get("initial_c", np.zeros((directions, batch, hidden)))[d, n]
            order = range(lengths[n])
            for t in reversed(order) if attrs["direction"] == "reverse" or d == 1 else order:
                h, c = _step(op, attrs, (w @ x[t, n]).reshape(gates, hidden), r, bw, br, p, f, h, c)
                y[t, d, n] = h
            if lengths[n] or length == 0:
                last[:, d, n] = h, c
    return [y, *last][: 3 if op == "LSTM" else 2]


def _step(op: str, attrs: dict[str, Any], x: Any, r: Any, bw: Any, br: Any, p: Any, f: Any, h: Any, c: Any) -> Any:
    bound = attrs.get("clip", np.inf)

    def clip(value: np.ndarray) -> np.ndarray:
        return np.clip(value, -bound, bound)

    x, own = x + bw, r @ h + br
    if op == "RNN":
        return f[0](clip(x[0] + own[0])), c
    if op == "GRU":
        update, reset = f[0](clip(x[0] + own[0])), f[0](clip(x[1] + own[1]))
        late = reset * own[2] if attrs.get("linear_before_reset") else r[2] @ (reset * h) + br[2]
        return (1 - update) * f[1](clip(x[2] + late)) + update * h, c
    i, o, forget, g = x + own
    i = f[0](clip(i + p[0] * c))
    forget = 1 - i if attrs.get("input_forget") else f[0](clip(forget + p[2] * c))
    c = forget * c + i * f[1](clip(g))
    return f[0](clip(o + p[1] * c)) * f[2](c), c


def _same(got: Sequence[np.ndarray], want: Sequence[np.ndarray], tolerance: float = 1e-5) -> None:
    """Up to `tolerance` of the largest value."""
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max(initial=0.0) <= tolerance * max(1.0, np.abs(b).max(initial=0.0))


@pytest.mark.parametrize("seed", range(18))
def test_scheduled(seed: int) -> None:
    op, attrs, values, inputs = _case(seed)
    feeds = {name: values[name] for name in inputs}
    got = compile(_model(op, attrs, values, inputs)).load().run(None, feeds)
    _same(got, _expected(op, attrs, values))


@pytest.mark.parametrize("seed", range(100, 106))
def test_definition(seed: int) -> None:
    op, attrs, values, inputs = _case(seed)
    feeds = {name: values[name] for name in inputs}
    got = executable(load(_model(op, attrs, values, inputs)))(feeds)
    _same(got, _expected(op, attrs, values))


@pytest.mark.parametrize("seed", range(0, 36, 4))
def test_formulas_are_onnxruntime_s(seed: int) -> None:
    op, attrs, values, inputs = _case(seed)
    session = onnxruntime.InferenceSession(_model(op, attrs, values, inputs).SerializeToString())
    want = session.run(None, {name: values[name] for name in inputs})
    _same(_expected(op, attrs, values), want, tolerance=2e-3)  # its functions are approximations


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_one_artifact_serves_any_length_and_batch(op: str) -> None:
    _, attrs, values, _ = _case(0)
    rng = np.random.default_rng(1)
    gates, hidden = _GATES[op], 24
    attrs = {"direction": "bidirectional", "hidden_size": hidden}
    shapes = {"W": (2, gates * hidden, 5), "R": (2, gates * hidden, hidden), "B": (2, 2 * gates * hidden)}
    values = {name: rng.standard_normal(shape).astype(np.float32) / 4 for name, shape in shapes.items()}
    values["X"] = rng.standard_normal((2, 2, 5)).astype(np.float32)
    values["initial_h"] = np.ones((2, 2, hidden), np.float32)
    module = compile(_model(op, attrs, values, ["X", "initial_h"])).load()
    for length, batch in ((1, 1), (9, 4), (3, 70)):
        values["X"] = rng.standard_normal((length, batch, 5)).astype(np.float32)
        values["initial_h"] = rng.standard_normal((2, batch, hidden)).astype(np.float32)
        got = module.run(None, {"X": values["X"], "initial_h": values["initial_h"]})
        _same(got, _expected(op, attrs, values))


@pytest.mark.parametrize(
    ("op", "hidden", "more"), [("LSTM", 190, {}), ("GRU", 215, {}), ("GRU", 215, {"linear_before_reset": 1})]
)
def test_threads_share_the_steps_of_a_large_state(op: str, hidden: int, more: dict[str, Any]) -> None:
    """One sequence, some, and more than one task has: sizes are symbolic."""
    rng = np.random.default_rng(hidden)
    attrs = {"direction": "reverse", "hidden_size": hidden, **more}
    gates = _GATES[op]
    shapes = {"X": (2, 2, 5), "W": (1, gates * hidden, 5), "R": (1, gates * hidden, hidden)}
    values = {name: rng.standard_normal(shape).astype(np.float32) / 8 for name, shape in shapes.items()}
    values["sequence_lens"] = np.array([2, 1], np.int32)
    compiled = compile(_model(op, attrs, values, ["X", "sequence_lens"]))
    for threads, length, batch in ((1, 3, 2), (2, 1, 1), (2, 4, 3), (2, 3, 50), (3, 2, 1)):
        values["X"] = rng.standard_normal((length, batch, 5)).astype(np.float32)
        values["sequence_lens"] = rng.integers(0, length + 1, batch).astype(np.int32)
        got = compiled.load(threads=threads).run(None, {name: values[name] for name in ("X", "sequence_lens")})
        _same(got, _expected(op, attrs, values))


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float16, 2e-3)])
@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_types(op: str, dtype: type, tolerance: float) -> None:
    _, attrs, values, _ = _case({"LSTM": 3, "GRU": 1}[op])
    values = {name: value if name == "sequence_lens" else value.astype(dtype) for name, value in values.items()}
    model = _model(op, attrs, values, ["X", "R"])
    got = compile(model).load().run(None, {"X": values["X"], "R": values["R"]})
    assert all(value.dtype == dtype for value in got)
    _same(got, _expected(op, attrs, values), tolerance)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_batch_first(op: str) -> None:
    _, _, values, _ = _case({"LSTM": 0, "GRU": 1, "RNN": 2}[op])
    values.pop("P", None)
    hidden = values["R"].shape[2]
    direction = "bidirectional" if len(values["R"]) == 2 else "forward"
    attrs = {"hidden_size": hidden, "direction": direction}
    want = _expected(op, attrs, values)
    turned = dict(values)
    for name in ("X", "initial_h", "initial_c"):
        if name in values:
            turned[name] = np.ascontiguousarray(values[name].swapaxes(0, 1))
    got = compile(_model(op, attrs | {"layout": 1}, turned, ["X"])).load().run(None, {"X": turned["X"]})
    _same(got, [want[0].transpose(2, 0, 1, 3), *(state.swapaxes(0, 1) for state in want[1:])])


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_no_steps(op: str) -> None:
    gates, hidden = _GATES[op], 5
    shapes = {
        "X": (0, 2, 3),
        "W": (1, gates * hidden, 3),
        "R": (1, gates * hidden, hidden),
        "initial_h": (1, 2, hidden),
    }
    values = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    model = _model(op, {"hidden_size": hidden}, values, ["initial_h"])
    got = compile(model).load().run(None, {"initial_h": values["initial_h"]})
    assert got[0].shape == (0, 1, 2, hidden)
    np.testing.assert_array_equal(got[1], values["initial_h"])


def test_outputs_may_be_left_out() -> None:
    _, attrs, values, inputs = _case(0)
    model = _model("LSTM", attrs, values, inputs)
    model.graph.node[0].output[:] = ["", "", "Y_c"]
    del model.graph.output[:2]
    got = compile(model).load().run(None, {name: values[name] for name in inputs})
    _same(got, _expected("LSTM", attrs, values)[2:])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"activations": ["Sigmoid", "Tan", "Tanh"]}, "activation 'tan' is unknown"),
        ({"activations": ["Sigmoid"]}, "got 1 activations, expected 3"),
        ({"direction": "both"}, "direction is 'both'"),
        ({"layout": 2}, "layout is 2"),
        ({"hidden_size": 3}, "W has shape"),
    ],
)
def test_refused(change: dict[str, Any], text: str) -> None:
    shapes = {"X": (2, 1, 3), "W": (1, 16, 3), "R": (1, 16, 4)}
    values = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    with pytest.raises(FrontendError, match=text):
        load(_model("LSTM", {"hidden_size": 4, **change}, values, ["X"]))
