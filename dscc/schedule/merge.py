"""Several neighbouring axes of a result as one: the rows of a matrix.

    out[b, s, n] = acc + bias[n] + residual[b, s, n]   ->   out_rows[r, n] = acc + bias[n] + residual_rows[r, n]

Buffers that have the axes side by side are seen through a view of lower rank; where they occur otherwise they are
computed from the row by division.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, Var
from tvm.ir import TensorLoad as Load

from dscc.schedule.code import Code
from dscc.schedule.epilogue import Fused, Step
from dscc.schedule.stages import is_one, is_zero, product, substitute, unravel


class Merge:
    """The axes `run` of an anchor, seen as the one axis `row`.

    Attributes:
        run: neighbouring spatial variables of the anchor, in order.
        row: the variable that takes their place.
        extent: its extent.
    """

    def __init__(self, run: Sequence[Var], extents: Sequence[Expr], code: Code):
        self.run = tuple(run)
        self._extents = tuple(extents)
        self._code = code
        self._views: dict[tuple[Var, int], Var] = {}
        self.row = self.run[0] if len(self.run) == 1 else Var("row", "int64")
        self.extent = product(self._extents, range(len(self._extents)))

    def expr(self, expr: Expr) -> Expr:
        """`expr` in terms of `row`."""
        if len(self.run) == 1:
            return expr
        return substitute(tvm_ffi.structural_map(expr, (Load, self._load)), self._divided())

    def fused(self, fused: Fused) -> Fused:
        """`fused` with the merged axis among its coordinates."""
        if len(self.run) == 1:
            return fused
        spatial = [var for var in fused.anchor.spatial if var not in self.run[1:]]
        spatial[spatial.index(self.run[0])] = self.row
        steps = tuple(self._step(step) for step in fused.steps)
        anchor = dataclasses.replace(fused.anchor, spatial=tuple(spatial))
        return dataclasses.replace(fused, anchor=anchor, steps=steps)

    def _step(self, step: Step) -> Step:
        place = self._place(step.buffer, step.indices) if step.is_output else None
        if place is None:
            indices = tuple(substitute(index, self._divided()) for index in step.indices)
            return dataclasses.replace(step, value=self.expr(step.value), indices=indices)
        view, merged = self._merged(step.buffer, step.indices, place)
        return dataclasses.replace(step, value=self.expr(step.value), buffer=view, indices=tuple(merged))

    def _load(self, load: Load) -> Expr:
        place = self._place(load.source, load.indices)
        if place is None:
            return load
        view, merged = self._merged(load.source, load.indices, place)
        return tirx.BufferLoad(view, merged)

    def _place(self, buffer: Var, indices: Sequence[Expr]) -> int | None:
        """Where in `indices` the run stands, with the extents that it has in the anchor."""
        count = len(self.run)
        for start in range(len(indices) - count + 1):
            there = indices[start : start + count]
            axes = zip(there, self.run, self._extents, strict=True)
            if all(index.same_as(var) or (is_zero(index) and is_one(extent)) for index, var, extent in axes):
                inner = zip(buffer.shape[start + 1 : start + count], self._extents[1:], strict=True)
                if all(tvm_ffi.structural_equal(a, b) for a, b in inner):
                    return start
        return None

    def _merged(self, buffer: Var, indices: Sequence[Expr], start: int) -> tuple[Var, list[Expr]]:
        stop = start + len(self.run)
        if (buffer, start) not in self._views:
            extent = product(buffer.shape, range(start, stop))
            shape = [*buffer.shape[:start], extent, *buffer.shape[stop:]]
            view = tirx.decl_buffer(shape, buffer.dtype, f"{buffer.name}_rows", data=buffer.data)
            self._code.add(tirx.DeclBuffer(view, data=buffer.data))
            self._views[buffer, start] = view
        return self._views[buffer, start], [*indices[:start], self.row, *indices[stop:]]

    def _divided(self) -> dict[Var, Expr]:
        return dict(zip(self.run, unravel(self.row, self._extents), strict=True))
