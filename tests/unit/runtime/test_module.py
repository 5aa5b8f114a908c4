"""A loaded model: what it takes, what it returns, and what it says to what it cannot take."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx.parser
import pytest

import dscc
from dscc.artifact import Artifact
from dscc.errors import ArtifactError, InputError
from dscc.runtime import Module

SCALE = np.arange(64, dtype=np.float32)
Make = Callable[[str], Artifact]


@pytest.fixture(scope="module")
def scale(artifact: Make) -> Module:
    return artifact("scale").load(threads=2)


@pytest.fixture(scope="module")
def pair(artifact: Make) -> Module:
    return artifact("pair").load(threads=1)


def rows(n: int) -> np.ndarray:
    return np.random.default_rng(n).standard_normal((n, 64)).astype(np.float32)


def at_offset(values: np.ndarray, offset: int) -> np.ndarray:
    """A copy of `values` that starts `offset` bytes after a multiple of 64."""
    memory = np.empty(values.nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    placed = memory[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    placed[...] = values
    return placed


@pytest.mark.parametrize("n", [1, 3, 1000])
@pytest.mark.parametrize("offset", [0, 4, 16, 32])
def test_any_alignment(scale: Module, n: int, offset: int):
    x = at_offset(rows(n), offset)
    assert x.ctypes.data % 64 == offset
    np.testing.assert_array_equal(scale(x)[0], x * SCALE)


@pytest.mark.parametrize("offset", [16, 48, 4])
def test_arrays_as_numpy_makes_them_are_not_copied(offset: int):
    """malloc, and so NumPy, gives multiples of 16."""
    text = """<ir_version: 10, opset_import: ["": 20]> f (float[n, 64] x) => (float[n, 64] y, float[n] z)
        <int64[1] a = {1}> {
        y = Exp(x) z = ReduceSum<keepdims = 0>(y, a) }"""
    module = dscc.compile(onnx.parser.parse_model(text), jobs=1).load(1)
    x = at_offset(rows(1000) / 1e4, offset)
    y, z = module(x)
    np.testing.assert_allclose(y, np.exp(x), rtol=1e-6)
    np.testing.assert_allclose(z, np.exp(x).sum(1), rtol=1e-5)
    (port,) = module._idle[0]._ports
    assert (port._staged is None) == (offset % 16 == 0)


@pytest.mark.parametrize("n", [3, 1000])
@pytest.mark.parametrize(
    "change",
    {
        "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        "reversed": lambda x: x[::-1, ::-1],
        "fortran": np.asfortranarray,
        "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
        "big endian": lambda x: x.astype(">f4"),
        "read-only": lambda x: np.frombuffer(x.tobytes(), np.float32).reshape(x.shape),
        "subclass": lambda x: x.view(np.matrix),
    }.items(),
    ids=lambda pair: pair[0],
)
def test_any_layout(scale: Module, n: int, change: tuple[str, Callable[[np.ndarray], np.ndarray]]):
    x = change[1](rows(n))
    np.testing.assert_array_equal(scale(x)[0], np.asarray(x, np.float32) * SCALE)


def test_tensors_of_torch(scale: Module, pair: Module):
    torch = pytest.importorskip("torch")
    x = torch.randn(500, 64)
    np.testing.assert_array_equal(scale(x)[0], x.numpy() * SCALE)
    np.testing.assert_array_equal(scale(x[::3])[0], x.numpy()[::3] * SCALE)
    ids, mask = torch.arange(6).reshape(2, 3), torch.tensor([[True, False, True]] * 2)
    np.testing.assert_array_equal(pair(ids, mask)[0], np.where(mask.numpy(), ids.numpy(), -ids.numpy()))
    back = torch.from_dlpack(scale(x)[0])
    assert back.data_ptr() == scale.run(["y"], {"x": x})[0].ctypes.data or back.shape == (500, 64)
    with pytest.raises(InputError, match=r"input 'x': expected float32\(n, 64\), got Tensor: .*grad"):
        scale(x.requires_grad_())


def test_numbers_and_lists(artifact: Make, pair: Module):
    zero = artifact("zero").load()
    assert zero(2)[0] == 3.0
    assert zero(np.float64(2))[0].shape == ()
    assert zero(np.array(2.5))[0] == 3.5
    assert pair([[1, 2]], [[True, False]])[0].tolist() == [[1, -2]]
    with pytest.raises(InputError, match="input 'ids': expected type int64, got float64"):
        pair([[1.5, 2]], [[True, False]])


def test_inputs_by_position_and_name(pair: Module):
    ids, mask = np.array([[1, 2]]), np.array([[False, True]])
    assert pair(ids, mask)[0].tolist() == [[-1, 2]]
    assert pair(ids, **{"mask.1": mask})[0].tolist() == [[-1, 2]]
    assert pair(**{"mask.1": mask, "ids": ids})[0].tolist() == [[-1, 2]]


IDS, MASK = np.zeros((2, 3), np.int64), np.zeros((2, 3), bool)


@pytest.mark.parametrize(
    ("feeds", "said"),
    [
        ({"ids": IDS}, "input 'mask.1' is missing; expected bool(batch, length)"),
        ({"ids": IDS, "mask": MASK}, "input 'mask.1' is missing; expected bool(batch, length)"),
        ({"ids": IDS, "mask.1": MASK, "id": IDS}, "unknown input 'id'; did you mean 'ids'?"),
        ({"ids": IDS.astype(np.int32), "mask.1": MASK}, "input 'ids': expected type int64, got int32"),
        ({"ids": IDS.astype(str), "mask.1": MASK}, "input 'ids': expected type int64, got str"),
        ({"ids": None, "mask.1": MASK}, "input 'ids': expected type int64, got object"),
        ({"ids": IDS[0], "mask.1": MASK}, "input 'ids': expected shape (batch, length), got (3)"),
        (
            {"ids": IDS, "mask.1": MASK[:1]},
            "input 'mask.1': expected shape (batch, length), got (1, 3): dimension 0 must be 2, as 'batch' is "
            "in input 'ids'",
        ),
        (
            {"ids": IDS[:0], "mask.1": MASK[:0]},
            "input 'ids': expected shape (batch, length), got (0, 3): dimension 0 ('batch') must be at least 1",
        ),
    ],
)
def test_inputs_that_do_not_fit(pair: Module, feeds: dict[str, np.ndarray], said: str):
    with pytest.raises(InputError) as caught:
        pair.run(None, feeds)
    assert str(caught.value) == said


def test_more_inputs_that_do_not_fit(scale: Module, pair: Module):
    with pytest.raises(InputError, match=r"expected 1 inputs \(x\), got 2"):
        scale(rows(1), rows(1))
    with pytest.raises(InputError, match="input 'ids' is given twice, by position and by name"):
        pair(IDS, MASK, ids=IDS)
    with pytest.raises(InputError, match=r"got \(2, 63\): dimension 1 must be 64"):
        scale(np.zeros((2, 63), np.float32))
    with pytest.raises(InputError, match="unknown output 'z'; known: same, scale, y"):
        scale.run(["z"], {"x": rows(1)})
    with pytest.raises(InputError, match="threads must be at least 1, got 0"):
        Module(scale_artifact_of(scale), threads=0)
    np.testing.assert_array_equal(scale(rows(2))[0], rows(2) * SCALE)


def scale_artifact_of(module: Module) -> Artifact:
    return Artifact(module.manifest, memoryview(b""), {})


def test_shapes_that_depend_on_data(artifact: Make):
    match = artifact("match").load(threads=1)
    x = np.ones((3, 2), np.float32)
    assert match(x, [3])[0].tolist() == x.tolist()
    for _ in range(3):
        with pytest.raises(
            InputError, match=r"the model cannot run on inputs 'x' \(3, 2\), 'rows' \(1,\): .*match"
        ) as it:
            match(x, [4])
        assert "\n" not in str(it.value)
    assert match(x, [3])[0].tolist() == x.tolist()


def test_functions_of_the_other_library(artifact: Make, tmp_path: Path):
    path = tmp_path / "largest.dscc"
    artifact("largest").save(path)
    program = f"""
        import numpy as np
        import dscc
        values, indices = dscc.load({str(path)!r})(np.arange(20, dtype=np.float32).reshape(2, 10))
        print(values.tolist(), indices.tolist())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert done.stdout == "[[9.0, 8.0, 7.0], [19.0, 18.0, 17.0]] [[9, 8, 7], [9, 8, 7]]\n", done.stderr


