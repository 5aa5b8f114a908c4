"""If, Loop and Scan: nested, with values from the graphs around them, any number of trips; sequences and optionals."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import dscc

from .conftest import Feeds, build, noise

N = helper.make_node
I64, F32, BOOL = TensorProto.INT64, TensorProto.FLOAT, TensorProto.BOOL


def info(name: str, kind: int = F32, shape: Sequence[int | str] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def graph(name: str, nodes: Sequence[onnx.NodeProto], inputs: Sequence[Any], outputs: Sequence[Any]) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), name, list(inputs), list(outputs))


def by_runtime(model: onnx.ModelProto, feeds: Feeds) -> list[Any]:
    """onnxruntime is the reference here: onnx's evaluator takes minutes for a million trips."""
    session = pytest.importorskip("onnxruntime").InferenceSession(model.SerializeToString())
    return list(session.run(None, dict(feeds)))


def compiled(model: onnx.ModelProto) -> Any:
    artifact = dscc.compile(model, fallback=False, jobs=1)
    assert not artifact.manifest.fallback
    return artifact.load(1)


def agree(model: onnx.ModelProto, *feeds: Feeds) -> None:
    model.ir_version = 10
    module = compiled(model)
    for feed in feeds:
        for got, want in zip(module.run(None, dict(feed)), by_runtime(model, feed), strict=True):
            items = zip(got, want, strict=True) if isinstance(want, list) else [(got, want)]
            for one, other in items:
                assert one.dtype == other.dtype and one.shape == other.shape
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def counter() -> onnx.ModelProto:
    """x = x * 3 + i mod 1000, `trips` times."""
    body = graph(
        "body",
        [N("Mul", ["x_in", "three"], ["m"]), N("Add", ["m", "i"], ["s"]), N("Mod", ["s", "most"], ["x_out"]),
         N("Identity", ["go_in"], ["go_out"])],
        [info("i", I64, []), info("go_in", BOOL, []), info("x_in", I64, [1])],
        [info("go_out", BOOL, []), info("x_out", I64, [1])],
    )  # fmt: skip
    weights = {"three": np.array([3]), "most": np.array([1000])}
    return build([N("Loop", ["trips", "", "x"], ["y"], body=body)], {"trips": ("i", ()), "x": ("i", (1,))}, weights)


def counted(trips: int) -> int:
    x = 1
    for i in range(trips):
        x = (x * 3 + i) % 1000
    return x


def test_a_million_trips_from_another_thread() -> None:
    module = compiled(counter())
    found: dict[int, Any] = {}

    def call(trips: int) -> None:
        found[trips] = module.run(None, {"trips": np.array(trips), "x": np.array([1])})[0]

    for trips in (1_000_000, 0, 1, 5000):
        thread = threading.Thread(target=call, args=(trips,))
        thread.start()
        thread.join()
        assert found[trips].tolist() == [counted(trips)]


