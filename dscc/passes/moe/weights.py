"""What constants become on their way to where they are used: cast, scaled, moved, cut, or expanded by a function.

R.multiply(R.astype(codes, "float32"), scale)    ->  codes, scale
R.split(R.call_tir(dequantize, (codes, scale)))  ->  codes[..], scale[..]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.ir import Expr, Var
from tvm.ir import TensorLoad as Load

from dscc.passes.graph import Graph, Node
from dscc.passes.moe import kernels, scalars
from dscc.passes.moe.stored import Spread, Stored
from dscc.passes.values import attr, constant, dims, dtype, numbers
from dscc.schedule.stages import is_zero, loads

Array = np.ndarray


class Weights:
    """Reads weights of one function, each once.

    Args:
        products: a product of rows with a matrix stands for the matrix that is in it.
    """

    def __init__(self, graph: Graph, mod: tvm.IRModule, products: bool = False):
        self._graph, self._mod, self._products = graph, mod, products
        self._found: dict[relax.Expr, Stored | None] = {}

    def read(self, expr: relax.Expr) -> Stored | None:
        """How a weight is kept, or None if something is done to it that is not known here."""
        if not isinstance(expr, relax.Var):
            content = constant(expr)
            return None if content is None else Stored(content)
        if expr not in self._found:
            node = self._graph.node(expr)
            self._found[expr] = None if node is None or node.cast is not None else self._of(node)
        return self._found[expr]

    def _of(self, node: Node) -> Stored | None:
        if node.op == "var":
            return self.read(node.value)
        if node.op == "constant":
            return self.read(node.value)
        if node.op == "getitem":
            return self._part(node)
        if node.op == "relax.call_tir":
            kernel = kernels.read(node.value, self._mod)
            if kernel is None and self._products:
                product = kernels.multiplied(node.value, self._mod)
                kernel = None if product is None else product[1]
            return None if kernel is None else expanded(kernel, [self.known(arg) for arg in kernel.args])
        if node.op not in _RULES:
            return None
        source = self.read(node.value.args[0])
        return None if source is None else _RULES[node.op](self, node, source)

    def _part(self, node: Node) -> Stored | None:
        """One of the parts of a split."""
        split = self._graph.node(node.value.tuple_value)
        if split is None or split.op != "relax.split":
            return None
        source, cuts, axis = self.read(split.value.args[0]), _cuts(split), attr(split.value, "axis")
        if source is None:
            return None
        axis, which = axis % source.codes.ndim, node.value.index
        bounds = [0, *cuts, source.codes.shape[axis]] if isinstance(cuts, tuple) else None
        if bounds is None:
            count = source.codes.shape[axis] // cuts
            return source.taken(axis, which * count, 1, count)
        return source.taken(axis, bounds[which], 1, bounds[which + 1] - bounds[which])

    def known(self, expr: relax.Expr) -> Array | None:
        return constant(self._graph.value(expr))


def _cuts(split: Node) -> tuple[int, ...] | int:
    cuts = attr(split.value, "indices_or_sections")
    return cuts if isinstance(cuts, int) else tuple(int(cut) for cut in cuts)


def _cast(weights: Weights, node: Node, source: Stored) -> Stored | None:
    """A cast that keeps all numbers, or, as everywhere in this pass, one from a float type to another."""
    target, old = dtype(node.var), source.codes.dtype
    if source.scale is not None or scalars.is_float(str(old)):
        return source if scalars.is_float(target) else None
    if scalars.is_float(target):
        one = np.ones((1,) * source.codes.ndim, np.float32)
        return Stored(source.codes, Spread.over(one, source.codes.shape), source.zero)
    return source if np.can_cast(old, target) else None


def _subtract(weights: Weights, node: Node, source: Stored) -> Stored | None:
    shift = weights.known(node.value.args[1])
    if shift is None or source.zero is not None or source.codes.dtype.kind not in "iu":
        return None
    if not (source.scale is None or _is_one(source.scale)):
        return None
    zero = Spread.over(shift, source.codes.shape)
    return None if zero is None else Stored(source.codes, source.scale, zero)


def _multiply(weights: Weights, node: Node, source: Stored) -> Stored | None:
    by = weights.known(node.value.args[1])
    if by is None or source.scale is None or not _is_one(source.scale) or not scalars.is_float(str(by.dtype)):
        return None
    scale = Spread.over(by, source.codes.shape)
    return None if scale is None else Stored(source.codes, scale, source.zero)


def _is_one(scale: Spread) -> bool:
    return scale.numbers.size == 1 and float(scale.numbers.reshape(())) == 1.0


def _reshape(weights: Weights, node: Node, source: Stored) -> Stored | None:
    shape = dims(node.var)
    if shape is None or not all(isinstance(dim, int) for dim in shape):
        return None
    return source.reshaped(list(shape))


def _permute(weights: Weights, node: Node, source: Stored) -> Stored | None:
    order = attr(node.value, "axes")
    return source.permuted(tuple(order) if order is not None else tuple(reversed(range(source.codes.ndim))))


def _slice(weights: Weights, node: Node, source: Stored) -> Stored | None:
    call = node.value
    parts = [numbers(arg) for arg in call.args[1:5]]
    if any(part is None for part in parts):
        return None
    axes, begins, ends = parts[:3]
    steps = parts[3] if len(parts) > 3 else [1] * len(axes or ())
    for axis, begin, end, step in zip(axes or (), begins or (), ends or (), steps or (), strict=True):
        extent = source.codes.shape[int(axis)]
        at = range(extent)[slice(int(begin), int(end), int(step))]
        if at.step < 1:
            return None
        source = source.taken(int(axis) % source.codes.ndim, at.start, at.step, len(at))
    return source


def _take(weights: Weights, node: Node, source: Stored) -> Stored | None:
    """One element along an axis."""
    at, axis = weights.known(node.value.args[1]), attr(node.value, "axis")
    if at is None or at.size != 1 or axis is None or at.ndim > 1:
        return None
    axis = axis % source.codes.ndim
    extent = source.codes.shape[axis]
    place = int(at.reshape(()))
    if not -extent <= place < extent:
        return None
    one = source.taken(axis, place % extent, 1, 1)
    shape = one.codes.shape
    return one if at.ndim else one.reshaped([*shape[:axis], *shape[axis + 1 :]])


_RULES: Mapping[str, Callable[[Weights, Node, Stored], Stored | None]] = {
    "relax.astype": _cast,
    "relax.subtract": _subtract,
    "relax.multiply": _multiply,
    "relax.reshape": _reshape,
    "relax.squeeze": _reshape,
    "relax.expand_dims": _reshape,
    "relax.permute_dims": _permute,
    "relax.strided_slice": _slice,
    "relax.take": _take,
}


def expanded(kernel: kernels.Kernel, constants: Sequence[Array | None]) -> Stored | None:
    """The codes, scales and zeros of a function that computes (codes - zeros) * scales, if it does.

    Args:
        constants: what its arguments hold, None for what is not known.
    """
    value = _bare(kernel.stage.value)
    if not isinstance(value, tirx.Mul):
        return None
    number, by = _bare(value.a), _bare(value.b)
    if not isinstance(by, Load):
        return None
    less = None
    if isinstance(number, tirx.Sub):
        number, less = _bare(number.a), _bare(number.b)
    extents = [int(kernel.stage.extents[at]) if isinstance(at, Var) else 1 for at in kernel.stage.indices]
    try:
        codes = _integers(kernel, number, constants, [np.arange(extent) for extent in extents])
        scale = _spread(kernel, by, by, constants, extents)
        if isinstance(less, tirx.FloatImm):
            zero: Spread | None = Spread.over(np.array(less.value, np.float32), extents)
        else:
            zero = None if less is None else _spread(kernel, less, by, constants, extents)
    except scalars.Unknown:
        return None
    return Stored(codes, scale, zero)


def _bare(expr: Expr) -> Expr:
    """`expr` without what turns one float type into another."""
    while isinstance(expr, tirx.Cast) and scalars.is_float(str(expr.ty.dtype)):
        if not scalars.is_float(str(expr.value.ty.dtype)):
            break
        expr = expr.value
    return expr


def _integers(kernel: kernels.Kernel, number: Expr, constants: Sequence[Array | None], at: list[Array]) -> Array:
    """The integers that become floats, at the elements `at`, places for every axis."""
    if not isinstance(number, tirx.Cast) or scalars.is_float(str(number.value.ty.dtype)):
        raise scalars.Unknown
    codes = _evaluated(kernel, number.value, constants, at)
    least, most = int(codes.min(initial=0)), int(codes.max(initial=0))
    kinds = (kind for kind in (np.uint8, np.int8) if np.iinfo(kind).min <= least and most <= np.iinfo(kind).max)
    return codes.astype(next(kinds, codes.dtype))


def _evaluated(kernel: kernels.Kernel, expr: Expr, constants: Sequence[Array | None], at: list[Array]) -> Array:
    grid = np.ix_(*at)
    values: dict[Var, object] = {
        var: places for var, places in zip(kernel.stage.indices, grid, strict=True) if isinstance(var, Var)
    }

    def looked_up(load: Load) -> Expr:
        which = kernel.argument(load.source)
        content = None if which is None else constants[which]
        if content is None or any(loads(index) for index in load.indices):
            return load
        found = Var("found", load.ty)
        values[found] = content[tuple(np.asarray(scalars.evaluate(i, values)) for i in load.indices)]
        return found

    made = np.asarray(scalars.evaluate(tvm_ffi.structural_map(expr, (Load, looked_up)), values))
    return np.broadcast_to(made, [len(places) for places in at])


def _spread(
    kernel: kernels.Kernel, expr: Expr, like: Load, constants: Sequence[Array | None], extents: list[int]
) -> Spread:
    """Numbers that are the same wherever those of `like` are."""
    if len(like.indices) != len(extents):
        raise scalars.Unknown
    spans = [_span(i, axis, n) for i, axis, n in zip(like.indices, kernel.stage.indices, extents, strict=True)]
    first = [np.arange(0, extent, span) for extent, span in zip(extents, spans, strict=True)]
    if isinstance(expr, Load) and tvm_ffi.structural_equal(list(expr.indices), list(like.indices)):
        return Spread(_evaluated(kernel, expr, constants, first), tuple(spans))
    for load in loads(expr):  # a zero point lies where its scale does
        if not tvm_ffi.structural_equal(list(load.indices), list(like.indices)):
            raise scalars.Unknown
    return Spread(_integers(kernel, expr, constants, first), tuple(spans))


def _span(index: Expr, axis: Expr, extent: int) -> int:
    """How many neighbours along an axis an index takes to one place."""
    if index.same_as(axis):
        return 1
    if is_zero(index):
        return max(extent, 1)
    if isinstance(index, tirx.Div | tirx.FloorDiv) and index.a.same_as(axis) and isinstance(index.b, tirx.IntImm):
        return int(index.b)
    raise scalars.Unknown
