"""The epilogue of a product on the tensor cores: from sums in registers to the result in memory.

Thread t of a warp holds rows t / 4 and that + 8 of every 16, columns 2 (t % 4) and the next of every 8. A result in
halves or bytes with contiguous columns goes through shared memory, so that whole runs of a row are written at once;
anything else is stored as it is held, two columns at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, Var

from dscc.schedule.code import constant, index
from dscc.schedule.stages import ravel
from dscc.targets.cuda.kernel import CudaKernel, device_source, int32

_SPREAD = ("float16", "bfloat16", "int8", "uint8")
Store = Callable[[Sequence[Expr], Expr, Expr], tirx.Stmt]  # coordinates of the row, column, value


@dataclass(frozen=True)
class Held:
    """16 rows of a warp.

    Attributes:
        sums: the array that holds them.
        places: where in it the first of two columns is, by group of 8 columns and by half of the rows.
        rows: whether each half's row exists, and its coordinates but for the column.
        edge: the column of this thread in the first group.
        staging: address of shared memory of this warp, for 16 rows of a run of `groups_at_once` groups.
    """

    sums: Var
    places: Sequence[Sequence[int]]
    rows: Sequence[tuple[Expr, list[Expr]]]
    edge: Expr
    staging: Expr


def groups_at_once(groups: int) -> int:
    """Groups of 8 columns that go through shared memory together."""
    return 8 if groups % 8 == 0 else 4


def staging_bytes(groups: int) -> int:
    """Shared memory that a warp needs for it."""
    return 16 * (groups_at_once(groups) * 16 + 16)


def write_store(code: CudaKernel, held: Held, store: Store, columns: int, whole: bool) -> None:
    """Write the epilogue of `held`.

    Args:
        store: the statement that stores one value.
        columns: of the result.
        whole: whether all columns that are held are of the result.
    """
    out = _run_of(store, held.rows[0][1], columns, str(held.sums.dtype))
    if out is None or len(held.places) % 4:
        _direct(code, held, store, columns, whole)
    else:
        _spread(code, held, store, out, columns, whole)


def _run_of(store: Store, coordinates: Sequence[Expr], columns: int, dtype: str) -> Var | None:
    """The buffer that is stored to, if columns are its contiguous axis, aligned, and of halves or bytes."""
    column = Var("column", "int64")
    probe = store([Var(f"at{i}", "int64") for i in range(len(coordinates))], column, tirx.const(0, dtype))
    if not isinstance(probe, tirx.BufferStore) or str(probe.buffer.dtype) not in _SPREAD:
        return None
    last = constant(probe.buffer.shape[-1])
    if columns % 8 or last != columns or not probe.indices[-1].same_as(column):
        return None
    return None if any(_mentions(at, column) for at in probe.indices[:-1]) else probe.buffer


def _mentions(expr: Expr, var: Var) -> bool:
    found: list[Var] = []
    tvm_ffi.structural_walk(expr, (Var, lambda each: found.append(each) if each.same_as(var) else None))
    return bool(found)


def _direct(code: CudaKernel, held: Held, store: Store, columns: int, whole: bool) -> None:
    for half, (exists, coordinates) in enumerate(held.rows):
        with code.when(exists):
            at = code.spot(coordinates)
            for group, places in enumerate(held.places):
                column = held.edge + group * 8
                if columns % 2:
                    for c in range(2):
                        with code.when(column + c < columns):
                            code.add(store(at, column + c, tirx.BufferLoad(held.sums, [places[half] + c])))
                    continue
                with code.when(True if whole else column < columns):
                    with code.loop(2, "c", "vectorized") as c:
                        value = tirx.BufferLoad(held.sums, [places[half] + c])
                        code.add(store(at, column + c, value))


def _spread(code: CudaKernel, held: Held, store: Store, out: Var, columns: int, whole: bool) -> None:
    count = groups_at_once(len(held.places))
    start = code.registers("start", 2, "int64")
    ats = []
    for half, (exists, coordinates) in enumerate(held.rows):
        at = code.spot(coordinates)
        ats.append(at)
        where = store(at, index(0), tirx.const(0, str(held.sums.dtype)))
        place = ravel([index(i) for i in where.indices], [index(n) for n in out.shape])
        code.add(tirx.BufferStore(start, tirx.Select(exists, place, index(-1)), [half]))
    packed = code.registers("packed", 4 * count, str(out.dtype))
    flat = code.view(out)
    inside = [tirx.BufferLoad(start, [half]) >= 0 for half in range(2)]
    for first in range(0, len(held.places), count):
        for half in range(2):
            with code.when(inside[half]):
                for group in range(count):
                    column = held.edge + (first + group) * 8
                    with code.when(True if whole else column < columns):
                        with code.loop(2, "c", "vectorized") as c:
                            value = tirx.BufferLoad(held.sums, [held.places[first + group][half] + c])
                            made = store(ats[half], column + c, value)
                            code.add(tirx.BufferStore(packed, made.value, [(group * 2 + half) * 2 + c]))
        lane_column = tirx.truncmod(held.edge, index(8))
        begin = held.edge - lane_column + first * 8
        arguments = [held.staging, *(tirx.address_of(tirx.BufferLoad(b, [0])) for b in (packed, start))]
        arguments += [tirx.address_of(flat.load(begin)), int32(index(columns) - begin)]
        code.call(f"dscc::spread<{count}>", *arguments, source=device_source("memory.cuh", "spread.cuh"))
