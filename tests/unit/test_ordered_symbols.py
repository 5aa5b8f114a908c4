"""Symbols that a TIR function takes as numbers come in the order in which its shapes name them."""

import numpy as np
import onnx
import onnxruntime
import tvm
from onnx import TensorProto, helper
from tvm import relax, te, tirx

import dscc
from dscc import compiler


def test_symbols_have_the_order_in_which_they_appear() -> None:
    names = [f"s{i}" for i in (7, 3, 11, 0, 9, 5, 1, 10, 2, 8, 4, 6)]
    symbols = [tirx.Var(name, "int64") for name in names]
    x = relax.Var("x", relax.TensorType([symbol + 1 for symbol in symbols], "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x, relax.Var("s", relax.ShapeType(symbols))]):
        double = builder.emit_te(lambda a: te.compute(a.shape, lambda *at: a(*at) * 2.0), x)
        builder.emit_func_output(double)
    (func,) = [func for func in builder.get().functions.values() if isinstance(func, tvm.tirx.PrimFunc)]
    assert [param.name for param in func.params if not tirx.is_buffer_var(param)] == names


def model(fused: bool = False) -> onnx.ModelProto:
    """Convolutions of stride 2: what comes out has a height and a width that are computed from symbols."""
    nodes, weights, x = [], [], "x"
    for i in range(6):
        value = helper.make_tensor(f"w{i}", TensorProto.FLOAT, [4, 4, 3, 3], [0.01 * i + 0.01] * 144)
        weights.append(value)
        nodes.append(helper.make_node("Conv", [x, f"w{i}"], [f"y{i}"], strides=[2, 2], pads=[1, 1, 1, 1]))
        x = f"y{i}"
        if fused:
            nodes.append(helper.make_node("HardSwish", [x], [f"z{i}"]))
            x = f"z{i}"
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, "height", "width"])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, None)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def functions(passes: str) -> set[str]:
    done = compiler.optimize(model(), dscc.CompileOptions(), passes, lambda stage: None)
    return {gvar.name_hint for gvar, func in done.mod.functions.items() if isinstance(func, tvm.tirx.PrimFunc)}


def test_a_tuner_finds_the_functions_by_the_names_of_the_artifact() -> None:
    before = functions("fuse-weight-casts,legalize-operators,fuse-operators")
    after = functions(compiler.lowering(dscc.CompileOptions()))
    assert len(after) >= 6
    assert after <= before


def test_fused_kernels_take_symbols_in_the_order_in_which_they_mention_them() -> None:
    """TVM's own order is that of a hash table of addresses: mostly (width, height) here, now and then the other."""
    proto, options = model(fused=True), dscc.CompileOptions()
    passes = "fuse-weight-casts,legalize-operators,fuse-operators"
    done = compiler.optimize(proto, options, passes, lambda stage: None)
    kernels = [func for func in done.mod.functions.values() if isinstance(func, tvm.tirx.PrimFunc)]
    orders = [[param.name for param in func.params if not tirx.is_buffer_var(param)] for func in kernels]
    assert sum(bool(order) for order in orders) >= 5
    assert all(order in ([], ["height", "width"]) for order in orders)
    module = dscc.compile(proto, options).load(threads=1)
    reference = onnxruntime.InferenceSession(proto.SerializeToString())
    for height, width in ((64, 200), (130, 65), (1, 77)):
        x = np.random.default_rng(height).standard_normal((1, 4, height, width), dtype=np.float32)
        np.testing.assert_allclose(module(x)[0], reference.run(None, {"x": x})[0], rtol=1e-4, atol=1e-5)
