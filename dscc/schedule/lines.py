"""The rows of channels-last data that a block of output rows reads, with their padding, in cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr, Var

from dscc.schedule.code import Code, Index, constant, index, product, quotient
from dscc.schedule.convolution import Convolution
from dscc.schedule.stages import substitute


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


class Window:
    """Access to the data of a convolution.

    Without padding and with a known width the data is read where it is. Else its rows are copied, block by block, to a
    buffer with the padding in place, and with room to the right so that the last tile of a row may be a whole one.
    """

    def __init__(self, code: Code, conv: Convolution, lanes: int, pixels: Index):
        """`pixels`: output columns that are computed, of which those beyond the width are not stored."""
        self._code, self._conv, self._lanes = code, conv, lanes
        width = conv.width
        self.copies = conv.height.padded or conv.source is None or constant(width.out) is None
        pitch = (pixels - 1) * width.stride + width.reach if self.copies else width.size
        self.pitch: Index = pitch if isinstance(pitch, int) else code.opaque("pitch", pitch)
        self._flat = None if conv.source is None else code.view(conv.source).buffer

    def lines(self, block: Block) -> Lines:
        """The rows that `block` reads."""
        conv, height = self._conv, self._conv.height
        if not self.copies:
            pitch = product([self.pitch, conv.channels])
            start = (block.image * height.size + block.first * height.stride) * pitch
            return Lines(self._flat, self._code.opaque("start", start), pitch)
        return self._copy(block)

    def _copy(self, block: Block) -> Lines:
        code, conv, height, width = self._code, self._conv, self._conv.height, self._conv.width
        pitch = product([self.pitch, conv.channels])
        buffer = code.heap("lines", product([pitch, (block.most - 1) * height.stride + height.reach])).buffer
        left = width.before * conv.channels
        room, known = self.pitch - width.before, constant(width.size)
        if known is not None and isinstance(room, int):
            middle: Index = min(known, room) * conv.channels
        else:
            middle = code.opaque("middle", tirx.min(index(width.size), index(room)) * conv.channels)
        with code.loop((block.rows - 1) * height.stride + height.reach, "r") as r:
            line = code.opaque("line", block.first * height.stride - height.before + r)
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
        self._fill(buffer, to, count, lambda _: tirx.const(0.0, "float32"))

    def _data(self, buffer: Var, to: Expr, count: Index, image: Expr, line: Expr) -> None:
        conv = self._conv
        if self._flat is not None:
            flat = self._flat
            start = (image * conv.height.size + line) * conv.width.size * conv.channels
            start = self._code.opaque("from", start)
            self._fill(buffer, to, count, lambda at: tirx.BufferLoad(flat, [start + at]))
            return
        at_image, at_row, at_column, at_channel = conv.at
        with self._code.loop(quotient(count, conv.channels), "x") as x:

            def element(channel: Expr) -> Expr:
                return substitute(conv.data, {at_image: image, at_row: line, at_column: x, at_channel: channel})

            self._fill(buffer, to + x * conv.channels, conv.channels, element)

    def _fill(self, buffer: Var, to: Expr, count: Index, element: Callable[[Expr], Expr]) -> None:
        """`count` elements from `to` on: full vectors, then one by one."""
        code, lanes = self._code, self._lanes
        vectors, known = quotient(count, lanes), constant(count)
        if known is not None:
            vectors = index(known // lanes)
        with code.loop(vectors, "v") as v, code.loop(lanes, "l", "vectorized") as lane:
            at = v * lanes + lane
            code.add(tirx.BufferStore(buffer, element(at), [to + at]))
        with code.loop(index(count) - vectors * lanes if known is None else known % lanes, "v") as v:
            at = vectors * lanes + v
            code.add(tirx.BufferStore(buffer, element(at), [to + at]))
