"""Kernels of a device as finished code in the library, beside the host code that launches them.

TVM lowers a function that binds threads to two: a launcher for the host, and a kernel, for which a code generator
writes source. The source is compiled here and now (`DeviceTarget.finish`), and the result takes its place in what TVM
packs into the library: an artifact has no code that somebody's compiler has to finish.
"""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tvm
from tvm.tirx import compilation_pipeline
from tvm.tirx.build import codegen_build, split_host_device_mods

from dscc import kernel_pipeline
from dscc.targets.device import Binary, DeviceTarget

_NUMBER = struct.Struct("<Q")


def compile_kernels(mod: tvm.IRModule, target: DeviceTarget, passes: str) -> tvm.runtime.Module:
    """The launchers of the kernels of `mod` as a module of the host, which imports the kernels as source.

    Args:
        passes: TVM's pipeline for what has blocks, ours for what has none.
    """
    mod = tvm.IRModule({gvar: target.prepare(func) for gvar, func in mod.functions.items()})
    mod = tvm.tirx.transform.BindTarget(target.tvm_target)(mod)
    lower, finish_host, finish_device = (
        kernel_pipeline.for_devices(target.machine.bfloat16)
        if passes == kernel_pipeline.NAME
        else compilation_pipeline.get_tir_pipeline(passes)
    )
    host, devices = split_host_device_mods(lower(mod))
    # Addresses of bfloat16, of which kernels that compute in it leave some: TVM 0.27 crashes over them for x86.
    host = tvm.tirx.transform.BF16StorageLegalize()(host)
    launchers = codegen_build(finish_host()(host), target.host.tvm_target)
    for device, lowered in devices.items():
        kernels = tvm.IRModule({gvar: target.spelled(kernel) for gvar, kernel in lowered.functions.items()})
        launchers.import_module(codegen_build(finish_device()(kernels), device))
    return launchers


def sources(launchers: tvm.runtime.Module) -> list[str]:
    """The source of the kernels that a module of launchers imports."""
    return [str(module.inspect_source()) for module in launchers.imports]


def pack(executable: tvm.runtime.Module, target: DeviceTarget, path: Path, jobs: int) -> list[Binary]:
    """Write the object file that the loader finds a module's imports and the finished device code in; gives that."""
    packed = tvm.get_global_func("runtime.ModulePackImportsToTensor")(executable).numpy().tobytes()
    tree, entries = _unpacked(packed)
    with ThreadPoolExecutor(jobs) as pool:
        made = list(pool.map(lambda entry: _finished(entry[0], entry[1], target), entries))
    body = tree + b"".join(
        _text(kind.encode()) + (_text(content) if content is not None else b"") for kind, content, _ in made
    )
    _write_object(_NUMBER.pack(len(body)) + body, target, path)
    return [binary for _, _, binary in made if binary is not None]


def _finished(kind: str, content: bytes | None, target: DeviceTarget) -> tuple[str, bytes | None, Binary | None]:
    if kind != target.tvm_device["kind"] or content is None:
        return kind, content, None
    signatures, source = _opened(content)
    binary = target.finish(source.decode())
    return target.module, _text(binary.format.encode()) + signatures + _text(binary.code), binary


# What TVM's modules of device code are written as: format, signatures, code. A signature: name, name again, types of
# the arguments (4 bytes each), launch parameters, and a tag for each argument (4 bytes each). tvm-ffi 0.1.14.


def _opened(content: bytes) -> tuple[bytes, bytes]:
    """The signatures as they are, and the code."""
    reader = _Reader(content)
    reader.text()
    begin = reader.at
    for _ in range(reader.number()):
        reader.text()
        reader.text()
        reader.skip(4 * reader.number())
        for _ in range(reader.number()):
            reader.text()
        reader.skip(4 * reader.number())
    return content[begin : reader.at], reader.text()


def _unpacked(packed: bytes) -> tuple[bytes, list[tuple[str, bytes | None]]]:
    """The tree of imports, and the kind and the content of every module; the library itself, `_lib`, has none."""
    reader = _Reader(packed)
    end = reader.number() + _NUMBER.size
    begin = reader.at
    reader.skip(_NUMBER.size * reader.number())
    reader.skip(_NUMBER.size * reader.number())
    tree = packed[begin : reader.at]
    entries: list[tuple[str, bytes | None]] = []
    while reader.at < end:
        kind = reader.text().decode()
        entries.append((kind, None if kind == "_lib" else reader.text()))
    return tree, entries


class _Reader:
    def __init__(self, data: bytes):
        self._data, self.at = data, 0

    def number(self) -> int:
        (value,) = _NUMBER.unpack_from(self._data, self.at)
        self.at += _NUMBER.size
        return int(value)

    def text(self) -> bytes:
        size = self.number()
        self.at += size
        return self._data[self.at - size : self.at]

    def skip(self, size: int) -> None:
        self.at += size


def _text(content: bytes) -> bytes:
    return _NUMBER.pack(len(content)) + content


def _write_object(content: bytes, target: DeviceTarget, path: Path) -> None:
    """An object file with the one symbol that tvm-ffi looks for in a library."""
    text = "".join(chr(b) if 32 <= b < 127 and b not in (34, 92) else f"\\{b:02X}" for b in content)
    name = str(tvm.get_global_func("runtime.ModuleImportsBlobName")())
    triple = str(target.loader_target.attrs["mtriple"])
    listing = path.with_suffix(".ll")
    listing.write_text(
        f'target triple = "{triple}"\n@{name} = dllexport constant [{len(content)} x i8] c"{text}", align 64\n'
    )
    tvm.get_global_func("ffi.Module.load_from_file.ll")(str(listing), "ll").write_to_file(str(path))
