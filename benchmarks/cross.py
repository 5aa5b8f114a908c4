"""Artifacts for targets other than the processor here, executed here: by Debian's `qemu-user`, through OpenCL, or for
AMD's devices by benchmarks/hip_here.

    python -m benchmarks.cross --target arm:cortex-a72 --target oneapi:cpu ppocr_cls magika_v3_3

compiles each model with its dimensions symbolic, runs it over every shape of the registry, and compares the outputs
with those of onnxruntime. Code for another family of processors runs in the program of examples/cpp, built against the
wheels of TVM for that family. Nothing that it finds says how fast the code is.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

import dscc
from benchmarks import hip_here, models
from dscc.errors import DsccError
from dscc.runtime import hip
from dscc.verify import TOLERANCE

Array: TypeAlias = np.ndarray[Any, Any]

EXAMPLE = Path(__file__).parents[1] / "examples" / "cpp"
PACKAGES = ("apache-tvm", "apache-tvm-ffi")
# What the program needs of them: headers and the runtime, 8 of 100 MB.
NEEDED = ("tvm_ffi/include/", "tvm_ffi/lib/libtvm_ffi.so", "tvm/lib/libtvm_runtime")
ALLOWED = 10 * TOLERANCE
TIMEOUT_S = 600
RESULTS = Path(__file__).with_name("cross.json")
MODELS = (
    *("ppocrv4_det", "ppocrv4_rec", "ppocr_cls", "centerface", "ddddocr_det", "magika_v3_3", "basic_pitch"),
    "minilm_l6_int8",
)


class CrossError(DsccError):
    """Something is missing to execute code of another family, or the execution failed."""


@dataclass(frozen=True)
class Emulated:
    """A family of processors that is emulated here.

    Attributes:
        machine: as `uname -m` says it.
        program: run_artifact, built for it.
    """

    machine: str
    program: Path

    def run(self, artifact: Path, inputs: Sequence[Array], cpu: str, threads: int = 1) -> list[Array]:
        """The outputs of an artifact on an emulated processor.

        Args:
            artifact: for the family.
            inputs: in the order of the model's.
            cpu: the processor as qemu names it, such as `cortex-a72` or `max`.
            threads: of the parallel loops.

        Raises:
            CrossError: the program failed; `killed by SIGILL` says that the processor lacks an instruction.
        """
        with tempfile.TemporaryDirectory(prefix="dscc-") as folder:
            for i, value in enumerate(inputs):
                np.save(Path(folder) / f"in{i}.npy", np.ascontiguousarray(value))
            names = [f"in{i}.npy" for i in range(len(inputs))]
            command = [self.program, artifact.resolve(), str(threads), "out", *names]
            done = emulate(self.machine, command, cpu, Path(folder))
            if done.returncode != 0:
                said = done.stderr.strip().splitlines() or ["it says nothing"]
                reason = "killed by SIGILL" if done.returncode == -4 else f"status {done.returncode}: {said[-1]}"
                raise CrossError(f"{artifact.name} on {cpu}: {reason}")
            paths = sorted(Path(folder).glob("out*.npy"), key=lambda path: int(path.stem[3:]))
            return [np.load(path) for path in paths]


def emulate(machine: str, command: Sequence[Any], cpu: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program for `machine` on qemu's processor `cpu`, in a folder."""
    environment = {**os.environ, "QEMU_LD_PREFIX": f"/usr/{machine}-linux-gnu"}
    line = [f"qemu-{machine}", "-cpu", cpu, *map(str, command)]
    return subprocess.run(
        line, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )


def missing(machine: str) -> list[str]:
    """What is not installed of what it takes to build programs for `machine` and to run them."""
    programs = {f"{machine}-linux-gnu-g++": f"g++-{machine}-linux-gnu", f"qemu-{machine}": "qemu-user", "make": "make"}
    return [package for program, package in programs.items() if not shutil.which(program)]


