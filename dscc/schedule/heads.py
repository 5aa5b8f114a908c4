"""What kernels of attention read and write: one head of one item of the batch, in the layout that legalization gives.

    q: (batch, queries, heads, size)    k: (batch, keys, groups, size)    v: (batch, keys, groups, value size)
                                        or (batch, groups, keys, size)       or (batch, groups, keys, value size)
    bias: (batch or 1, heads or 1, queries or 1, keys)    out: (batch, queries, heads, value size)

See dscc/passes/lower/legalize/attention.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.code import Code, Index, constant, index, product, quotient

LOWEST = -3.4028234663852886e38  # the score of a key that a query does not see


@dataclass(frozen=True)
class Lines:
    """Where a head's rows begin, and the step from one to the next."""

    base: Expr
    step: int

    def at(self, row: Expr, element: Index) -> Expr:
        return self.base + row * self.step + index(element)


@dataclass(frozen=True)
class Head:
    """The lines of one head, or of the group that it reads."""

    item: Expr
    head: Expr
    query: Lines
    key: Lines
    value: Lines
    out: Lines


class Heads:
    """A function with the attribute `dscc.attention`, whose heads have known sizes."""

    def __init__(self, func: tirx.PrimFunc):
        params = [p for p in func.params if tirx.is_buffer_var(p)]
        q, k, v = params[:3]
        self.params = params
        self.stored = str(func.attrs["dscc.attention.stored"])
        groups, self.keys = (k.shape[1], k.shape[2]) if "k" in self.stored else (k.shape[2], k.shape[1])
        self.batch, self.queries = q.shape[0], q.shape[1]
        self.heads, self.groups = int(q.shape[2]), int(groups)
        self.size, self.value_size = int(q.shape[3]), int(v.shape[3])
        self.dtype = str(q.dtype)
        self.scale = float(func.attrs["dscc.attention.scale"].value)
        causal = str(func.attrs["dscc.attention.causal"])
        offset = index(0) if causal == "TopLeft" else tirx.abs(index(self.keys) - index(self.queries))
        self.offset = offset if causal else None  # query i sees the keys up to i plus this; None: all of them

    @staticmethod
    def of(func: tirx.PrimFunc) -> Heads | None:
        """What `func` computes, if it is attention over tensors of one type and heads of known sizes."""
        if not func.attrs or "dscc.attention" not in func.attrs:
            return None
        params = [p for p in func.params if tirx.is_buffer_var(p)]
        stored = str(func.attrs["dscc.attention.stored"])
        first = [1 if name in stored else 2 for name in "qkv"]
        shapes = zip((*params[:3], params[-1]), (*first, 2), strict=True)
        sizes = [constant(n) for p, heads in shapes for n in (p.shape[heads], p.shape[3])]
        same = all(str(p.dtype) == str(params[0].dtype) for p in params)
        return Heads(func) if same and all(n is not None for n in sizes) else None

    def head(self, code: Code, item: Expr, head: Expr) -> Head:
        """Where the rows of head `head` of `item` are."""
        group = head if self.heads == self.groups else quotient(head, self.heads // self.groups)

        def lines(length: Index, heads: int, size: int, number: Expr, name: str = "") -> Lines:
            stored = bool(name) and name in self.stored
            step = size if stored else heads * size
            head = number * index(product([length, size])) if stored else number * size
            return Lines(code.bind("base", item * index(product([length, heads * size])) + head), step)

        return Head(
            item,
            head,
            query=lines(self.queries, self.heads, self.size, head),
            key=lines(self.keys, self.groups, self.size, group, "k"),
            value=lines(self.keys, self.groups, self.value_size, group, "v"),
            out=lines(self.queries, self.heads, self.value_size, head),
        )

    @property
    def biased(self) -> bool:
        """Whether something is added to the scores."""
        return len(self.params) == 5

    def bias_at(self, head: Head, query: Expr, key: Expr) -> Expr:
        """Where in the bias, seen as one-dimensional, what is added to a score is."""
        batches, heads, rows, keys = self.params[3].shape
        at = key
        at = at if constant(rows) == 1 else at + query * index(keys)
        at = at if constant(heads) == 1 else at + head.head * index(product([rows, keys]))
        return at if constant(batches) == 1 else at + head.item * index(product([heads, rows, keys]))

    def seen(self, query: Expr) -> Expr:
        """How many keys a query takes into account: the first ones."""
        keys = index(self.keys)
        return keys if self.offset is None else tirx.min(keys, query + self.offset + 1)
