"""A mixture of experts as one kernel: tokens are sorted by expert, and each chosen expert's weights are read once.

    mixture.py    what is computed: sizes, formulas, how weights are stored; and how a PrimFunc states it
    formula.py    formulas over scalars as text
    define.py     the function as it is emitted: plain loops over scalars, the reference definition
    panels.py     the weights in the order in which the kernel reads them
    routing.py    which token goes to which expert: counts, places, the permutation
    writer.py     the kernel: the permuted rows, the first product with the activation, the second with the sum
    tiles.py      rows of one expert in register tiles

A front end or a pass emits `define`'s function, which runs as it is; the rule `experts` writes it anew.
"""
