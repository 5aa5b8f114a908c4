"""Runs that make nothing: a batch without rows, a text without tokens.

Kernels are written for at least one element along every dimension; a front end lets few be 0 (see `may_be_empty`).
Where another one is 0 and all outputs are empty for that, there is nothing to run: their shapes are known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dscc.runtime.arithmetic import evaluate

if TYPE_CHECKING:
    from dscc.artifact.manifest import TensorSpec

Shape = tuple[int, ...]


def empty_shapes(outputs: Sequence[TensorSpec], sizes: Mapping[str, int]) -> list[Shape] | None:
    """The shapes of the outputs, or None unless it is known that all of them are empty.

    Args:
        sizes: of the dimensions of the inputs, by name.
    """
    shapes = [_shape(spec, sizes) for spec in outputs]
    known = [shape for shape in shapes if shape is not None and min(shape, default=1) >= 0 and not math.prod(shape)]
    return known if len(known) == len(shapes) else None


def _shape(spec: TensorSpec, sizes: Mapping[str, int]) -> Shape | None:
    if not spec.plain:
        return None
    try:
        return tuple(dim if isinstance(dim, int) else evaluate(dim, sizes) for dim in spec.shape)
    except ValueError:
        return None