@cache
def emulated(machine: str = "aarch64") -> Emulated:
    """The family, with the program of examples/cpp built for it, in the cache folder.

    Raises:
        CrossError: qemu or the cross compiler is missing, TVM's wheels cannot be had, or the build fails.
    """
    if absent := missing(machine):
        raise CrossError(f"code for {machine} cannot be executed here; run 'apt-get install {' '.join(absent)}'")
    folder = runtime(machine)
    with _alone(machine):
        done = _build(machine, folder)
    if done.returncode != 0:
        raise CrossError(f"the program for {machine} cannot be built: {done.stderr.strip().splitlines()[0]}")
    return Emulated(machine, folder / "build" / "run_artifact")


def _build(machine: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["make", "-C", str(EXAMPLE), f"BUILD={folder / 'build'}", f"CXX={machine}-linux-gnu-g++"]
    command += [f"FFI={folder / 'tvm_ffi'}", f"TVM={folder / 'tvm'}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@contextlib.contextmanager
def _alone(machine: str) -> Iterator[None]:
    """While this lasts, no other process does the same for the family: tests run side by side."""
    path = models.cache_folder() / f"{machine}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def runtime(machine: str) -> Path:
    """A folder with headers and libraries of TVM's runtime for `machine`, from the wheels of the versions used here."""
    from importlib.metadata import version

    folder = models.cache_folder() / machine / version("apache-tvm")
    with _alone(machine):
        if folder.exists():
            return folder
        aside = folder.with_name(f"{folder.name}.part")
        for package in PACKAGES:
            wheel = models.download(f"{package}=={version(package)}", f"manylinux_2_28_{machine}")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(aside, [name for name in archive.namelist() if name.startswith(NEEDED)])
        return aside.rename(folder)


@dataclass(frozen=True)
class Checked:
    """What came of one model.

    Attributes:
        target: what it was compiled for, with its dimensions symbolic.
        cpu: what executed it: a processor as qemu names it, or the device; empty if it was compiled only.
        shapes: how many shapes of its inputs were run.
        error: the largest difference from onnxruntime, over the largest output.
    """

    model: str
    target: str
    compile_s: float
    cpu: str = ""
    shapes: int = 0
    run_s: float = 0.0
    error: float = 0.0

    def __str__(self) -> str:
        line = f"{self.model}: compiled for {self.target} in {self.compile_s:.1f} s"
        if not self.cpu:
            return line
        shapes = "one shape" if self.shapes == 1 else f"{self.shapes} shapes"
        return f"{line}, {shapes} executed on {self.cpu} in {self.run_s:.1f} s, error {self.error:.1e}"


def check(model: str, target: str, shapes: int = 0) -> Checked:
    """Compile a model of the registry for a target, execute it, and compare with onnxruntime.

    Args:
        target: as for `dscc compile`. For another family of processors qemu's is the one of that name, or the one that
            has everything; code for this machine is loaded into this process.
        shapes: how many of the model's shapes to run; 0 means all, -1 none: the model is only compiled.

    Raises:
        CrossError: an output differs by more than 1e-3 of the largest one.
    """
    path, entry = models.fetch(model), models.lookup(model)
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        if target.startswith("rocm") and shapes >= 0 and not _has_hip():
            stack.enter_context(hip_here.standing_in(_stand_in()))
        return _check(model, target, shapes, path, entry, start)


@cache
def _stand_in() -> hip_here.HostClang:
    folder = models.cache_folder() / "hip"
    folder.mkdir(parents=True, exist_ok=True)
    with _alone("hip"):
        return hip_here.build(folder)


@cache  # asked once: the stand-in, once loaded, is found under the same name
def _has_hip() -> bool:
    try:
        hip.device_name()
    except DsccError:
        return False
    return True


def _check(model: str, target: str, shapes: int, path: Path, entry: models.Model, start: float) -> Checked:
    with tempfile.TemporaryDirectory(prefix="dscc-") as folder:
        file = Path(folder) / f"{model}.dscc"
        artifact = dscc.compile(path, target=target, input_shapes=entry.dims)
        artifact.save(file)
        compiled = Checked(model, artifact.manifest.target, time.perf_counter() - start)
        if shapes < 0:
            return compiled
        cpu, run = _executor(artifact, file)
        session = _reference(models.peer_file(model))
        worst, begin = 0.0, time.perf_counter()
        chosen = entry.shapes[: shapes or None]
        for one in chosen:
            feeds = models.make_inputs(path, entry, one)
            want = session.run(None, feeds)
            got = run([feeds[spec.name] for spec in artifact.manifest.inputs])
            worst = max(worst, max(error(a, b) for a, b in zip(got, want, strict=True)))
    if not worst <= ALLOWED:
        raise CrossError(f"{model} on {cpu}: outputs differ by {worst:.1e} of the largest, allowed is {ALLOWED:.0e}")
    return replace(compiled, cpu=cpu, shapes=len(chosen), run_s=time.perf_counter() - begin, error=worst)


def _executor(artifact: dscc.Artifact, file: Path) -> tuple[str, Callable[[Sequence[Array]], Sequence[Array]]]:
    """What executes an artifact here, and how: inputs in the model's order to outputs."""
    manifest = artifact.manifest
    if manifest.machine == platform.machine():
        session = dscc.load(file)
        names = [spec.name for spec in manifest.inputs]
        device = session.device or manifest.machine
        return device, lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))
    cpu = qemu_cpu(manifest.machine, manifest.target.partition(":")[2])
    return cpu, lambda inputs: emulated(manifest.machine).run(file, inputs, cpu)