def test_loops_in_several_threads_at_once() -> None:
    module = compiled(counter())
    found: dict[int, list[int]] = {}

    def call(trips: int) -> None:
        found[trips] = module.run(None, {"trips": np.array(trips), "x": np.array([1])})[0].tolist()

    threads = [threading.Thread(target=call, args=(trips,)) for trips in range(20_000, 20_006)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {trips: [counted(trips)] for trips in range(20_000, 20_006)}


def nested() -> onnx.ModelProto:
    """A Scan over rows; for each a Loop, whose body has an If. Every graph takes values from all graphs around it."""
    then = graph("then", [N("Add", ["state", "row"], ["t0"]), N("Add", ["t0", "bias"], ["t"])], [], [info("t")])
    other = graph("else", [N("Mul", ["state", "factor"], ["e0"]), N("Sub", ["e0", "scaled"], ["e"])], [], [info("e")])
    loop = graph(
        "loop",
        [N("Mod", ["i", "two"], ["odd"]), N("Equal", ["odd", "zero"], ["even"]),
         N("If", ["even"], ["after"], then_branch=then, else_branch=other),
         N("ReduceMax", ["after"], ["high"], keepdims=0),
         N("Less", ["high", "limit"], ["on"]), N("ReduceSum", ["after"], ["sum"], keepdims=0)],
        [info("i", I64, []), info("go", BOOL, []), info("state", F32, ["w"])],
        [info("on", BOOL, []), info("after", F32, ["w"]), info("sum", F32, [])],
    )  # fmt: skip
    scan = graph(
        "scan",
        [N("Mul", ["row", "factor"], ["scaled"]), N("Loop", ["trips", "yes", "total"], ["next", "sums"], body=loop),
         N("ReduceSum", ["sums"], ["out"], keepdims=0)],
        [info("total", F32, ["w"]), info("row", F32, ["w"])], [info("next", F32, ["w"]), info("out", F32, [])],
    )  # fmt: skip
    return build(
        [N("Exp", ["b"], ["bias"]), N("Scan", ["start", "x"], ["last", "outs"], body=scan, num_scan_inputs=1)],
        {"x": ("f", ("n", "w")), "b": ("f", ("w",)), "start": ("f", ("w",)), "trips": ("i", ())},
        {"two": np.array(2), "zero": np.array(0), "factor": np.array(0.5, np.float32),
         "limit": np.array(30, np.float32), "yes": np.array(True)},
    )  # fmt: skip


def test_graphs_three_deep() -> None:
    agree(
        nested(),
        *(
            {"x": noise(n, w), "b": noise(w), "start": np.zeros(w, np.float32), "trips": np.array(trips)}
            for n, w, trips in ((3, 4, 5), (1, 1, 1), (7, 3, 100), (2, 5, 0))
        ),
    )


@pytest.mark.parametrize("directions", [([0], [0]), ([1], [0]), ([0], [1]), ([1], [1])])
def test_scans_in_both_directions(directions: tuple[list[int], list[int]]) -> None:
    body = graph(
        "body", [N("Add", ["s", "v"], ["n"]), N("Mul", ["n", "k"], ["o"])],
        [info("s", F32, [3]), info("v", F32, [3])], [info("n", F32, [3]), info("o", F32, [3])],
    )  # fmt: skip
    there, back = directions
    node = N("Scan", ["s0", "x"], ["last", "y"], body=body, num_scan_inputs=1, scan_input_directions=there,
             scan_output_directions=back)  # fmt: skip
    model = build([node], {"s0": ("f", (3,)), "x": ("f", ("n", 3)), "k": ("f", (3,))})
    agree(model, *({"s0": noise(3), "x": noise(n, 3), "k": noise(3)} for n in (1, 6)))


def test_a_state_that_grows_and_a_loop_that_stops_itself() -> None:
    """The rows so far, doubled until there are `most` of them."""
    body = graph(
        "body",
        [N("Concat", ["state", "state"], ["longer"], axis=0), N("Shape", ["longer"], ["shape"], end=1),
         N("Squeeze", ["shape"], ["rows"]), N("Less", ["rows", "most"], ["on"])],
        [info("i", I64, []), info("go", BOOL, []), info("state", F32, ["n", 2])],
        [info("on", BOOL, []), info("longer", F32, ["m", 2])],
    )  # fmt: skip
    model = build(
        [N("Loop", ["", "yes", "x"], ["y"], body=body)], {"x": ("f", ("k", 2)), "most": ("i", ())},
        {"yes": np.array(True)},
    )  # fmt: skip
    agree(model, *({"x": noise(rows, 2), "most": np.array(most)} for rows, most in ((1, 9), (3, 3), (2, 200))))


@pytest.mark.parametrize("trips", [1, 2, 7, None])
def test_states_that_get_their_rank_in_the_first_iteration(trips: int | None) -> None:
    """`last` is only written; `sum` grows from a number to rows. So programs are exported that fill names in a loop."""
    body = graph(
        "body",
        [N("Cast", ["i"], ["at"], to=F32), N("Mul", ["x", "at"], ["moved"]), N("Add", ["moved", "sum"], ["more"]),
         N("Neg", ["more"], ["row"]), N("ReduceMax", ["more"], ["top"], keepdims=0),
         N("Less", ["top", "most"], ["on"])],
        [info("i", I64, []), info("go", BOOL, []), info("last", F32), info("sum", F32)],
        [info("on", BOOL, []), info("row", F32), info("more", F32), info("row", F32, ["n", 2])],
    )  # fmt: skip
    weights = {"zero": np.array(0, np.float32), "yes": np.array(True)}
    weights |= {"trips": np.array(trips)} if trips else {}
    model = build(
        [N("Loop", ["trips" if trips else "", "yes", "zero", "zero"], ["a", "b", "rows"], body=body),
         N("Add", ["a", "b"], ["y"])],
        {"x": ("f", ("n", 2)), "most": ("f", ())}, weights, outputs=["y", "rows"],
    )  # fmt: skip
    agree(
        model,
        *({"x": np.abs(noise(n, 2)) + 0.1, "most": np.array(most, np.float32)} for n in (1, 5) for most in (0, 3, 30)),
    )


@pytest.mark.parametrize("shape", [("n", 1), ("n", 1, 3), ("n", "m"), (1, "n", "m", 2), ("n", "m", "k")])
def test_a_squeeze_of_sizes_that_are_open(shape: tuple[int | str, ...]) -> None:
    """Which dimensions go is known when the model runs; of three open ones all are taken for larger."""
    model = build([N("Squeeze", ["x"], ["s"]), N("Sigmoid", ["s"], ["y"])], {"x": ("f", shape)}, outputs=["y", "s"])
    sizes = ({"n": 1, "m": 1}, {"n": 4, "m": 1}, {"n": 1, "m": 5}, {"n": 4, "m": 5})
    if shape.count("k"):
        sizes = sizes[-1:]
    agree(model, *({"x": noise(*(s.get(d, 3) if isinstance(d, str) else d for d in shape))} for s in sizes))


def test_what_follows_a_squeeze_may_fit_one_rank_only() -> None:
    model = build([N("Squeeze", ["x"], ["s"]), N("Transpose", ["s"], ["y"], perm=[1, 0])], {"x": ("f", ("n", 1, 3))})
    agree(model, {"x": noise(4, 1, 3)})
    with pytest.raises(dscc.DsccError, match="fits else_branch only"):
        compiled(model).run(None, {"x": noise(1, 1, 3)})


def test_a_squeeze_inside_of_a_loop() -> None:
    body = graph(
        "body", [N("Squeeze", ["x"], ["s"]), N("Add", ["state", "s"], ["next"]), N("Identity", ["go"], ["on"])],
        [info("i", I64, []), info("go", BOOL, []), info("state", F32, ["n"])],
        [info("on", BOOL, []), info("next", F32, ["n"])],
    )  # fmt: skip
    model = build([N("Loop", ["three", "", "b"], ["y"], body=body)], {"x": ("f", ("n", 1)), "b": ("f", ("n",))},
                  {"three": np.array(3)})  # fmt: skip
    agree(model, {"x": noise(4, 1), "b": noise(4)})


@pytest.mark.parametrize("squeezed", [False, True])
def test_a_condition_whose_rank_is_open(squeezed: bool) -> None:
    """`while x < 100 and i < limit`: If(x < 100) {i + ones < limit, of one dimension} {False, a scalar}."""
    then = graph("then", [N("Less", ["at", "limit"], ["t"])], [], [info("t", BOOL, [1])])
    other = graph("else", [N("Identity", ["no"], ["e"])], [], [info("e", BOOL, [])])
    choice = N("If", ["small"], ["both"], then_branch=then, else_branch=other)
    flat = [N("Reshape", ["both", "ones"], ["flat"]), N("Squeeze", ["flat"], ["on"])]
    body = graph(
        "body",
        [N("Add", ["x_in", "x_in"], ["next"]), N("ReduceMax", ["next"], ["most"], keepdims=0),
         N("Less", ["most", "hundred"], ["small"]), N("Add", ["i", "ones"], ["at"]), choice,
         *(flat if squeezed else [N("Identity", ["both"], ["on"])])],
        [info("i", I64, []), info("go", BOOL, []), info("x_in", F32, ["n"])],
        [info("on", BOOL, None), info("next", F32, ["n"]), info("at", I64, [1])],
    )  # fmt: skip
    model = build([N("Loop", ["", "go", "x"], ["y", "steps"], body=body)],
                  {"go": ("b", ()), "x": ("f", ("n",)), "limit": ("i", ())},
                  {"hundred": np.array(100, "float32"), "ones": np.array([1]), "no": np.array(False)},
                  outputs=["y", "steps"])  # fmt: skip
    values = [(1.0, 20, 3), (1.0, 3, 1), (90.0, 5, 2), (1.0, 0, 2)]
    agree(model, *({"go": np.array(True), "x": np.full(n, x, "float32"), "limit": np.array(most)}
                   for x, most, n in values))  # fmt: skip
    agree(model, {"go": np.array(False), "x": np.ones(2, "float32"), "limit": np.array(5)})


def test_branches_that_differ_in_shape() -> None:
    then = graph("then", [N("Concat", ["x", "x"], ["t"], axis=0)], [], [info("t", F32, ["m", 3])])
    other = graph("else", [N("Relu", ["x"], ["e"])], [], [info("e", F32, ["n", 3])])
    model = build([N("If", ["c"], ["y"], then_branch=then, else_branch=other), N("Neg", ["y"], ["z"])],
                  {"c": ("b", ()), "x": ("f", ("n", 3))}, outputs=["y", "z"])  # fmt: skip
    agree(model, *({"c": np.array(c), "x": noise(n, 3)} for c in (True, False) for n in (1, 4)))


def test_a_sequence_that_a_loop_fills() -> None:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(F32, [None]))
    held = [helper.make_value_info(name, kind) for name in ("in", "out")]
    body = graph(
        "body",
        [N("Add", ["i", "one"], ["j"]), N("Unsqueeze", ["j", "axis"], ["end"]),
         N("Slice", ["x", "begin", "end"], ["part"]),
         N("SequenceInsert", ["in", "part"], ["out"]), N("Identity", ["go"], ["on"])],
        [info("i", I64, []), info("go", BOOL, []), held[0]], [info("on", BOOL, []), held[1]],
    )  # fmt: skip
    model = build(
        [N("SequenceEmpty", [], ["none"], dtype=F32), N("Loop", ["trips", "", "none"], ["parts"], body=body),
         N("ConcatFromSequence", ["parts"], ["joined"], axis=0), N("SequenceLength", ["parts"], ["count"]),
         N("SequenceAt", ["parts", "which"], ["one_part"])],
        {"x": ("f", ("n",)), "trips": ("i", ()), "which": ("i", ())},
        {"one": np.array(1), "begin": np.array([0]), "axis": np.array([0])},
        outputs=["joined", "count", "one_part"],
    )  # fmt: skip
    agree(model, *({"x": noise(9), "trips": np.array(t), "which": np.array(w)} for t, w in ((5, 2), (1, 0), (9, -1))))


