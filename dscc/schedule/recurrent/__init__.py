"""Recurrent operators (LSTM, GRU, RNN) as one kernel: all time steps, all gates, the state in cache.

    cell.py         what a step computes for one hidden unit, as formulas; and how a PrimFunc states it
    activation.py   the functions that it may use
    panels.py       the recurrent weights in the order in which the kernel reads them
    writer.py       the loops around a step
    step.py         a step: the product and its epilogue
    define.py       the function as the front end emits it: the same loops over scalars

A front end emits `define`'s function, which runs as it is; the rule `recurrent` writes it anew with vectors, register
tiles, packed weights and tasks for threads.
"""
