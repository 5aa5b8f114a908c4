"""Functions that work row by row, as sweeps over one row: softmax, normalisations, reductions with what is fused.

All reductions of such a function keep the same axes; one index of the kept axes is a row, and the reduced axes are
swept several times while the row is in cache. What TVM hands over as a sequence of blocks over whole tensors

    m[i] = max_k x[i, k];  e[i, k] = exp(x[i, k] - m[i]);  s[i] = sum_k e[i, k];  y[i, k] = e[i, k] / s[i]

becomes, for every i:

    sweep k:  m = max(x[k])
    sweep k:  e = exp(x[k] - m);  y[k] = e;  s = sum(e)
    sweep k:  y[k] = y[k] * (1 / s)

Cheap elementwise stages are computed anew in every sweep that reads them; costly ones are kept in the place of an
output of the same shape, or in scratch memory of one row. Blocks are recognised by what they read and write, never by
name.
"""