def qemu_cpu(machine: str, arch: str) -> str:
    """The processor of qemu that is called `arch`, or the one that has everything that qemu knows."""
    said = subprocess.run([f"qemu-{machine}", "-cpu", "help"], capture_output=True, text=True, check=False).stdout
    return arch if arch in said.split() else "max"


def error(got: Array, want: Array) -> float:
    """The largest difference, over the largest value; infinite for another shape."""
    if got.shape != want.shape:
        return float("inf")
    if not want.size:
        return 0.0
    wide, expected = got.astype(np.float64), want.astype(np.float64)
    return float(np.abs(wide - expected).max() / max(np.abs(expected).max(), 1e-30))


def _reference(path: Path) -> Any:
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="models of the registry (eight)")
    parser.add_argument("--target", action="append", help="may be given several times (arm:generic)")
    parser.add_argument("--shapes", type=int, default=0, help="how many shapes of a model to run: 0 all, -1 none")
    parser.add_argument("--save", action="store_true", help=f"keep the results in {RESULTS.name}")
    options = parser.parse_args(argv)
    found: list[Checked] = []
    failed = 0
    for target in options.target or ["arm:generic"]:
        for name in options.names or MODELS:
            try:
                found.append(check(name, target, options.shapes))
                print(found[-1], flush=True)
            except DsccError as err:
                failed += 1
                print(f"{name}: {target}: {err}", flush=True)
    if options.save:
        save(found)
    return 1 if failed else 0


def save(found: Sequence[Checked]) -> None:
    """Put results into the file, in place of older ones of the same model and target. No times: qemu's mean nothing."""
    kept = {(row["target"], row["model"]): row for row in saved()}
    for each in found:
        row = {"model": each.model, "target": each.target, "cpu": each.cpu, "shapes": each.shapes}
        kept[each.target, each.model] = {**row, "error": float(f"{each.error:.1e}")}
    RESULTS.write_text(json.dumps([row for _, row in sorted(kept.items())], indent=1) + "\n")


def saved() -> list[dict[str, Any]]:
    """The results that are kept: model, target, cpu, shapes, error."""
    return list(json.loads(RESULTS.read_text())) if RESULTS.exists() else []


if __name__ == "__main__":
    sys.exit(main())
