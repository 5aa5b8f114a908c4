"""Write device kernels statement by statement, as dscc.schedule.code does for CPUs.

    code = Kernel()
    with code.launch(blocks, 256) as (block, thread):
        tile = code.shared("tile", 256)
        tile.store(code, thread, x.load(block * 256 + thread))
        code.barrier()
        ...

A function may launch several kernels, one after another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import tvm
from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.code import Code, Flat, Index, ceildiv, constant, index


class Kernel(Code):
    """Statements in the making, some of them launches of kernels."""

    @contextmanager
    def launch(
        self, blocks: Index | Sequence[Index], threads: int | Sequence[int]
    ) -> Iterator[tuple[list[Expr], list[Expr]]]:
        """The body is run by `blocks` times `threads` threads, up to three axes each: x first, the fastest one.

        Yields the indices of the block and of the thread, in int64.
        """
        extents = [blocks] if isinstance(blocks, int | Expr) else list(blocks)
        sizes = [threads] if isinstance(threads, int) else list(threads)
        with ExitStack() as stack:
            block = [stack.enter_context(self._axis(f"blockIdx.{a}", n)) for a, n in zip("xyz", extents, strict=False)]
            thread = [stack.enter_context(self._axis(f"threadIdx.{a}", n)) for a, n in zip("xyz", sizes, strict=False)]
            yield block, thread

    @contextmanager
    def each(self, count: Index, threads: int) -> Iterator[Expr]:
        """A kernel whose body is run once for every index below `count`, by blocks of `threads` threads."""
        with self.launch(ceildiv(count, threads), threads) as ((block,), (thread,)):
            known = constant(count)
            i = self.bind("i", block * threads + thread)
            with self.when(True if known is not None and known % threads == 0 else i < index(count)):
                yield i

    @contextmanager
    def nest(self, extents: Sequence[Index], name: str) -> Iterator[list[Expr]]:
        """Loops of one thread, one in another."""
        with ExitStack() as stack:
            yield [stack.enter_context(self.loop(extent, f"{name}{n}")) for n, extent in enumerate(extents)]

    def shared(self, name: str, size: int, dtype: str = "float32") -> Flat:
        """Memory that the threads of a block share."""
        return self._scoped(name, size, dtype, "shared")

    def local(self, name: str, size: int, dtype: str = "float32") -> Flat:
        """Memory of one thread: registers, if every access to it is at an offset that is constant once unrolled."""
        return self._scoped(name, size, dtype, "local")

    def stack(self, name: str, size: int, dtype: str = "float32") -> Flat:
        """As `local`: what is on the stack of a CPU's thread is a device thread's own."""
        return self.local(name, size, dtype)

    def barrier(self) -> None:
        """All threads of the block wait here for each other, and see what the others have written to shared memory."""
        self.add(tirx.Evaluate(tirx.op.tvm_storage_sync("shared")))

    def _scoped(self, name: str, size: int, dtype: str, scope: str) -> Flat:
        buffer = tirx.decl_buffer((index(size),), dtype, name, scope=scope)
        self.add(tirx.AllocBuffer(buffer))
        return Flat(buffer)

    @contextmanager
    def _axis(self, tag: str, extent: Index) -> Iterator[Expr]:
        # 32 bits, which is what devices count threads in; the arithmetic that follows is in 64.
        extent = (
            tirx.Cast("int32", index(extent)) if constant(extent) is None else tirx.IntImm("int32", constant(extent))
        )
        var = tirx.Var(tag.replace("Idx.", "_"), "int32")
        self._open.append([])
        yield tirx.Cast("int64", var)
        body = self._close() or tirx.Evaluate(tirx.IntImm("int32", 0))
        axis = tirx.IterVar(tvm.ir.Range(tirx.IntImm("int32", 0), extent), var, tirx.IterVar.ThreadIndex, tag)
        self.add(tirx.AttrStmt(axis, "thread_extent", extent, body))
