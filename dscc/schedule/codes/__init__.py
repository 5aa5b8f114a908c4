"""Products with constant weights of 2, 4 or 8 bits that share a scale in blocks, as they are stored.

    define.py    the weight, and the product as it is emitted: one sum over scalars
    weight.py    the weight, recognised in the formula of its elements
    layout.py    the codes in the order in which the kernel reads them, and the instructions for them
    digits.py    rows of real numbers as digits, and the sums of a tile

A front end or a pass emits `define`'s product, which every rule for products takes and expands as it multiplies; the
rule `matmul_codes` multiplies the codes themselves.
"""