@pytest.mark.parametrize("trips", [0, 1, 3])
def test_a_sequence_that_a_short_loop_fills_stays_known(trips: int) -> None:
    """As tensor_split is exported, with an index of one dimension: the rank of its parts was unknown."""
    held = [helper.make_value_info(n, helper.make_sequence_type_proto(helper.make_tensor_type_proto(F32, None)))
            for n in ("in", "out")]  # fmt: skip
    body = graph(
        "body",
        [N("Gather", ["bounds", "i"], ["begin"]), N("Add", ["i", "ones"], ["next"]),
         N("Gather", ["bounds", "next"], ["end"]), N("Slice", ["x", "begin", "end", "axis"], ["part"]),
         N("SequenceInsert", ["in", "part"], ["out"]), N("Identity", ["go"], ["on"])],
        [info("i", I64, [1]), info("go", BOOL, []), held[0]], [info("on", BOOL, []), held[1]],
    )  # fmt: skip
    model = build(
        [N("SequenceEmpty", [], ["none"], dtype=F32), N("Loop", ["trips", "yes", "none"], ["begun"], body=body),
         N("Slice", ["x", "rest", "far", "axis"], ["tail"]), N("SequenceInsert", ["begun", "tail"], ["parts"]),
         N("SequenceAt", ["parts", "zero"], ["first"]), N("Transpose", ["first"], ["y"], perm=[1, 0]),
         N("SequenceAt", ["parts", "last"], ["end"]), N("Transpose", ["end"], ["z"], perm=[1, 0])],
        {"x": ("f", ("n", 3))},
        {"trips": np.array([trips]), "yes": np.array(True), "axis": np.array([0]), "ones": np.array([1]),
         "bounds": np.arange(5),
         "rest": np.array([trips]), "far": np.array([2**62]), "zero": np.array(0), "last": np.array(-1)},
        outputs=["y", "z"],
    )  # fmt: skip
    agree(model, *({"x": noise(n, 3)} for n in (3, 4, 9)))


