"""Weights as they are kept: reals, or small integers that are expanded when they are used.

(codes - zero) * scale          scale, zero: one for several neighbours along every axis
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from dscc.schedule.experts.mixture import Storage

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Spread:
    """Numbers that neighbours share: element i of an axis has number i // span.

    Attributes:
        numbers: of the rank of what they belong to. spans: one for each axis.
    """

    numbers: Array
    spans: tuple[int, ...]

    @staticmethod
    def over(numbers: Array, shape: Sequence[int]) -> Spread | None:
        """Numbers that are broadcast to a shape; None if they don't fit it."""
        wide = numbers.reshape((1,) * (len(shape) - numbers.ndim) + numbers.shape)
        if wide.ndim != len(shape) or any(n not in (1, extent) for n, extent in zip(wide.shape, shape, strict=True)):
            return None
        return Spread(wide, tuple(extent if n == 1 else 1 for n, extent in zip(wide.shape, shape, strict=True)))

    def narrowed(self, axis: int, span: int, extent: int) -> Spread:
        """The same numbers, repeated so that only `span` of `extent` neighbours share one; it divides what they do."""
        old = self.spans[axis]
        if old == span:
            return self
        count = -(-extent // span)
        at = np.arange(count) * span // old
        spans = tuple(span if place == axis else each for place, each in enumerate(self.spans))
        return Spread(np.take(self.numbers, at, axis), spans)

    def taken(self, axis: int, begin: int, step: int, count: int, extent: int) -> Spread:
        """Those of every `step`th element from `begin` on; `extent`: elements that there were."""
        span = self.spans[axis]
        if self.numbers.shape[axis] == 1:
            return Spread(self.numbers, _with(self.spans, axis, count))
        if step == 1 and begin % span == 0:
            last = -(-(begin + count) // span)
            return Spread(_part(self.numbers, axis, slice(begin // span, last)), self.spans)
        own = self.narrowed(axis, 1, extent)
        return Spread(_part(own.numbers, axis, slice(begin, begin + step * count, step)), own.spans)


def _with(spans: tuple[int, ...], axis: int, span: int) -> tuple[int, ...]:
    return (*spans[:axis], span, *spans[axis + 1 :])


def _part(array: Array, axis: int, where: slice) -> Array:
    return array[(slice(None),) * axis + (where,)]


@dataclass(frozen=True, eq=False)
class Stored:
    """A weight: `codes`, integers with a scale; or reals, which have none."""

    codes: Array
    scale: Spread | None = None
    zero: Spread | None = None

    @property
    def _spreads(self) -> list[Spread | None]:
        return [self.scale, self.zero]

    def permuted(self, order: Sequence[int]) -> Stored:
        moved = [
            each and Spread(each.numbers.transpose(order), tuple(each.spans[axis] for axis in order))
            for each in self._spreads
        ]
        return Stored(self.codes.transpose(order), *moved)

    def reshaped(self, shape: Sequence[int]) -> Stored | None:
        """In another shape; None if it doesn't fit, or if there are scales and it is more than axes of length 1."""
        wide = [axis for axis, extent in enumerate(self.codes.shape) if extent != 1]
        if math.prod(shape) != self.codes.size:
            return None
        if self.scale is not None and [self.codes.shape[axis] for axis in wide] != [n for n in shape if n != 1]:
            return None

        def moved(each: Spread | None) -> Spread | None:
            if each is None:
                return None
            left = iter(wide)
            from_ = [next(left) if extent != 1 else None for extent in shape]
            sizes = [1 if axis is None else each.numbers.shape[axis] for axis in from_]
            return Spread(each.numbers.reshape(sizes), tuple(1 if a is None else each.spans[a] for a in from_))

        return Stored(self.codes.reshape(shape), moved(self.scale), moved(self.zero))

    def taken(self, axis: int, begin: int, step: int, count: int) -> Stored:
        """Every `step`th element along an axis, `count` of them."""
        parts = [each and each.taken(axis, begin, step, count, self.codes.shape[axis]) for each in self._spreads]
        return Stored(_part(self.codes, axis, slice(begin, begin + step * count, step)), *parts)

    def real(self) -> Array:
        """The numbers that it stands for; in float32 where they were kept as integers."""
        if self.scale is None:
            return self.codes
        codes = self.codes.astype(np.float32)
        if self.zero is not None:
            codes = codes - _expanded(self.zero, codes.shape).astype(np.float32)
        real: Array = codes * _expanded(self.scale, codes.shape).astype(np.float32)
        return real


def _expanded(spread: Spread, shape: Sequence[int]) -> Array:
    """A number for every element."""
    for axis, extent in enumerate(shape):
        spread = spread.narrowed(axis, 1, extent) if spread.numbers.shape[axis] > 1 else spread
    return np.broadcast_to(spread.numbers, shape)


def stacked(each: Sequence[Stored | None]) -> Stored | None:
    """Weights of one shape along a new first axis; None if one is missing, or they are kept in different ways."""
    known = [one for one in each if one is not None]
    spreads = [[one.scale for one in known], [one.zero for one in known]]
    if len(known) < len(each) or len({one.codes.shape for one in known}) > 1:
        return None
    if any((one.scale is None) != (known[0].scale is None) for one in known):
        return Stored(np.stack([one.real() for one in known]))
    shape = known[0].codes.shape
    made = [_stacked_spreads([spread for spread in some if spread is not None], some, shape) for some in spreads]
    return Stored(np.stack([one.codes for one in known]), *made)


def _stacked_spreads(known: Sequence[Spread], each: Sequence[Spread | None], shape: Sequence[int]) -> Spread | None:
    """Numbers of all of `each`, zeros where one has none; in spans that fit into those of every one."""
    if not known:
        return None
    spans = tuple(math.gcd(*(spread.spans[axis] for spread in known)) for axis in range(len(shape)))
    rows = []
    for spread in each:
        own = Spread(np.zeros((1,) * len(shape), np.float32), tuple(shape)) if spread is None else spread
        for axis, span in enumerate(spans):
            own = own.narrowed(axis, span, shape[axis])
        rows.append(own.numbers)
    return Spread(np.stack(rows), (1, *spans))


@dataclass(frozen=True)
class Kept:
    """How the operator keeps a weight (experts, columns, depth), and its operands by the letter that they begin with:
    w, s (scales) and z (zeros).
    """

    storage: Storage
    depth: int
    operands: dict[str, Array]


def kept(weights: Sequence[Stored]) -> Kept:
    """One weight whose columns are those of `weights`, one after the other; each is (experts, columns, depth)."""
    coded = _coded(weights)
    if coded is not None:
        return coded
    reals = [weight.real() for weight in weights]
    kinds = {real.dtype for real in reals}
    if kinds == {np.dtype(ml_dtypes.bfloat16)}:
        bits = np.concatenate([np.ascontiguousarray(real).view(np.uint16) for real in reals], axis=1)
        return Kept(Storage(16, brain=True), bits.shape[2], {"w": bits})
    half = kinds == {np.dtype(np.float16)}
    whole = np.concatenate(reals, axis=1).astype(np.float16 if half else np.float32, copy=False)
    return Kept(Storage(16 if half else 32), whole.shape[2], {"w": whole})


def _coded(weights: Sequence[Stored]) -> Kept | None:
    """The weights in as few bits as their codes need; None if they have none, or would be no smaller than reals."""
    if any(weight.scale is None for weight in weights):
        return None
    depth = weights[0].codes.shape[2]
    least = min(int(weight.codes.min()) for weight in weights)
    most = max(int(weight.codes.max()) for weight in weights)
    spans = [each.spans[2] for weight in weights for each in (weight.scale, weight.zero) if each is not None]
    block = math.gcd(*[span for span in spans if span < depth]) or depth
    for bits in (2, 4, 8):
        half = 2 ** (bits - 1)
        offset = 0 if least >= 0 and most < 2 * half else half
        if least + offset >= 0 and most + offset < 2 * half and (block == depth or block * bits % 8 == 0):
            break
    else:
        return None
    zeros = any(weight.zero is not None for weight in weights)
    if bits / 8 + (8 if zeros else 4) / block >= 4:
        return None
    storage = Storage(bits, 0 if block == depth else block, 0 if zeros else offset)
    codes = np.concatenate([(weight.codes.astype(np.int16) + offset).astype(np.uint8) for weight in weights], axis=1)
    operands = {"w": storage.pack(codes)}
    operands["s"] = np.concatenate([_blocks(weight.scale, weight, block) for weight in weights], axis=1)
    if zeros:
        operands["z"] = np.concatenate([_blocks(weight.zero, weight, block) for weight in weights], axis=1) + offset
    return Kept(storage, depth, {name: np.ascontiguousarray(array) for name, array in operands.items()})


def _blocks(spread: Spread | None, weight: Stored, block: int) -> Array:
    """(experts, columns, blocks), float32; zeros where there are none."""
    experts, columns, depth = weight.codes.shape
    if spread is None:
        return np.zeros((experts, columns, -(-depth // block)), np.float32)
    numbers = spread.narrowed(2, block, depth).narrowed(0, 1, experts).narrowed(1, 1, columns).numbers
    return numbers.astype(np.float32)
