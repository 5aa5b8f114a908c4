"""What device code says of itself, for every kernel of real models: registers, spills, matrix instructions.

    python -m benchmarks.binaries --target cuda:sm_80 --target rocm:gfx942 --precision fp16 ppocr_cls minilm_l6_int8

No device is needed: ptxas reports on NVIDIA's kernels and cuobjdump shows their instructions; AMD's code objects carry
metadata, and every kernel has to be among the symbols of the linked object.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import cross, models
from dscc import emit, targets
from dscc.errors import DsccError
from dscc.options import CompileOptions

# Instructions that products should be made of, and copies to shared memory that go past the registers.
_TELLING = ("HMMA", "HGMMA", "IMMA", "IGMMA", "LDGSTS", "UTMALDG", "v_mfma", "v_wmma")


@dataclass(frozen=True)
class Kernel:
    """One kernel.

    Attributes:
        registers: of a thread.
        spills: bytes for CUDA, vector registers for AMD (scalar ones are kept in lanes of vector registers).
    """

    name: str
    registers: int
    spills: int


@dataclass
class Report:
    """All kernels of a model."""

    kernels: list[Kernel] = field(default_factory=list)
    instructions: dict[str, int] = field(default_factory=dict)

    @property
    def spilling(self) -> list[Kernel]:
        return [kernel for kernel in self.kernels if kernel.spills]

    def count(self, text: str) -> None:
        """Count the instructions that tell something in a listing."""
        for stem in _TELLING:
            if number := len(re.findall(rf"\b{stem}", text)):
                self.instructions[stem] = self.instructions.get(stem, 0) + number

    def __str__(self) -> str:
        most = max((kernel.registers for kernel in self.kernels), default=0)
        told = ", ".join(f"{number} {name}" for name, number in self.instructions.items()) or "no matrix instructions"
        spilling = ", ".join(f"{kernel.name} {kernel.spills}" for kernel in self.spilling) or "none"
        return f"{len(self.kernels)} kernels, at most {most} registers, spills: {spilling}; {told}"


def amd(assembly: str) -> list[Kernel]:
    """The kernels of AMD's code, by the metadata in its listing."""
    found = []
    for of in metadata(assembly):
        found.append(Kernel(of["name"], int(of["vgpr_count"]), int(of["vgpr_spill_count"])))
    return found


def metadata(assembly: str) -> list[dict[str, str]]:
    """What the metadata of AMD's code objects says of each kernel."""
    found = []
    for listing in assembly.split("amdhsa.kernels:")[1:]:
        for part in re.split(r"^  - \.", listing, flags=re.M)[1:]:
            entries = dict(re.findall(r"\.(\w+):\s+(\S+)$", part, re.M))
            if "vgpr_count" in entries:
                found.append(entries)
    return found


def nvidia(log: str) -> list[Kernel]:
    """The kernels of CUDA's code, by what ptxas reported."""
    found = []
    for part in log.split("Compiling entry function '")[1:]:
        stores, loads = map(int, re.findall(r"(\d+) bytes spill (?:stores|loads)", part)[:2])
        registers = re.search(r"Used (\d+) registers", part)
        found.append(Kernel(part.partition("'")[0], int(registers[1]) if registers else 0, stores + loads))
    return found


def listing(cubin: bytes) -> str:
    """The machine instructions of CUDA's code, by NVIDIA's disassembler.

    Raises:
        OSError: it is not installed (`nvidia-cuda-cuobjdump` and `nvidia-cuda-nvdisasm`).
    """
    from dscc.targets.cuda import nvrtc

    tools = nvrtc.find().library.parents[1] / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(cubin)
        environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
        command = [str(tools / "cuobjdump"), "-sass", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def examine(model: str, target: str, precision: str) -> Report:
    """The report on a model of the registry, compiled with its dimensions symbolic.

    Raises:
        DsccError: it does not compile, or a kernel is missing in the linked object.
    """
    from dscc.targets.cuda import nvrtc
    from dscc.targets.rocm import clang

    options = CompileOptions(target=target, precision=precision, input_shapes=models.lookup(model).dims)
    name, _, arch = str(targets.resolve(target)).partition(":")
    report = Report()
    for source in emit.device_sources(models.fetch(model), options):
        if name == "cuda":
            made = nvrtc.find().compile(source, str(targets.resolve(target).tvm_target.attrs["arch"]))
            report.kernels += nvidia(made.log)
            report.count(listing(made.code))
        else:
            assembly, code = clang.find().assembly(source, arch), clang.find().code_object(source, arch)
            kernels = amd(assembly)
            if absent := [kernel.name for kernel in kernels if kernel.name.encode() not in code]:
                raise DsccError(f"the linked object lacks {', '.join(absent)}")
            report.kernels += kernels
            report.count(assembly)
    return report


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="models of the registry (eight)")
    parser.add_argument("--target", action="append", required=True, help="may be given several times")
    parser.add_argument("--precision", default="fp32")
    options = parser.parse_args(argv)
    failed = 0
    for target in options.target:
        for name in options.names or cross.MODELS:
            try:
                report = examine(name, target, options.precision)
                failed += bool(report.spilling)
                print(f"{name}: {target} {options.precision}: {report}", flush=True)
            except DsccError as err:
                failed += 1
                print(f"{name}: {target}: {err}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
