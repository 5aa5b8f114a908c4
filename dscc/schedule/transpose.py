"""Formulas that read along another axis than they write: tiles that are turned around in registers.

    y[a, b] = x[b, a]      16 vectors of x along a, transposed by shuffles of pairs, are 16 vectors of y along b

Where one axis has only a few elements (the colours of an image), as many vectors are interleaved, or taken apart:

    y[a, 3] = x[3, a]      3 vectors of x along a are 3 vectors of y in memory order

Tiles at the end of an axis are moved back over their neighbours. Axes that are shorter than a vector and not that short
are not handled here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tvm_ffi
from tvm import ir, tirx
from tvm.ir import Expr, Var
from tvm.ir import TensorLoad as Load
from tvm.sym import Analyzer

from dscc.schedule.code import Code, Flat, Index, ceildiv, constant, index
from dscc.schedule.collapse import Flattened
from dscc.schedule.squares import transposed
from dscc.schedule.stages import loads, substitute
from dscc.schedule.strides import has_condition_on, mentions, stride

_FEW = 8  # elements of an axis that is interleaved


@dataclass(frozen=True)
class Turned:
    """A formula in which some loads run along axis `across` while the store runs along the last axis."""

    flat: Flattened
    names: tuple[Var, ...]
    value: Expr
    across: int
    crossing: tuple[Load, ...]
    few: int | None = None  # elements of the one axis that has few of them
    interleaved: bool = False  # that one is the last axis, else it is `across`

    @staticmethod
    def of(flat: Flattened, analyzer: Analyzer) -> Turned | None:
        """The formula seen like that, or None."""
        if len(flat.axes) < 2:
            return None
        names = tuple(Var(f"i{n}", "int64") for n in range(len(flat.axes)))
        inner, value = names[-1], flat.value(names)
        if stride(flat.place(names), inner, analyzer) != 1 or has_condition_on(value, inner):
            return None
        crossing = [load for load in loads(value) if stride(load.indices[0], inner, analyzer) not in (0, 1)]
        for across in range(len(names) - 1):
            along = [stride(load.indices[0], names[across], analyzer) for load in crossing]
            if crossing and all(s == 1 for s in along) and not has_condition_on(value, names[across]):
                found = Turned(flat, names, value, across, tuple(crossing))
                return found._with_few(analyzer)
        return None

    def _with_few(self, analyzer: Analyzer) -> Turned:
        """Notes whether one of the two axes has so few elements that they are interleaved."""
        _, across, along = self.extents()
        crossed, last = self.names[self.across], self.names[-1]
        few = constant(along)
        if few is not None and few <= _FEW and len(loads(self.value)) == len(self.crossing):
            # A vector of the result holds elements of both axes: nothing but the loads may depend on where they are.
            apart = not any(mentions(_bare(self.value), var) for var in (crossed, last))
            if apart and stride(self.flat.place(self.names), crossed, analyzer) == few:
                return replace(self, few=few, interleaved=True)
        few = constant(across)
        if few is not None and few <= _FEW:
            if all(stride(load.indices[0], last, analyzer) == few for load in self.crossing):
                return replace(self, few=few)
        return self

    def extents(self) -> tuple[list[Index], Index, Index]:
        """Of the other axes, of the axis across, and of the last one."""
        axes = [axis.extent for axis in self.flat.axes]
        others = [extent for n, extent in enumerate(axes[:-1]) if n != self.across]
        return others, axes[self.across], axes[-1]

    def fits(self, lanes: int) -> Expr | bool:
        """Whether the axes of a tile are long enough."""
        _, across, along = self.extents()
        needed = [across, along] if self.few is None else [across] if self.interleaved else [along]
        known = [constant(extent) for extent in needed]
        if any(extent is not None and extent < lanes for extent in known):
            return False
        # TVM 0.27 divides by zero where it simplifies what a size of 1 would leave of a condition that only 0 fails.
        conditions = [
            index(e) >= lanes for e, k in zip(needed, known, strict=True) if k is None and not _always(e, lanes)
        ]
        return True if not conditions else tirx.all(*conditions)

    def strips(self, lanes: int) -> Index:
        """Number of strips to write."""
        _, across, _ = self.extents()
        return 1 if self.few is not None and not self.interleaved else ceildiv(across, lanes)

    def write(self, code: Code, others: Sequence[Expr], step: Expr, lanes: int) -> None:
        """All tiles of one strip: `lanes` elements of the axis across, the whole of the last axis."""
        _, across, along = self.extents()
        if self.interleaved:
            self._interleave(code, others, step, lanes)
            return
        height = self.few or lanes
        first = index(0) if self.few else code.bind("a", tirx.min(step * lanes, index(across) - lanes))
        with code.loop(ceildiv(along, lanes), "tile") as tile:
            start = code.bind("b", tirx.min(tile * lanes, index(along) - lanes))
            at = self._at(others, first, start)
            turn = self._take_apart if self.few else self._turn
            tiles = [turn(code, load, at, lanes) for load in self.crossing]
            with code.loop(height, "i") as i, code.loop(lanes, "l", "vectorized") as lane:
                here = self._at(others, first + i, start + lane)
                value = self._with(lambda n: tiles[n].load(i * lanes + lane))
                value = substitute(value, dict(zip(self.names, here, strict=True)))
                code.add(tirx.BufferStore(self.flat.target.buffer, value, [self.flat.place(here)]))

    def _at(self, others: Sequence[Expr], across: Expr, along: Expr) -> list[Expr]:
        at = [*others, along]
        at.insert(self.across, across)
        return at

    def _interleave(self, code: Code, others: Sequence[Expr], step: Expr, lanes: int) -> None:
        """A last axis of a few elements: vectors along the other one become as many vectors of the result in a row."""
        _, across, _ = self.extents()
        few = self.few or 1
        first = code.bind("a", tirx.min(step * lanes, index(across) - lanes))
        tiles = []
        for load in self.crossing:
            rows = []
            for b in range(few):
                at = dict(zip(self.names, self._at(others, first, index(b)), strict=True))
                rows.append(code.bind("r", Flat(load.source).load(substitute(load.indices[0], at), lanes)))
            tile = code.stack("tile", few * lanes, str(load.source.dtype))
            for v in range(few):
                order = [k % few * lanes + k // few for k in range(v * lanes, (v + 1) * lanes)]
                tile.store(code, v * lanes, tirx.Shuffle(rows, order) if few > 1 else rows[0])
            tiles.append(tile)
        start = code.bind("to", self.flat.place(self._at(others, first, index(0))))
        with code.loop(few, "v", "unrolled") as v, code.loop(lanes, "l", "vectorized") as lane:
            value = self._with(lambda n: tiles[n].load(v * lanes + lane))
            value = substitute(value, dict(zip(self.names, self._at(others, first, index(0)), strict=True)))
            code.add(tirx.BufferStore(self.flat.target.buffer, value, [start + v * lanes + lane]))

    def _take_apart(self, code: Code, load: Load, at: Sequence[Expr], lanes: int) -> Flat:
        """[few][lanes along the last axis] of what `load` reads from `at` on, where the few lie side by side."""
        few = self.few or 1
        start = code.bind("from", substitute(load.indices[0], dict(zip(self.names, at, strict=True))))
        rows = [code.bind("r", Flat(load.source).load(start + v * lanes, lanes)) for v in range(few)]
        tile = code.stack("tile", few * lanes, str(load.source.dtype))
        for i in range(few):
            order = [k * few + i for k in range(lanes)]
            tile.store(code, i * lanes, tirx.Shuffle(rows, order) if few > 1 else rows[0])
        return tile

    def _with(self, turned: Callable[[int], Expr]) -> Expr:
        """The value with the n-th crossing load replaced."""

        def swap(load: Load, mutator: Any) -> Expr:
            same = (n for n, crossing in enumerate(self.crossing) if tvm_ffi.structural_equal(load, crossing))
            n = next(same, None)
            return mutator.default_mutate(load) if n is None else turned(n)

        return tvm_ffi.structural_mutate(self.value, (Load, swap))

    def _turn(self, code: Code, load: Load, at: Sequence[Expr], lanes: int) -> Flat:
        """[lanes along the axis across][lanes along the last axis] of what `load` reads from `at` on."""
        rows = []
        for b in range(lanes):
            place = substitute(load.indices[0], dict(zip(self.names, [*at[:-1], at[-1] + b], strict=True)))
            rows.append(code.bind("r", Flat(load.source).load(place, lanes)))
        tile = code.stack("tile", lanes * lanes, str(load.source.dtype))
        for i, row in enumerate(transposed(code, rows)):
            tile.store(code, i * lanes, row)
        return tile


def _always(extent: Index, least: int) -> bool:
    """Whether an extent is at least this where there is any work: where no size is 0."""
    sizes: set[Var] = set()
    tvm_ffi.structural_walk(index(extent), (Var, sizes.add))
    analyzer = Analyzer()
    for size in sizes:
        analyzer.bind(size, ir.Range.from_min_extent(tirx.const(1, size.ty.dtype), tirx.const(1 << 30, size.ty.dtype)))
    return bool(analyzer.can_prove(index(extent) >= least))


def _bare(value: Expr) -> Expr:
    """The value without its loads, to see what else it uses."""
    return tvm_ffi.structural_map(value, (Load, lambda load: tirx.const(0, str(load.ty.dtype))))
