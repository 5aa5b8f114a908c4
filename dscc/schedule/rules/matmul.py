"""Matrix products: rows that are broadcast from memory, columns in packed panels.

    C[.., m, n] = epilogue(sum_k A[.., m, k] * W[k, n])

The weight is packed as [panel][k][column] at compile time if it is constant, else panel by panel at run time. One that
is converted on the way, as from halves, is packed as it is stored: it is expanded panel by panel, or, where rows are
few, in registers. Tiles of rows overlap where the number of rows is no multiple of the tile, so that no predicate is
needed; fewer rows than one tile have code of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.ir import TensorLoad as Load
from tvm.sym import Analyzer

from dscc.schedule.base import Packing, Rule, Scheduled
from dscc.schedule.code import Code, constant, index
from dscc.schedule.decisions import Decisions
from dscc.schedule.epilogue import Fused
from dscc.schedule.machine import Machine
from dscc.schedule.math import vector_math
from dscc.schedule.merge import Merge
from dscc.schedule.microkernel import Operands, has_long_functions
from dscc.schedule.product import Product, write_product
from dscc.schedule.stages import is_one, product, product_of, substitute, unravel, variables
from dscc.schedule.tiling import Columns, PanelPacking, choose

_STEPS, _CHAINS = 4, 2  # of rows that are expanded in registers: the sums of one step would wait for one another


@dataclass(frozen=True)
class Roles:
    """The axes of a product by what depends on them.

    Attributes:
        left, right: the factors, in terms of parameters.
        batch: axes of both factors.
        rows: axes of the left factor only, neighbours in the result.
        column: the axis of the right factor only: the last of the result.
        depth: the axis that is summed over.
    """

    left: Expr
    right: Expr
    batch: tuple[Var, ...]
    rows: tuple[Var, ...]
    column: Var
    depth: Var


def roles(fused: Fused, dtype: str = "float32", open_sizes: bool = False) -> Roles | None:
    """The roles of the anchor's axes, or None if it is no sum of products of two factors.

    Args:
        dtype: of the sum.
        open_sizes: depth and columns may be symbolic, not only the rows.
    """
    anchor = fused.anchor
    factors = product_of(anchor, dtype)
    if factors is None or not anchor.reduce or not anchor.spatial:
        return None
    # A convolution with a kernel of one element sums over two axes of extent 1 as well.
    unit = {var: tirx.const(0, "int64") for var in anchor.reduce if is_one(anchor.extents[var])}
    depths = [var for var in anchor.reduce if var not in unit] or [anchor.reduce[-1]]
    if len(depths) != 1 or not (open_sizes or constant(anchor.extents[depths[0]]) is not None):
        return None
    depth = depths[0]
    unit.pop(depth, None)
    simplify = Analyzer().simplify
    factors = (
        simplify(substitute(fused.inline(factors[0]), unit)),
        simplify(substitute(fused.inline(factors[1]), unit)),
    )
    used = [variables(factor) for factor in factors]
    column = anchor.spatial[-1]
    if column in used[0]:
        factors, used = (factors[1], factors[0]), [used[1], used[0]]
    if column in used[0] or column not in used[1] or any(depth not in some for some in used):
        return None
    if not open_sizes and constant(anchor.extents[column]) is None:
        return None
    batch = tuple(var for var in anchor.spatial[:-1] if var in used[1])
    rows = tuple(var for var in anchor.spatial[:-1] if var not in used[1])
    if anchor.spatial != (*batch, *rows, column) or not rows:
        return None
    return Roles(factors[0], factors[1], batch, rows, column, depth)


class Matmul(Rule):
    """Products of matrices, with packed weights or of two activations; see the module."""

    name = "matmul"

    def apply(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: Machine, decisions: Decisions
    ) -> Scheduled | None:
        fused = Fused.of(func)
        found = None if fused is None else roles(fused)
        if fused is None or found is None:
            return None
        anchor = fused.anchor
        extents = anchor.extents
        depth, count = int(extents[found.depth]), int(extents[found.column])
        code = Code()
        merge = Merge(found.rows, [extents[var] for var in found.rows], code)
        rows = constant(merge.extent)
        columns = Columns(count, choose(decisions, machine, count, rows, 4 * depth, depth))
        left, right = merge.expr(found.left), found.right
        params = list(func.params)
        packings: dict[int, Packing] = {}
        panels = None
        stored = right.value if isinstance(right, tirx.Cast) else right
        plain = isinstance(stored, Load) and stored.source in params and not found.batch
        which = params.index(stored.source) if plain else -1
        if which in constants:
            axes = packed_axes(stored, found.depth, found.column)
            if axes is not None:
                packings[which] = PanelPacking(columns.alone, axes)
                packed_shape = [index(extent) for extent in (columns.panels, depth, columns.tile.width)]
                panels = tirx.decl_buffer(packed_shape, str(stored.source.dtype), stored.source.name)
                params[which] = panels
        converted = panels is not None and isinstance(right, tirx.Cast)
        view = merge.fused(fused)

        def write(batch: Sequence[Expr]) -> None:
            at = dict(zip(found.batch, batch, strict=True))

            def fill(k: Expr, column: Expr, panel: Expr, place: Expr) -> Expr:
                if panels is None:
                    return substitute(right, {**at, found.depth: k, found.column: column})
                return tirx.Cast("float32", tirx.BufferLoad(panels, [panel, k, place]))

            def left_of(row: Expr, k: Expr) -> Expr:
                return substitute(left, {**at, merge.row: row, found.depth: k})

            def in_registers(row: Expr, panel: Expr) -> Operands:
                return Operands(
                    [("k", depth)],
                    lambda i, ks: left_of(row + i, ks[0]),
                    lambda ks, column: fill(ks[0], column, panel, column),
                    unroll=_STEPS,
                    chains=_CHAINS if depth % _STEPS == 0 and depth > _STEPS else 1,
                )

            made = Product(
                rows=merge.extent,
                depth=depth,
                columns=columns,
                left=left_of,
                panels=None if converted else panels,
                fill=fill if converted or panels is None else None,
                store=lambda row, column, value: view.store([*batch, row, column], value),
                rolled=has_long_functions(fused),
                parallel=not found.batch,
            )
            few = replace(made, panels=panels, fill=None, terms=in_registers)
            write_product(code, made, machine, decisions, (lambda: few) if converted else None)

        if found.batch:
            shape = [extents[var] for var in found.batch]
            with code.loop(product(shape, range(len(shape))), "batch", "parallel") as number:
                write(unravel(number, shape))
        else:
            write([])
        scheduled = tirx.PrimFunc(params, code.stmt(), func.ret_type, func.attrs)
        return Scheduled(vector_math(scheduled), packings)


def packed_axes(load: Load, depth: Var, column: Var) -> tuple[int, ...] | None:
    """The order of the weight's axes that puts `depth` and `column` last, or None if it is read otherwise."""
    found: dict[Var, int] = {}
    rest: list[int] = []
    for axis, at in enumerate(load.indices):
        if isinstance(at, Var) and at not in found:
            found[at] = axis
        elif is_one(load.source.shape[axis]):
            rest.append(axis)
        else:
            return None
    if set(found) != {depth, column}:
        return None
    return (*rest, found[depth], found[column])
