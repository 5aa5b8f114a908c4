"""A file of a seed: a few alterations, drawn from a table, of one base."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError

from benchmarks.fuzz_files.alterations.anywhere import any_field, field_of_node, name_in_bytes, some_bytes
from benchmarks.fuzz_files.alterations.attributes import attribute_list, attribute_type, attribute_value
from benchmarks.fuzz_files.alterations.constants import (
    sparse_weight,
    weight_bytes,
    weight_dims,
    weight_or_input,
    weight_type,
    weight_values,
)
from benchmarks.fuzz_files.alterations.nodes import edge, more_or_fewer_edges, node_list, operator, output_name, rename
from benchmarks.fuzz_files.alterations.outside import move_outside, outside_bytes, place, places_swapped
from benchmarks.fuzz_files.alterations.scopes import into_branch, into_function, opset
from benchmarks.fuzz_files.alterations.shapes import dimension, element_type, kind_of_input, rank
from benchmarks.fuzz_files.bases import Base
from benchmarks.fuzz_files.fields import pick
from benchmarks.fuzz_files.file import Alteration, File, Nothing

# What protobuf and NumPy do not take is not written either.
IMPOSSIBLE = (Nothing, DecodeError, EncodeError, TypeError, ValueError)

TABLE: tuple[Alteration, ...] = (
    any_field, field_of_node, some_bytes, name_in_bytes, dimension, rank, element_type, kind_of_input, weight_type,
    weight_dims, weight_bytes, weight_values, weight_or_input, sparse_weight, move_outside, place, places_swapped,
    outside_bytes, edge, more_or_fewer_edges, output_name, rename, operator, node_list, attribute_value, attribute_type,
    attribute_list, opset, into_function, into_branch,
)  # fmt: skip
# Those that end at the parser or in the first checks are the rarer ones.
_RARE: dict[Alteration, float] = {
    some_bytes: 0.7, any_field: 0.7, name_in_bytes: 0.3, sparse_weight: 0.3, attribute_type: 0.4, output_name: 0.4,
}  # fmt: skip
_OFTEN: dict[Alteration, float] = {weight_values: 2.5, dimension: 1.5, attribute_value: 2.5, operator: 2.5, edge: 1.5}
_WEIGHTS = np.array([_RARE.get(each, _OFTEN.get(each, 1.0)) for each in TABLE])
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def alter(seed: int, number: int, base: Base, kept: Sequence[int] | None = None) -> tuple[File, int]:
    """The file `number` of a seed, and how many alterations it has.

    Args:
        kept: which of its alterations are made; each has a generator of its own, so that others can be left out.
    """
    rng = np.random.default_rng([seed, number])
    file = File(onnx.ModelProto.FromString(base.model), dict(base.files))
    count = int(pick(rng, (1, 1, 1, 2, 2, 3, 4, 8)))
    chosen = [TABLE[int(rng.choice(len(TABLE), p=_WEIGHTS))] for _ in range(count)]
    for index, alteration in enumerate(chosen):
        if kept is None or index in kept:
            for attempt in range(5):
                try:
                    alteration(np.random.default_rng([seed, number, index, attempt]), file)
                    break
                except IMPOSSIBLE:
                    continue
    return file, count
