"""Instance and group normalisation of channels-last data: means line by line, so that loops run through memory in order
and rows of the image are tasks for threads.

    lines[n, y, c]   = mean over x of data[n, y, x, c]
    mean[n, c]       = mean over y and the channels of c's group of lines[n, y, .]
    squares[n, y, c] = mean over x of (data[n, y, x, c] - mean[n, c])^2
    factor[n, c]     = gamma[c] / sqrt(mean as above of squares[n, y, .] + epsilon)
    out[n, y, x, c]  = (data[n, y, x, c] - mean[n, c]) * factor[n, c] + beta[c]

In one function, as in norm.py, the few channels of a group would be the lanes of vectors, or jumped over. The last step
is one of its own, so that what follows (an activation) becomes part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import relax, te, tirx

At = Sequence[tirx.Expr]

_OPAQUE = 8  # TVM's pattern kind of what nothing is fused with


@dataclass(frozen=True)
class ChannelNorm:
    """A normalisation over everything between the first axis and the last, and over `size` neighbouring channels."""

    size: int
    epsilon: float

    @staticmethod
    def takes(x: relax.Expr, channel: int, axes: Sequence[int]) -> bool:
        """Whether `x` is float32 (n, .., c) of at least three dimensions, and all between are normalised over."""
        rank = len(x.ty.shape)
        last = channel == rank - 1 and rank > 2
        return last and sorted(axes) == list(range(1, rank - 1)) and str(x.ty.dtype) == "float32"

    def write(
        self, bb: relax.BlockBuilder, x: relax.Expr, gamma: relax.Expr, beta: relax.Expr, name: str
    ) -> relax.Expr:
        """The calls of the five functions, the last one not yet emitted."""

        def call(define: Callable[..., te.Tensor], part: str, *args: relax.Expr) -> relax.Expr:
            return bb.emit(bb.call_te(define, *args, primfunc_name_hint=f"{name}_{part}"))

        def statistic(define: Callable[..., te.Tensor], part: str, *args: relax.Expr) -> relax.Expr:
            # The channel's group is found by division: fused with what reads it, that would be done for every pixel.
            attrs = {"op_pattern": _OPAQUE}
            return bb.emit(bb.call_te(define, *args, primfunc_name_hint=f"{name}_{part}", primfunc_attrs=attrs))

        def deviation(x: te.Tensor, mean: te.Tensor, at: At) -> tirx.Expr:
            return x[tuple(at)] - mean[at[0], at[-1]]

        def lines(x: te.Tensor) -> te.Tensor:
            return _lines(x, lambda at: x[tuple(at)])

        def averages(lines: te.Tensor) -> te.Tensor:
            return self._over_groups(lines, lambda mean, channel: mean)

        def squares(x: te.Tensor, mean: te.Tensor) -> te.Tensor:
            return _lines(x, lambda at: deviation(x, mean, at) * deviation(x, mean, at))

        def factors(lines: te.Tensor, gamma: te.Tensor) -> te.Tensor:
            epsilon = tirx.const(self.epsilon, "float32")
            return self._over_groups(lines, lambda mean, channel: tirx.rsqrt(mean + epsilon) * gamma[channel])

        def result(x: te.Tensor, mean: te.Tensor, factor: te.Tensor, beta: te.Tensor) -> te.Tensor:
            def element(*at: tirx.Var) -> tirx.Expr:
                return deviation(x, mean, at) * factor[at[0], at[-1]] + beta[at[-1]]

            return te.compute(x.shape, element, name="normalized")

        mean = statistic(averages, "mean", call(lines, "lines", x))
        factor = statistic(factors, "factor", call(squares, "squares", x, mean), gamma)
        return bb.call_te(result, x, mean, factor, beta, primfunc_name_hint=name)

    def _over_groups(self, lines: te.Tensor, finish: Callable[[tirx.Expr, tirx.Expr], tirx.Expr]) -> te.Tensor:
        """(n, c): what `finish` makes of the mean of the channel's group, and of the channel."""
        reduced = [te.reduce_axis((0, extent), name=f"y{i}") for i, extent in enumerate(list(lines.shape)[1:-1])]
        batch, channels = lines.shape[0], lines.shape[-1]
        columns = lines
        if reduced:
            places = [axis.var for axis in reduced]
            columns = te.compute(
                (batch, channels), lambda n, c: te.sum(lines[(n, *places, c)], axis=reduced), name="columns"
            )
        count: tirx.Expr = tirx.const(float(self.size), "float32")
        for axis in reduced:
            count = count * tirx.Cast("float32", axis.dom.extent)
        within = te.reduce_axis((0, self.size), name="channel")
        groups = te.compute(
            (batch, channels // self.size),
            lambda n, g: te.sum(columns[n, g * self.size + within.var], axis=within),
            name="groups",
        )
        size = tirx.const(self.size, "int64")
        return te.compute(
            (batch, channels), lambda n, c: finish(groups[n, tirx.floordiv(c, size)] / count, c), name="statistic"
        )


def _lines(x: te.Tensor, element: Callable[[At], tirx.Expr]) -> te.Tensor:
    """Means along the axis before the channels."""
    reduced = te.reduce_axis((0, x.shape[-2]), name="x")
    kept = [*list(x.shape)[:-2], x.shape[-1]]
    total = te.compute(kept, lambda *at: te.sum(element((*at[:-1], reduced.var, at[-1])), axis=reduced), name="total")
    return te.compute(kept, lambda *at: total[at] / tirx.Cast("float32", x.shape[-2]), name="lines")
