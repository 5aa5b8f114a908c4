"""The rows of channels-last data that a block of output rows reads, with their padding, in cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr, Var

from dscc.schedule.code import Code, Index, constant, index, product, quotient
from dscc.schedule.convolution import Convolution
from dscc.schedule.stages import substitute
from dscc.schedule.taps import Taps


@dataclass(frozen=True)
class Block:
    """Output rows that are computed together: `rows` from `first` on, of image `image`; at most `most`."""

    image: Expr
    first: Expr
    rows: Index
    most: Index


@dataclass(frozen=True)
class Lines:
    """Rows of data as one run of memory: element `at` of row r of the block is at `start + r * pitch + at`.

    Attributes:
        buffer: one-dimensional.
        start: of the block's first row, its padding included.
        pitch: elements from one row to the next.
    """

    buffer: Var
    start: Expr
    pitch: Index


@dataclass(frozen=True)
class Form:
    """How the data is copied.

    Attributes:
        channels: of a copied pixel: those of the data, and perhaps more, so that they are a multiple of something.
        dtype: of a copied element.
        data: its formula, in the variables of the convolution.
        outside: what padding is.
    """

    channels: int
    dtype: str
    data: Expr
    outside: Expr


class Window:
    """Access to the data of a convolution.

    Without padding and with a known width the data is read where it is. Else its rows are copied, block by block, to a
    buffer with the padding in place, and with room to the right so that the last tile of a row may be a whole one.
    """

    def __init__(
        self,
        code: Code,
        conv: Convolution,
        lanes: int,
        pixels: Index,
        form: Form | None = None,
        taps: tuple[Taps, Taps] | None = None,
    ):
        """`pixels`: output columns that are computed, of which those beyond the width are not stored; `taps`: those
        that are read, down and along.
        """
        self._code, self._conv, self._lanes = code, conv, lanes
        self._form = form or Form(conv.channels, "float32", conv.data, tirx.const(0.0, "float32"))
        self._down, self._along = taps or (Taps.every(conv.height), Taps.every(conv.width))
        width = conv.width
        self.copies = form is not None or conv.height.padded or conv.source is None or constant(width.out) is None
        pitch = (pixels - 1) * width.stride + self._along.reach if self.copies else width.size
        self.pitch: Index = pitch if isinstance(pitch, int) else code.opaque("pitch", pitch)
        self._flat = None if conv.source is None or form is not None else code.view(conv.source).buffer

    def lines(self, block: Block) -> Lines:
        """The rows that `block` reads."""
        conv, height = self._conv, self._conv.height
        if not self.copies:
            pitch = product([self.pitch, conv.channels])
            start = (block.image * height.size + block.first * height.stride) * pitch
            return Lines(self._flat, self._code.opaque("start", start), pitch)
        return self._copy(block)

    def _copy(self, block: Block) -> Lines:
        code, height, width = self._code, self._conv.height, self._conv.width
        form = self._form
        pitch = product([self.pitch, form.channels])
        size = product([pitch, (block.most - 1) * height.stride + self._down.reach])
        buffer = code.heap("lines", size, form.dtype).buffer
        before, columns = margins(code, self._along.before, width.size, self.pitch)
        left, middle = before * form.channels, columns * form.channels
        with code.loop((block.rows - 1) * height.stride + self._down.reach, "r") as r:
            line = code.opaque("line", block.first * height.stride - self._down.before + r)
            to = code.opaque("to", r * pitch)
            inside = tirx.And(tirx.LE(index(0), line), tirx.LT(line, height.size)) if height.padded else True
            with code.when(inside):
                self._zeros(buffer, to, left)
                self._data(buffer, to + left, middle, block.image, line)
                self._zeros(buffer, to + left + middle, pitch - left - middle)
            if height.padded:
                with code.when(tirx.Not(inside)):
                    self._zeros(buffer, to, pitch)
        return Lines(buffer, index(0), pitch)

    def _zeros(self, buffer: Var, to: Expr, count: Index) -> None:
        self._fill(buffer, to, count, lambda _: self._form.outside)

    def _data(self, buffer: Var, to: Expr, count: Index, image: Expr, line: Expr) -> None:
        conv = self._conv
        if self._flat is not None:
            flat = self._flat
            start = (image * conv.height.size + line) * conv.width.size * conv.channels
            start = self._code.opaque("from", start)
            self._fill(buffer, to, count, lambda at: tirx.BufferLoad(flat, [start + at]))
            return
        at_image, at_row, at_column, at_channel = conv.at
        form = self._form
        with self._code.loop(quotient(count, form.channels), "x") as x:

            def element(channel: Expr) -> Expr:
                return substitute(form.data, {at_image: image, at_row: line, at_column: x, at_channel: channel})

            start = to + x * form.channels
            self._fill(buffer, start, conv.channels, element)
            self._zeros(buffer, start + conv.channels, form.channels - conv.channels)

    def _fill(self, buffer: Var, to: Expr, count: Index, element: Callable[[Expr], Expr]) -> None:
        fill(self._code, buffer, to, count, element, self._lanes)


def margins(code: Code, before: Index, size: Index, pitch: Index) -> tuple[Index, Index]:
    """Of `pitch` columns, those of the padding before an image, and those of the image.

    The padding may be more than all columns: where the stride skips an image behind it.
    """
    known = [number for value in (before, size, pitch) if (number := constant(value)) is not None]
    if len(known) == 3:
        left = min(known[0], known[2])
        return left, min(known[1], known[2] - left)
    start = code.opaque("left", tirx.min(index(before), index(pitch)))
    return start, code.opaque("middle", tirx.min(index(size), index(pitch) - start))


def fill(code: Code, buffer: Var, to: Expr, count: Index, element: Callable[[Expr], Expr], lanes: int) -> None:
    """Store `count` elements from `to` on: full vectors, then one by one."""
    vectors, known = quotient(count, lanes), constant(count)
    if known is not None:
        vectors = index(known // lanes)
    with code.loop(vectors, "v") as v, code.loop(lanes, "l", "vectorized") as lane:
        at = v * lanes + lane
        code.add(tirx.BufferStore(buffer, element(at), [to + at]))
    with code.loop(index(count) - vectors * lanes if known is None else known % lanes, "v") as v:
        at = vectors * lanes + v
        code.add(tirx.BufferStore(buffer, element(at), [to + at]))
