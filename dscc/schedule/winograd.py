"""The transforms of Winograd's minimal filtering F(4x4, 3x3).

    out = At (G w Gt * B^t d B) A        d: 6 x 6 pixels, w: 3 x 3, out: 4 x 4 pixels, * element by element

36 multiplications take the place of 144 (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016).
The polynomials are interpolated at 0, infinity and two pairs of points. With the pairs 3/4 and 5/4 the rounding error
is 1.5 times that of the direct sum over 256 channels; with the usual 1 and 2 it is 6 times that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from tvm.ir import Expr

from dscc.schedule.base import Packing
from dscc.schedule.tiling import Columns

OUT = 4
"""Pixels that a tile computes along an axis."""
IN = 6
"""Pixels that a tile reads along an axis."""

_NEAR, _FAR = 0.75, 1.25

T = TypeVar("T", float, Expr)


def _weight_matrix() -> np.ndarray:
    """G: (6, 3), a row for each point of 0, +-_NEAR, +-_FAR, infinity."""
    points = [0.0, _NEAR, -_NEAR, _FAR, -_FAR]
    rows = []
    for point in points:
        scale = np.prod([point - other for other in points if other != point])
        rows.append([1 / scale, point / scale, point**2 / scale])
    return np.array([*rows, [0.0, 0.0, 1.0]])


def data_transform(d: Sequence[T], name: Callable[[T], T]) -> list[T]:
    """B^t d along one axis: six values from six; `name` keeps a value that is used twice."""
    near, far = _NEAR**2, _FAR**2
    even_near, odd_near = name(d[4] - d[2] * far), name((d[3] - d[1] * far) * _NEAR)
    even_far, odd_far = name(d[4] - d[2] * near), name((d[3] - d[1] * near) * _FAR)
    return [
        d[0] * (near * far) - d[2] * (near + far) + d[4],
        even_near + odd_near,
        even_near - odd_near,
        even_far + odd_far,
        even_far - odd_far,
        d[1] * (near * far) - d[3] * (near + far) + d[5],
    ]


def result_transform(m: Sequence[T], name: Callable[[T], T]) -> list[T]:
    """A^t m along one axis: four values from six."""
    sum_near, difference_near = name(m[1] + m[2]), name(m[1] - m[2])
    sum_far, difference_far = name(m[3] + m[4]), name(m[3] - m[4])
    return [
        m[0] + sum_near + sum_far,
        difference_near * _NEAR + difference_far * _FAR,
        sum_near * _NEAR**2 + sum_far * _FAR**2,
        difference_near * _NEAR**3 + difference_far * _FAR**3 + m[5],
    ]


@dataclass(frozen=True)
class WinogradPacking(Packing):
    """Weights (F, 3, 3, C), transformed, as [panel][6 * 6][C][column].

    Attributes:
        columns: how the F columns are cut into panels.
    """

    columns: Columns

    def pack(self, weight: np.ndarray) -> np.ndarray:
        matrix = _weight_matrix()
        both, table, channels = np.kron(matrix, matrix), self.columns.table(), weight.shape[-1]
        packed = np.empty((len(table), IN * IN, channels, table.shape[1]), np.float32)
        for panel, columns in enumerate(table):  # one at a time, since in float64 they take eight times the bytes
            chosen = np.where(columns[:, None, None, None] >= 0, weight[columns], 0).astype(np.float64)
            inner = chosen.transpose(1, 2, 3, 0).reshape(9, -1)
            packed[panel] = (both @ inner).reshape(packed.shape[1:])
        return packed
