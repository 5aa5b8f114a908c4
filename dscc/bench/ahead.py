"""Engines that compile a model ahead of time, for the shapes of one set of inputs.

That is their best case: a compiler that knows all shapes need not generate code for others.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dscc.bench.engines import Array, Dscc, Engine, OnnxRuntime, OpenVino


def fixed(model: Path, feeds: Mapping[str, Array]) -> Any:
    """The ONNX model with the shapes of `feeds` for its inputs, and shapes inferred from them."""
    import onnx

    proto = onnx.load(model)
    for value in proto.graph.input:
        if value.name in feeds:
            dims = value.type.tensor_type.shape.dim
            for dim, size in zip(dims, feeds[value.name].shape, strict=True):
                dim.dim_value = size
    del proto.graph.value_info[:]
    for value in proto.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    return onnx.shape_inference.infer_shapes(proto, data_prop=True)


class EngineFailure(Exception):
    """An engine's compiler refused the model; the text is its own."""


def _call(command: Sequence[str]) -> None:
    """Run a tool of an engine; what it says last about an error is the reason."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if "error:" in line or "Error" in line]
        raise EngineFailure(f"{Path(command[0]).name}: {(errors or lines or ['it said nothing'])[0].strip()[:300]}")


class Iree(Engine):
    """An ONNX file through iree-import-onnx and iree-compile, for this processor."""

    name, package, requirement, ahead = "iree", "iree.runtime", "iree-base-compiler[onnx] iree-base-runtime", True

    settings = (
        "--iree-hal-target-device=local",
        "--iree-hal-local-target-device-backends=llvm-cpu",
        "--iree-llvmcpu-target-cpu=host",
        "--iree-opt-level=O3",
        "--iree-opt-data-tiling",
        "--iree-llvmcpu-stack-allocation-limit=1048576",  # its own default refuses convolutions of some widths
    )

    @classmethod
    def prepare(cls, model: Path, feeds: Mapping[str, Array], into: Path) -> None:
        import onnx

        with tempfile.TemporaryDirectory(prefix="dscc-iree-") as folder:
            plain, text = Path(folder) / "model.onnx", Path(folder) / "model.mlir"
            proto = fixed(model, feeds)
            onnx.save(proto, plain)
            tool = [sys.executable, "-m", "iree.compiler.tools.import_onnx", str(plain), "-o", str(text)]
            _call([*tool, "--opset-version", "17"])
            compiled = Path(folder) / "model.vmfb"
            _call([_tool("iree-compile"), str(text), "-o", str(compiled), *cls.settings])
            into.mkdir()
            shutil.move(compiled, into / "model.vmfb")
            outputs = [value.type.tensor_type.elem_type for value in proto.graph.output]
            names = [value.name for value in proto.graph.input if value.name in feeds]
            (into / "model.json").write_text(json.dumps({"inputs": names, "outputs": outputs}))

    def __init__(self) -> None:
        import iree.runtime

        self._iree: Any = iree.runtime

    def load(self, model: Path, threads: int) -> None:
        self._iree.flags.parse_flags(f"--task_topology_group_count={threads}")
        config = self._iree.Config("local-sync" if threads == 1 else "local-task")
        context = self._iree.SystemContext(config=config)
        module = self._iree.VmModule.mmap(context.instance, str(model / "model.vmfb"))
        context.add_vm_module(module)
        bound = context.modules[module.name]
        # An ONNX graph becomes a function of its name; next to it there are only those that the compiler adds.
        name = next(n for n in module.function_names if not n.startswith("__") and not n.endswith("$async"))
        self._function, self._device = bound[name], config.device
        self._names = json.loads((model / "model.json").read_text())["inputs"]

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        found = self._function(*(feeds[name] for name in self._names))
        return [np.asarray(one.to_host()) for one in (found if isinstance(found, list | tuple) else (found,))]


class Inductor(Engine):
    """A program of torch.export (`.pt2`) through PyTorch Inductor, compiled ahead, weights frozen and packed."""

    name, package, requirement, ahead, takes = "inductor", "torch", "torch", True, ".pt2"
    settings = ("freezing", "cpp.dynamic_threads")

    @classmethod
    def prepare(cls, model: Path, feeds: Mapping[str, Array], into: Path) -> None:
        import torch
        import torch._inductor

        program = torch.export.load(str(model))
        # One package for every thread count: its loops ask how many there are when they run.
        settings = dict.fromkeys(cls.settings, True)
        into.mkdir()
        with torch.no_grad():
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(into / "model.pt2"), inductor_configs=settings
            )
        given, _ = program.example_inputs
        flat = torch.utils._pytree.tree_leaves(given)
        if len(flat) != len(feeds):
            raise EngineFailure(f"the program takes {len(flat)} inputs, expected {len(feeds)}")

    def __init__(self) -> None:
        import torch

        self._torch: Any = torch

    def load(self, model: Path, threads: int) -> None:
        self._torch.set_num_threads(threads)
        self._model = self._torch._inductor.aoti_load_package(str(model / "model.pt2"))

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        with self._torch.inference_mode():
            found = self._model(*(self._torch.from_numpy(array) for array in feeds.values()))
        return [one.numpy() for one in (found if isinstance(found, list | tuple) else (found,))]


class StockTvm(Engine):
    """An ONNX file through TVM's own importer and its own pipeline for CPUs."""

    name, package, ahead = "tvm", "tvm", True

    @classmethod
    def prepare(cls, model: Path, feeds: Mapping[str, Array], into: Path) -> None:
        import tvm
        from tvm.relax.frontend.onnx import from_onnx

        proto = fixed(model, feeds)
        shapes = {name: list(array.shape) for name, array in feeds.items()}
        module = from_onnx(proto, shape_dict=shapes, keep_params_in_input=False)
        into.mkdir()
        target = tvm.target.Target({"kind": "llvm", **_processor()})
        tvm.compile(module, target=target).export_library(str(into / "model.so"))
        names = [value.name for value in proto.graph.input if value.name in feeds]
        (into / "model.json").write_text(json.dumps({"inputs": names}))

    def __init__(self) -> None:
        import tvm

        self._tvm: Any = tvm

    def load(self, model: Path, threads: int) -> None:
        os.environ["TVM_NUM_THREADS"] = str(threads)  # read when the first parallel loop starts the pool
        from tvm import relax

        self._device = self._tvm.cpu()
        self._machine = relax.VirtualMachine(self._tvm.runtime.load_module(str(model / "model.so")), self._device)
        self._names = json.loads((model / "model.json").read_text())["inputs"]

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        found = self._machine["main"](*(self._tvm.runtime.tensor(feeds[name], self._device) for name in self._names))
        return [one.numpy() for one in ((found,) if hasattr(found, "numpy") else found)]


def _processor() -> Mapping[str, Any]:
    from dscc import targets

    attributes = targets.resolve(None).tvm_target.attrs
    return {key: attributes[key] for key in ("mtriple", "mcpu", "mattr") if key in attributes}


def _tool(name: str) -> str:
    """A program that came with a package, beside this interpreter or on the path."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or name


ENGINES: dict[str, type[Engine]] = {
    engine.name: engine for engine in (Dscc, OnnxRuntime, OpenVino, Iree, Inductor, StockTvm)
}
"""By name, in the order of tables."""
