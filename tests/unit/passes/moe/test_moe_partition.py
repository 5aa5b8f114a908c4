"""Mixtures split among devices: all parts in one module, and each on a worker of TVM's disco session."""

from __future__ import annotations

import importlib
import sys
import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import pytest
import tvm
import tvm_ffi

import dscc
from dscc import codegen, compiler, library, pipeline
from dscc.errors import PipelineError
from dscc.options import CompileOptions
from dscc.passes.lower.lift_constants import lift_constants
from dscc.passes.moe.moe_partition import MoePartition

from .graphs import Style, batched, model

STYLE = Style(experts=6, top=3, bias=True)
SUM = "runtime.disco.allreduce"


def disco() -> ModuleType:
    """TVM's module of that name. TVM 0.27 imports it before the library that it needs, and then goes without:
    `python -c "import tvm; print(tvm.runtime.disco)"` says None. Once the library is there it can be imported.
    """
    sys.modules.pop("tvm.runtime.disco._ffi_api", None)
    return importlib.import_module("tvm.runtime.disco")


def passes(split: str) -> str:
    at = pipeline.O2.index("fuse-experts") + 1
    return ",".join([*pipeline.O2[:at], split, *pipeline.O2[at:]])


def rows(tokens: int) -> np.ndarray:
    return np.random.default_rng(tokens).standard_normal((tokens, STYLE.hidden)).astype(np.float32)


@pytest.fixture(scope="module")
def made():
    return model(batched, STYLE)


@pytest.fixture(scope="module")
def expected(made):
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})[0]


def check(got: np.ndarray, want: np.ndarray) -> None:
    np.testing.assert_allclose(got, want, atol=1e-5 * float(np.abs(want).max()), rtol=0)


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_all_parts_in_one_module(made, expected, devices):
    artifact = dscc.compile(made, passes=passes(f"moe-partition{{devices={devices}}}"))
    assert artifact.manifest.summary["fused"]["moe-partition"] == 1
    for tokens in (1, 23):
        check(artifact.load(1).run(None, {"x": rows(tokens)})[0], expected(rows(tokens)))


def part(made, devices: int, device: int, folder: Path) -> tuple[Path, list[np.ndarray]]:
    """The library of one device, and its weights."""
    options = CompileOptions(passes=passes(f"moe-partition{{devices={devices},device={device}}}"), jobs=1)
    done = compiler.optimize(made, options, compiler.lowering(options), lambda stage: None)
    lifted = lift_constants(done.mod)
    folder.mkdir()
    objects = codegen.build(lifted.mod, done.ctx.target, folder, 1)
    done.ctx.target.link(objects, folder / "part.so", library.sources(lifted.mod))
    return folder / "part.so", list(lifted.weights.values())


def test_each_part_on_a_worker(made, expected, tmp_path, sums):
    """The parts of three devices run side by side; every worker has the whole result."""
    workers = 3
    parts = [part(made, workers, device, tmp_path / str(device)) for device in range(workers)]
    sizes = {sum(weight.nbytes for weight in weights) for _, weights in parts}
    whole = sum(weight.nbytes for weight in part(made, 1, 0, tmp_path / "whole")[1])
    assert max(sizes) < whole / 2  # nobody holds the experts of others
    worker_id = tvm.get_global_func("runtime.disco.worker_id")

    @tvm.register_global_func("dscc.test.part", override=True)
    def load():
        path, weights = parts[int(worker_id()[0])]
        machine = tvm.runtime.load_module(str(path))["vm_load_executable"]()
        machine["vm_initialization"](1, 0, 2)
        held = [tvm.runtime.tensor(weight) for weight in weights]
        return tvm_ffi.convert(lambda x: machine["main"](x, *held))

    module = disco()
    session = module.ThreadedSession(workers)
    try:
        run = module.DPackedFunc(session.get_global_func("dscc.test.part")(), session)
        for tokens in (1, 23):
            x = session.empty((tokens, STYLE.hidden), "float32")
            for worker in range(workers):
                x.debug_copy_from(worker, rows(tokens))
            y = run(x)
            for worker in range(workers):
                found = y.debug_get_from_remote(worker)
                check((found if hasattr(found, "numpy") else found[0]).numpy(), expected(rows(tokens)))
    finally:
        session.shutdown()
    assert sums == [workers] * 2


@pytest.fixture
def sums():
    """TVM sums among processors' workers nowhere: its collectives are those of GPUs. This one waits for all threads.

    Gives a list that grows by the number of parts with every sum.
    """
    before, done = tvm.get_global_func(SUM), []
    parts: dict[int, np.ndarray] = {}
    barrier = threading.Barrier(3)
    worker_id = tvm.get_global_func("runtime.disco.worker_id")

    @tvm.register_global_func(SUM, override=True)
    def allreduce(source, kind, in_group, into):
        me = int(worker_id()[0])
        parts[me] = source.numpy()
        barrier.wait(60)
        total = sum(parts[worker] for worker in sorted(parts))
        if barrier.wait(60) == 0:
            done.append(len(parts))
        into.copyfrom(total)

    yield done
    tvm.register_global_func(SUM, before, override=True)


def test_more_devices_than_experts(made):
    with pytest.raises(PipelineError, match="device must be -1 or one of 0 to 1, got 2"):
        MoePartition(2, 2)
    with pytest.raises(PipelineError, match="devices must be 1 or more, got 0"):
        MoePartition(0)
    artifact = dscc.compile(made, passes=passes("moe-partition{devices=7}"))
    assert "moe-partition" not in artifact.manifest.summary["fused"]
