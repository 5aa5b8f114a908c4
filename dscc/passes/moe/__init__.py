"""Mixtures of experts: recognised in whatever form an exporter wrote them, and split among devices.

fuse_experts.py     the pass: traces a function's values, and puts one operator where a mixture's sum is complete
routed.py           what a value is in terms of a routing: rows of slots, of one expert, of all; and its leaves
scalars.py          elementwise operators as formulas over scalars
kernels.py          the same for functions that the front end wrote: formulas, gathers, ranges
trace.py            the values of a function, followed from its first binding to its last
rules/              from the values of an operator's operands to that of its result
merge.py            one formula out of those of all experts
weights.py          what constants become on their way to where they are used
stored.py           weights as they are kept: reals, or small integers with scales
build.py            from a complete sum to the operator
moe_partition.py    the other pass: every device has some of the experts
"""