def test_an_index_of_one_dimension() -> None:
    """The index of an iteration has the rank that the body declares, here by its use in Slice and Concat."""
    body = graph(
        "body",
        [N("Add", ["i", "ones"], ["end"]), N("Slice", ["x", "i", "end"], ["part"]), N("Cast", ["i"], ["f"], to=F32),
         N("Concat", ["part", "f"], ["both"], axis=0), N("Identity", ["go"], ["on"])],
        [info("i", I64, [1]), info("go", BOOL, [])], [info("on", BOOL, []), info("both", F32, [2])],
    )  # fmt: skip
    model = build(
        [N("Loop", ["trips", ""], ["y"], body=body)],
        {"x": ("f", ("n",)), "trips": ("i", (1,))},
        {"ones": np.array([1])},
    )
    agree(model, *({"x": noise(9), "trips": np.array([t])} for t in (2, 5)))


def test_a_sequence_in_and_out() -> None:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(F32, [None, 2]))
    nodes = [N("SequenceErase", ["s", "at"], ["fewer"]), N("SequenceInsert", ["fewer", "x"], ["y"])]
    model = build(nodes, {"x": ("f", ("n", 2)), "at": ("i", ())})
    model.graph.input.insert(0, helper.make_value_info("s", kind))
    model.graph.output[0].CopyFrom(helper.make_value_info("y", kind))
    agree(model, *({"s": [noise(n, 2) for n in (1, 3, 2)], "x": noise(4, 2), "at": np.array(at)} for at in (0, -1)))


