"""Write a function for a CUDA device: launches, shared memory, tensor maps, and calls of device functions in CUDA C++.

What TIR says well (loops, epilogues, indices) is TIR; what it does not (the tensor cores' inner loops) is a function of
dscc/targets/cuda/device that generated code calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tvm import ir, tirx
from tvm.backend.cuda.op import cuda_func_call
from tvm.ir import Expr

from dscc.schedule.code import Index, constant, index
from dscc.schedule.gpu.kernel import Kernel

_SWIZZLE_128B = 3
_L2_256B = 3


DEVICE = Path(__file__).parent / "device"


@cache
def device_source(*names: str) -> str:
    """The text of files of dscc/targets/cuda/device."""
    return "".join((DEVICE / name).read_text(encoding="utf-8") for name in names)


def int32(value: Index) -> Expr:
    """An int32 expression, the type of what device functions count in."""
    if isinstance(value, int):
        return tirx.IntImm("int32", value)
    if isinstance(value, tirx.Cast) and str(value.value.ty.dtype) == "int32":
        return value.value
    return value if str(value.ty.dtype) == "int32" else tirx.Cast("int32", value)


def nonempty(*counts: Index) -> Expr | bool:
    """Whether all counts are above 0: nothing may be launched for none, nor described to the copy engine."""
    symbolic = [index(count) > 0 for count in counts if constant(count) is None]
    if not symbolic:
        return True
    both = symbolic[0]
    for each in symbolic[1:]:
        both = tirx.And(both, each)
    return both


class CudaKernel(Kernel):
    """A function in the making that launches kernels of CUDA's own."""

    def call(self, name: str, *arguments: Expr, source: str) -> None:
        """Call the device function `name`, which `source` defines."""
        self.add(tirx.Evaluate(cuda_func_call(name, *arguments, source_code=source)))

    def value(self, name: str, dtype: str, *arguments: Expr, source: str) -> Expr:
        """What the device function `name` gives, computed here, once."""
        var = tirx.Var("given", dtype)
        self.add(tirx.Bind(var, cuda_func_call(name, *arguments, source_code=source, return_type=dtype)))
        return var

    def tensor_map(
        self,
        name: str,
        buffer: tirx.Var,
        shape: Sequence[Index],
        strides: Sequence[Index],
        box: Sequence[int],
        steps: Sequence[int] | None = None,
    ) -> tirx.Var:
        """How the bulk tensor copy engine sees `buffer`; host code, before the launch.

        Args:
            shape: extents, the contiguous axis first.
            strides: elements from one to the next along every axis but the first; 16 bytes must divide them.
            box: elements that one copy takes along every axis.
            steps: from one element that is taken to the next along every axis; 1 if left out.
        """
        rank = len(shape)
        handle = tirx.Var(name, ir.PointerType(tirx.TensorMapType()))
        self.add(tirx.Bind(handle, tirx.tvm_stack_alloca("tensormap", 1)))
        size = _bytes(str(buffer.dtype))
        values = [index(extent) for extent in shape]
        values += [index(stride) * size for stride in strides]
        steps = steps or [1] * rank
        # the copy engine's box is what it passes over, of which it takes every so manieth element
        values += [tirx.IntImm("int32", extent * step) for extent, step in zip(box, steps, strict=True)]
        values += [tirx.IntImm("int32", step) for step in steps]
        options = {"swizzle": _SWIZZLE_128B, "l2_promotion": _L2_256B}
        encode = tirx.tensormap_encode_tiled(
            handle, buffer.data, *values, descriptor_dtype=str(buffer.dtype), rank=rank, **options
        )
        self.add(tirx.Evaluate(encode))
        return handle

    @contextmanager
    def blocks(self, grid: Sequence[Index], threads: int) -> Iterator[tuple[list[Expr], Expr]]:
        """A kernel of `grid` blocks of `threads` threads; gives the block's coordinates and the thread's number.

        Args:
            grid: blocks along x, y, z.
        """
        with self.launch(grid, threads) as (block, (thread,)):
            self._open.append([])
            yield [int32(at) for at in block], int32(thread)
            body = self._close() or tirx.Evaluate(int32(0))
            # One block has a multiprocessor's registers: without this, ptxas ignores requests to move them about.
            body = tirx.AttrStmt(int32(0), "tirx.launch_bounds_min_blocks_per_sm", int32(1), body)
            self.add(body)

    def block_bytes(self, name: str, size_bytes: int) -> tirx.Var:
        """Dynamic shared memory of the block, as bytes."""
        buffer = tirx.decl_buffer((size_bytes,), "uint8", name, scope="shared.dyn")
        self.add(tirx.AllocBuffer(buffer))
        return buffer

    def registers(self, name: str, size: int, dtype: str = "float32") -> tirx.Var:
        """An array of this thread, in registers as long as every access is at a constant place."""
        buffer = tirx.decl_buffer((size,), dtype, name, scope="local")
        self.add(tirx.AllocBuffer(buffer))
        return buffer

    def spot(self, coordinates: Sequence[Expr]) -> list[Expr]:
        """Compute coordinates here, once. TVM would put the formulas of bound variables back into every use."""
        buffer = self.registers("spot", max(len(coordinates), 1), "int64")
        for i, value in enumerate(coordinates):
            self.add(tirx.BufferStore(buffer, index(value), [i]))
        return [tirx.BufferLoad(buffer, [i]) for i in range(len(coordinates))]

    @contextmanager
    def choose(self, condition: Expr) -> Iterator[_Branches]:
        """A condition with two sides: `with code.choose(c) as side: with side.true: ...; with side.false: ...`."""
        branches = _Branches(self)
        yield branches
        self.add(tirx.IfThenElse(condition, branches.found[0], branches.found[1]))


class _Branches:
    def __init__(self, code: CudaKernel):
        self._code = code
        self.found: list[tirx.Stmt | None] = [None, None]

    @contextmanager
    def side(self, which: int) -> Iterator[None]:
        """The statements of one side, 0 if the condition holds and 1 if not."""
        self._code._open.append([])
        yield
        self.found[which] = self._code._close()


def _bytes(dtype: str) -> int:
    return {"float16": 2, "bfloat16": 2, "float32": 4, "int8": 1, "uint8": 1}[dtype]
