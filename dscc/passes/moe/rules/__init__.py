"""What operators make of values: facts about one operator each, as functions of the trace and a node.

elementwise.py    formulas over the operands' formulas; functions of the front end too
axes.py           reshapes, transposes, broadcasts, slices
products.py       rows times a matrix, those of all experts, or the one looked up for each row
sums.py           over the choices of a token, over all experts, or expert by expert; one-hot masks and counts
choices.py        the best of every token, sorting by expert, the slots where a mask is set
segments.py       one for each expert of the sorted slots: their ends, computed lengths, putting them together
gather.py         lookups of rows, shares, biases and matrices
scatter.py        inverting a permutation, counting, shares of all experts, adding rows to their tokens

A rule returns None for what it doesn't know; it notes matrices, tuples and complete sums in the trace.
"""

from __future__ import annotations

from dscc.passes.moe.rules import axes, choices, elementwise, gather, products, scatter, segments, sums
from dscc.passes.moe.trace import Rule

RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **axes.RULES,
    **products.RULES,
    **sums.RULES,
    **choices.RULES,
    **segments.RULES,
    **gather.RULES,
    **scatter.RULES,
}
