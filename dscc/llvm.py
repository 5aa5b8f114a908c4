"""LLVM's part of the code generation: without its loop vectorizer.

Rules write vectors. The loop vectorizer of LLVM 22 (TVM 0.27) adds nothing that shows in the models of benchmarks/, and
takes remainders for what they are of, where a vector has more lanes: `y[i, j] = x[i % 8, j % 8]` over 16 rows of 24
columns read the rows behind the eighth; so did `(i + 15) % 16` with 16 lanes.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import tvm
import tvm_ffi

_HOOK = "tvm.codegen.llvm.target_x86"  # 32 bits: TVM has no code generator of its own for it, nor have we use for one
_lock = threading.Lock()


def build(mod: tvm.IRModule, target: Any, passes: str) -> tvm.runtime.Module:
    """Machine code of the TIR functions of `mod`; several threads may call this at once.

    Args:
        target: TVM's.
        passes: the TIR pipeline's name.
    """
    with _lock:
        _turn_off_loop_vectorizer()
    return tvm.tirx.build(mod, target, passes)


@cache
def _turn_off_loop_vectorizer() -> None:
    """For all code that this process generates from now on.

    `cl-opt` of a TVM target is not for threads: options are variables of the process, which the end of one code
    generation puts back while others are at work (a Tile was wrong in 2 of 400 builds by 4 threads). Nothing else in
    TVM 0.27 sets them (src/target/llvm/llvm_instance.cc), but a target whose options differ from those of a code
    generation around it is refused *after* they were set, and then nobody puts them back. So we ask for one inside of
    another: where TVM looks for the code generator of a processor.
    """
    refused: list[Exception] = []

    def inside() -> None:
        try:
            _enabled({"mtriple": "x86_64-unknown-linux-gnu", "cl-opt": ["-vectorize-loops:bool=0"]})
        except tvm.error.InternalError as error:
            refused.append(error)
        raise RuntimeError("no code is wanted")

    # What is around it needs an option that it changes and puts back; without the vectorizer this one has no meaning.
    around = {"mtriple": "i686-unknown-linux-gnu", "cl-opt": ["-vectorizer-min-trip-count:uint=17"]}
    tvm_ffi.register_global_func(_HOOK, inside, override=True)
    try:
        tvm_ffi.get_global_func("target.build.llvm")(tvm.IRModule(), tvm.target.Target({"kind": "llvm", **around}))
    except RuntimeError as error:
        if not refused:
            raise RuntimeError(
                "TVM treats LLVM's options otherwise: the loop vectorizer could not be turned off"
            ) from error
    finally:
        tvm_ffi.registry.remove_global_func(_HOOK)


def _enabled(spec: dict[str, Any]) -> bool:
    """Whether LLVM has the processor of this target, whose options are set to find out."""
    target = tvm.target.Target({"kind": "llvm", **spec})
    return bool(tvm_ffi.get_global_func("codegen.llvm_target_enabled")(str(target)))