def test_not_enough_memory(artifact: Make, tmp_path: Path):
    path = tmp_path / "scale.dscc"
    artifact("scale").save(path)
    program = f"""
        import resource
        from pathlib import Path
        import numpy as np
        import dscc
        module = dscc.load({str(path)!r}, threads=1)
        x = np.zeros((1 << 20, 64), np.float32)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        for spare in (100 << 20, 400 << 20):  # for not even the aligned copy of x; for that, and not for the output
            resource.setrlimit(resource.RLIMIT_AS, (used + spare, resource.RLIM_INFINITY))
            try:
                module(x)
            except dscc.DsccError as err:
                print(err)
        print(module(np.ones((1, 64), np.float32))[0].sum())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    said = "the model cannot run on inputs 'x' (1048576, 64): there is not enough memory"
    assert (done.returncode, done.stdout.splitlines()) == (0, [said, said, "2016.0"]), done.stderr


def test_behaves_as_onnxruntime_does(tmp_path: Path, pair: Module):
    onnxruntime = pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, save

    def value(name: str, kind: int):
        return helper.make_tensor_value_info(name, kind, ["batch", "length"])

    nodes = [helper.make_node("Neg", ["ids"], ["n"]), helper.make_node("Where", ["mask.1", "ids", "n"], ["signed"])]
    inputs = [value("ids", TensorProto.INT64), value("mask.1", TensorProto.BOOL)]
    graph = helper.make_graph(nodes, "pair", inputs, [value("signed", TensorProto.INT64)])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "pair.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "pair.onnx", providers=["CPUExecutionProvider"])
    for ours, theirs in [(pair.get_inputs(), session.get_inputs()), (pair.get_outputs(), session.get_outputs())]:
        assert [(a.name, a.type, a.shape) for a in ours] == [(a.name, a.type, a.shape) for a in theirs]
    feeds = {"ids": np.arange(6).reshape(2, 3), "mask.1": np.arange(6).reshape(2, 3) % 2 == 0}
    for names in (None, [], ["signed"]):
        ours, theirs = pair.run(names, feeds), session.run(names, feeds)
        assert type(ours) is type(theirs)
        np.testing.assert_array_equal(ours, theirs)


def test_a_subset_of_the_outputs_in_any_order(scale: Module):
    first, second = scale.run(["scale", "y"], {"x": rows(2)})
    np.testing.assert_array_equal(first, SCALE)
    np.testing.assert_array_equal(second, rows(2) * SCALE)


@pytest.mark.parametrize("n", [2, 2000])
def test_outputs_own_their_memory(scale: Module, n: int):
    x = at_offset(rows(n), 0)
    outputs = scale(x)
    kept = [out.copy() for out in outputs]
    scale(x + 1)
    scale(rows(n + 1))
    for out, want in zip(outputs, kept, strict=True):
        np.testing.assert_array_equal(out, want)
        assert out.flags.writeable
        out[...] = 0  # also the ones that are an input or a weight inside
    np.testing.assert_array_equal(x, rows(n))
    np.testing.assert_array_equal(scale(x)[2], SCALE)


def test_outputs_outlive_the_module(artifact: Make):
    module = artifact("scale").load(threads=2)
    out = module(rows(2000))[0]
    del module
    np.testing.assert_array_equal(out, rows(2000) * SCALE)


def test_without_the_compiler(artifact: Make, tmp_path: Path):
    """The runtime imports neither of TVM's packages, nor torch, which one of them would import."""
    path = tmp_path / "scale.dscc"
    artifact("scale").save(path)
    program = f"""
        import sys
        import numpy as np
        import dscc
        module = dscc.load({str(path)!r}, threads=2)
        assert module(np.ones((5, 64), np.float32))[0].sum() == 5 * sum(range(64))
        print(*sorted(sys.modules.keys() & {{"tvm", "tvm_ffi", "torch", "onnx", "onnxruntime"}}))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


def test_load(artifact: Make, tmp_path: Path):
    path = tmp_path / "pair.dscc"
    artifact("pair").save(path)
    assert dscc.load(path).manifest == artifact("pair").manifest
    with pytest.raises(ArtifactError, match="does not exist"):
        dscc.load(tmp_path / "none.dscc")
