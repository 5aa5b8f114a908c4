"""The taps of a window that lie on the image for some output; the others multiply nothing but padding.

With a large dilation a window is larger than a small image: of DeepLab's 3 x 3 taps, 12 to 36 apart, only the middle
one lies on a feature map of 10 x 10, and the padding that the others read is up to 66 times as large as the map. Near
an edge of the image there are fewer than elsewhere: a tenth of all rows of taps of a 3 x 3 window on 7 x 7 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.code import Code, Index, ceildiv, constant, index, quotient
from dscc.schedule.convolution import Axis

_FAR = 4  # a dilation from which on it is worth finding out at run time


@dataclass(frozen=True)
class Taps:
    """Taps of a window along one axis, in a row.

    Attributes:
        first: which is the first.
        count: how many there are; at least 1.
        before: padding before the first element that the first of them reads.
        reach: elements from the first to the last of them.
    """

    first: Index
    count: Index
    before: Index
    reach: Index

    @staticmethod
    def every(axis: Axis) -> Taps:
        """All of them."""
        return Taps(0, axis.kernel, axis.before, axis.reach)

    def within(self, code: Code, axis: Axis, first: Expr, last: Expr) -> tuple[Expr, Expr]:
        """Those that lie on the image for an output from `first` to `last`: which is the first, and how many."""
        far, near = index(self.before) - last * axis.stride, index(self.before) - first * axis.stride
        low = ceildiv(tirx.max(far, index(0)), axis.dilation)
        low = code.opaque("low", tirx.min(index(low), index(self.count)))
        high = quotient(tirx.max(near + (axis.size + (axis.dilation - 1)), index(0)), axis.dilation)
        return low, code.opaque("taps", tirx.max(tirx.min(high, index(self.count)) - low, index(0)))

    @staticmethod
    def idle(axis: Axis) -> float | None:
        """The part of all products along the axis that is with padding; None if its size is not known."""
        size, out = constant(axis.size), constant(axis.out)
        if size is None or out is None:
            return None
        taps = [y * axis.stride + t * axis.dilation - axis.before for y in range(out) for t in range(axis.kernel)]
        return sum(not 0 <= tap < size for tap in taps) / max(1, len(taps))

    @staticmethod
    def reached(code: Code, axis: Axis) -> Taps:
        """Those that lie on the image for some output, if its size is known or they may be few.

        Tap t of output y reads element y * stride + t * dilation - before.
        """
        known = constant(axis.out) is not None and constant(axis.size) is not None
        if not axis.padded or axis.kernel == 1 or not (known or axis.dilation >= _FAR):
            return Taps.every(axis)
        # Not beyond the start of the image: the padding before it would be less than nothing.
        most = min(axis.before // axis.dilation, axis.kernel - 1)
        missing = tirx.max(index(axis.before) - (axis.out - 1) * axis.stride, index(0))
        first = _number(code, "first_tap", tirx.min(index(ceildiv(missing, axis.dilation)), index(most)))
        end = tirx.min(quotient(axis.size + (axis.before - 1), axis.dilation) + 1, index(axis.kernel))
        count = _number(code, "taps", tirx.max(end - first, index(1)))
        return Taps(first, count, axis.before - first * axis.dilation, (count - 1) * axis.dilation + 1)


def _number(code: Code, name: str, value: Index) -> Index:
    known = constant(value)
    return code.opaque(name, value) if known is None else known