def test_a_split_into_many() -> None:
    """More pieces than are worth a value each: they are cut at run time. An altered file had 2**36 of them."""
    cut = [N("SplitToSequence", ["x", *sizes], ["s"], axis=0) for sizes in ([], ["two"])]
    for rows, split in itertools.product((400, 600), cut):
        nodes = [split, N("SequenceAt", ["s", "at"], ["y"]), N("SequenceLength", ["s"], ["count"])]
        model = build(nodes, {"x": ("f", (rows, 2)), "at": ("i", ())}, {"two": np.array(2)}, outputs=["y", "count"])
        agree(model, *({"x": noise(rows, 2), "at": np.array(at)} for at in (3, -1)))
    dscc.compile(build([cut[0], N("SequenceLength", ["s"], ["y"])], {"x": ("f", (2**36, 2))}), jobs=1)


@pytest.mark.parametrize("given", [True, False])
def test_an_optional_that_may_be_empty(given: bool) -> None:
    tensor = helper.make_tensor_type_proto(F32, ["n"])
    has = graph("has", [N("OptionalGetElement", ["o"], ["t"])], [], [info("t", F32, ["m"])])
    none = graph("none", [N("Neg", ["x"], ["e"])], [], [info("e", F32, ["k"])])
    nodes = [N("OptionalHasElement", ["o"], ["c"]), N("If", ["c"], ["y"], then_branch=has, else_branch=none)]
    model = build(nodes, {"x": ("f", ("k",))}, outputs=["y", "c"])
    model.graph.input.insert(0, helper.make_value_info("o", helper.make_optional_type_proto(tensor)))
    model.ir_version = 10
    module = compiled(model)
    x, o = noise(3), noise(5)
    y, c = module.run(None, {"o": o if given else None, "x": x})
    assert c.tolist() is given
    np.testing.assert_array_equal(y, o if given else -x)
