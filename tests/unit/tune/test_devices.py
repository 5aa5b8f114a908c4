"""Tuning for devices: what there is to choose, candidates as device code, and Intel's runtime for processors behind
TVM's RPC, as a device of another machine would be.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import click.testing
import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import dscc
from dscc import compiler
from dscc.cli.entry import cli
from dscc.errors import TargetError, TuneError
from dscc.feeds import random_feeds
from dscc.options import CompileOptions
from dscc.passes.lower.schedule_kernels import unscheduled
from dscc.runtime.opencl import locate
from dscc.targets.cuda import nvrtc
from dscc.targets.device import Binary
from dscc.targets.oneapi.target import OneAPI
from dscc.targets.rocm import clang
from dscc.tune import session
from dscc.tune.database import Database
from dscc.tune.kernel import Built, Kernel, build, space
from dscc.tune.measure import TOLERANCE
from dscc.tune.remote import RpcRunner
from dscc.tune.search import Task, search
from dscc.tune.serve import serving
from dscc.tune.workers import Builder, DoesNotFit, Failed, LocalRunner, attempt

ROWS, DEPTH, COLUMNS = 70, 48, 96
SIZES = ((ROWS, DEPTH), (DEPTH, COLUMNS), (ROWS, COLUMNS))


def lacks(find: Callable[[], object], what: str) -> pytest.MarkDecorator:
    try:
        find()
    except TargetError:
        return pytest.mark.skipif(True, reason=f"{what} is needed")
    return pytest.mark.skipif(False, reason="")


needs_opencl = lacks(lambda: locate.library("cpu"), "Intel's OpenCL runtime")
needs_nvrtc = lacks(nvrtc.find, "NVRTC")
needs_clang = lacks(clang.find, "clang for AMD")


@pytest.fixture(scope="module")
def proto() -> onnx.ModelProto:
    """relu(x @ w): x of (n, 48)."""
    text = f"g (float[n, {DEPTH}] x) => (float[n, {COLUMNS}] y) {{ a = MatMul (x, w) y = Relu (a) }}"
    made = parser.parse_model(f'<ir_version: 9, opset_import: ["": 18]> {text}')
    w = np.random.default_rng(0).standard_normal((DEPTH, COLUMNS)).astype("float32")
    made.graph.initializer.append(numpy_helper.from_array(w, "w"))
    return made


def product(proto: onnx.ModelProto, target: str, precision: str = "fp32") -> Kernel:
    """The kernel of `proto` that multiplies."""
    options = CompileOptions(target=target, precision=precision)
    done = compiler.optimize(proto, options, ",".join(compiler.kernel_passes(options)), lambda stage: None)
    name, (func, constants) = next(item for item in unscheduled(done.mod).items() if "matmul" in item[0])
    return Kernel.of(name, func, constants, SIZES, target, precision)


@pytest.fixture(scope="module")
def kernel(proto: onnx.ModelProto) -> Kernel:
    return product(proto, "oneapi:cpu")


@pytest.mark.parametrize(
    "target, precision, rule, name",
    [
        ("cuda:sm_80", "fp16", "mma-product", "warps"),
        ("cuda:sm_80", "tf32", "mma-product", "warps"),
        ("cuda:sm_90", "fp16", "wgmma-product", "tile"),
        ("cuda:sm_75", "fp32", "matmul", "tile"),
        ("rocm:gfx942", "fp16", "matrix-product", "waves"),
        pytest.param("oneapi:cpu", "fp32", "matmul", "tile", marks=needs_opencl),
    ],
)
def test_what_there_is_to_choose(proto, target, precision, rule, name):
    rules = space(product(proto, target, precision))
    assert next(iter(rules)) == rule and len(rules[rule][name]) > 4
    assert set(rules["elementwise"]["threads"]) >= {256, 128, 64}


@pytest.mark.parametrize(
    "target, mark, rule, name",
    [
        pytest.param("cuda:sm_80", b"\x7fELF", "mma-product", "warps", marks=needs_nvrtc),
        pytest.param("rocm:gfx942", b"amdgcn-amd-amdhsa", "matrix-product", "waves", marks=needs_clang),
    ],
)
def test_candidates_for_devices_that_are_not_here_are_finished_code(proto, target, mark, rule, name):
    kernel = product(proto, target, "fp16")
    made, other = build(kernel, {}), build(kernel, {name: space(kernel)[rule][name][2]})
    assert made.device["kind"] == target.partition(":")[0]
    assert made.library.count(mark) > 0 and b"__global__" not in made.library
    assert made.library != other.library


def test_what_is_tuned_for_a_device_that_is_not_here(proto, tmp_path):
    """Its own kernels, in its precision, with the sizes that they have when they run on this machine."""
    options = CompileOptions(target="cuda:sm_80", precision="fp16")
    artifact = session.here(proto, options, lambda stage: None)
    feeds = random_feeds(artifact.load(1).get_inputs(), {"n": ROWS}, 0)
    database = Database(tmp_path / "found.db", "cuda:sm_80 fp16", "a device")
    tasks = session.tasks(proto, options, feeds, artifact, 1, database, elsewhere=True)
    (found,) = [task for task in tasks if "matmul" in task.kernel.name]
    assert found.kernel.sizes == SIZES and found.calls == 1
    assert [argument.dtype for argument in found.kernel.arguments][:2] == ["float16", "float16"]


class OneCandidate(Builder):
    """Builds in this process."""

    def build(self, kernel, candidates):
        return [attempt(kernel, candidate) for candidate in candidates[:1]] * len(candidates)

    def close(self):
        pass


@needs_opencl
def test_candidates_that_do_not_fit_are_refused(kernel, tmp_path, monkeypatch):
    choices = {"tile": space(kernel)["matmul"]["tile"][2]}
    inner = OneAPI.finish

    def spilling(self: OneAPI, source: str) -> Binary:
        return dataclasses.replace(inner(self, source), spills=8)

    monkeypatch.setattr(OneAPI, "finish", spilling)
    assert isinstance(build(kernel, {}), Built)  # the default is what there is
    found = attempt(kernel, choices)
    assert isinstance(found, DoesNotFit) and "registers are not enough: 8 spilled" in str(found)

    def refusing(self: OneAPI, source: str) -> Binary:
        raise TargetError("OpenCL's compiler refused a kernel: too much local memory")

    monkeypatch.setattr(OneAPI, "finish", refusing)
    assert isinstance(attempt(kernel, choices), DoesNotFit)
    monkeypatch.setattr(OneAPI, "finish", inner)
    task = Task(kernel, 1, 1.0, _default=build(kernel, {}))
    monkeypatch.setattr(OneAPI, "finish", refusing)
    database = Database(tmp_path / "found.db", "oneapi:cpu", "here")
    steps = search([task], database, OneCandidate(), LocalRunner(1), iter([True, False]).__next__)
    assert [step.trial.state for step in steps] == ["refused"]


@needs_opencl
def test_measuring_on_a_device_of_this_machine(kernel):
    default, other = build(kernel, {}), build(kernel, {"tile": space(kernel)["matmul"]["tile"][2]})
    runner = LocalRunner(1)
    try:
        found = runner.measure(kernel, default, other, 2, 1e9)
        assert found.error <= 1e-6 and found.ratio > 0
        assert runner.measure(kernel, default, wrong(default), 2, 1e9).error > TOLERANCE
    finally:
        runner.close()


@dataclasses.dataclass(frozen=True)
class Doubled:
    def pack(self, weight):
        return weight * 2


def wrong(default: Built) -> Built:
    """A candidate that computes relu(x @ 2 w)."""
    assert 1 not in default.packings
    return dataclasses.replace(default, packings={1: Doubled()})


@pytest.fixture(scope="module")
def tracker() -> Iterator[str]:
    """`HOST:PORT` of a tracker that has this machine under the key `board`."""
    if missing := [name for name in ("tornado", "psutil", "cloudpickle") if importlib.util.find_spec(name) is None]:
        pytest.skip(f"TVM's RPC needs {', '.join(missing)}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serving("127.0.0.1", port, "board", None) as (host, number):
        yield f"{host}:{number}"


@needs_opencl
def test_candidates_are_measured_there(tracker: str, proto, tmp_path: Path) -> None:
    onnx.save(proto, tmp_path / "model.onnx")
    kept = tmp_path / "found.db"
    command = ["tune", str(tmp_path / "model.onnx"), "--target", "oneapi:cpu", "--db", str(kept), "--jobs", "1"]
    command += ["--trials", "3", "--dim", f"n={ROWS}", "--rpc", tracker, "--key", "board"]
    done = click.testing.CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    artifact = dscc.compile(proto, target="oneapi:cpu", db=kept)
    with contextlib.closing(sqlite3.connect(kept)) as found:
        assert found.execute("SELECT state, COUNT(*) FROM trial GROUP BY state").fetchall() == [("right", 3)]
        machine = str(artifact.manifest.device["device"])
        assert found.execute("SELECT DISTINCT target, machine FROM kernel").fetchall() == [("oneapi:cpu", machine)]


@needs_opencl
def test_what_ends_its_process_there_fails_alone(tracker: str, kernel, tmp_path: Path) -> None:
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("a C compiler is needed")
    (tmp_path / "crash.c").write_text("int __tvm_ffi_kernel() { *(volatile int*)0 = 1; return 0; }")
    library = tmp_path / "crash.so"
    subprocess.run([compiler, "-shared", "-fPIC", str(tmp_path / "crash.c"), "-o", str(library)], check=True)
    default = build(kernel, {})
    runner = RpcRunner(tracker, "board", default.device)
    try:
        with pytest.raises(Failed):
            runner.measure(kernel, default, dataclasses.replace(default, library=library.read_bytes()), 2, 1e9)
        assert runner.measure(kernel, default, default, 2, 1e9).error == 0.0
        assert runner.measure(kernel, default, wrong(default), 2, 1e9).error > TOLERANCE
    finally:
        runner.close()


def test_devices_that_are_not_there(tracker: str) -> None:
    with pytest.raises(
        TuneError, match=r"the machine with key 'board' cannot measure: unknown kind of device 'abacus'"
    ):
        RpcRunner(tracker, "board", {"kind": "abacus", "type": 99})
    from tvm import rpc

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    host, _, number = tracker.rpartition(":")
    plain = rpc.Server("127.0.0.1", port, port + 1, tracker_addr=(host, int(number)), key="plain", silent=True)
    try:
        with pytest.raises(TuneError, match=r"key 'plain' has no runtime for 'opencl' devices; run 'dscc serve' on it"):
            RpcRunner(tracker, "plain", {"kind": "opencl", "type": 4})
        assert RpcRunner(tracker, "plain").machine == "rpc plain"
    finally:
        plain.terminate()


def test_a_server_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(TuneError, match=r"this machine cannot be served at 127\.0\.0\.1:9: "):
        with serving("127.0.0.1", 9, "board", ("127.0.0.1", 1)):
            pass


@needs_opencl
def test_sessions_are_begun_anew(tracker: str, kernel) -> None:
    """After a time, and after what fails, also while somebody keeps the error and with it what the frames hold."""
    default = build(kernel, {})
    runner = RpcRunner(tracker, "board", default.device)
    try:
        runner._until = 0
        assert runner.measure(kernel, default, default, 2, 1e9).error == 0.0
        short = dataclasses.replace(kernel, arguments=kernel.arguments[:2])
        with pytest.raises(Failed) as kept:
            runner.measure(short, default, default, 2, 1e9)
        assert runner.measure(kernel, default, default, 2, 1e9).error == 0.0
        del kept
    finally:
        runner.close()
