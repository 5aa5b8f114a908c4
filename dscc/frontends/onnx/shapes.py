"""Arithmetic on dimensions that may be symbolic, and the checks that a shape needs when it runs.

TVM proves what it can about shapes and checks nothing else: a Reshape to another number of elements reads out of
bounds. So every equation that cannot be proved here becomes a `match_cast` of a shape, which the virtual machine
checks before the kernels run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.sym import Analyzer

from dscc import named_sizes
from dscc.frontends.onnx.values import Dim, plain, static

# The bound of every symbol: so `x[:1000000000]`, as some exporters write it, is seen to be all of x.
MAX_DIM = 10**9
# Further than any dimension reaches. TVM 0.27 multiplies bounds without regard to their range: for a, b from 1 to
# MAX_DIM, `Analyzer.can_prove(a * (b + 1) // 4 >= 2**62)` is True, as 4 * 2**62 is 0 in 64 bits.
_FAR = 2**48


_TRIED = (2, 3, 4, 6, 8, 9, 16, 30, 64, 99, 1024)


class Dims:
    """Dimension arithmetic under what is known of the model's symbols.

    Attributes:
        counted_on: the symbols of which it was made use that they are not 0: shapes may be other ones where they are.
    """

    def __init__(self) -> None:
        self._analyzer = Analyzer()
        self._from_zero = Analyzer()  # knows of no symbol that it is at least 1
        self._names: set[str] = set()
        self._least: dict[tirx.Var, int] = {}  # of every symbol
        self.counted_on: set[tirx.Var] = set()
        self._named: list[tuple[tvm.ir.Expr, tirx.Var]] = []  # computed dimensions, and the symbols that stand for them

    def symbol(self, name: str, minimum: int = 1) -> tirx.Var:
        """A new symbolic dimension, called `name` unless that is taken."""
        unique, count = name, 0
        while unique in self._names:
            count += 1
            unique = f"{name}_{count}"
        self._names.add(unique)
        var = tirx.Var(unique, "int64")
        self._bind(var, minimum)
        self._from_zero.bind(var, tvm.ir.Range(min(minimum, 0), MAX_DIM))
        return var

    def _bind(self, var: tirx.Var, minimum: int) -> None:
        self._least[var] = minimum
        self._analyzer.bind(var, tvm.ir.Range(minimum, MAX_DIM), allow_override=True)

    def learn(self, dim: Dim, minimum: int) -> None:
        """Take dim >= minimum for granted from here on, where dim is a symbol plus a number: a check has just been
        written that refuses anything else when the model runs.
        """
        found = symbols(dim)
        if len(found) != 1 or found[0] not in self._least:
            return
        rest = static(self.simplify(dim - found[0]))
        if rest is not None and minimum - rest > self._least[found[0]]:
            self._bind(found[0], minimum - rest)

    def name(self, dim: tvm.ir.Expr, name: str) -> tuple[tirx.Var, bool]:
        """The symbol that stands for a computed dimension, the same wherever it is computed again, and whether it is a
        new one, called `name`.
        """
        for value, symbol in self._named:
            if _is_same(value, dim):
                return symbol, False
        symbol = self.symbol(name, 0)
        self._named.append((dim, symbol))
        return symbol, True

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What is learned inside holds inside: the checks of a region are made only when it is called."""
        before, named_before = dict(self._least), len(self._named)
        try:
            yield
        finally:
            del self._named[named_before:]
            for var, minimum in before.items():
                if self._least[var] != minimum:
                    self._bind(var, minimum)

    @property
    def names(self) -> frozenset[str]:
        """The names of all symbols that there are now."""
        return frozenset(self._names)

    def signed_symbol(self, name: str) -> tirx.Var:
        """A new symbol of which nothing is known, not even its sign: an index that the model computes."""
        return self.symbol(name, -MAX_DIM)

    def simplify(self, dim: Dim) -> Dim:
        if isinstance(dim, tvm.ir.Expr):
            simple = self._analyzer.simplify(dim)
            written = self._as_floors(simple)
            return plain(simple if written is simple else self._analyzer.simplify(written))
        return int(dim)

    def _as_floors(self, dim: tvm.ir.Expr) -> tvm.ir.Expr:
        """Divisions as those by positive numbers that round down: `n % -4` as `n - (n + 3) // 4 * 4`, `n // -4` as
        `-((n + 3) // 4)`, and those that round towards zero where nothing is negative, which may have been learned
        since they were written. `dim` itself where there is none.

        TVM 0.27 makes `n % -4 * -1` of `(4 - n % 4) % 4`, which is how windows are filled up, and does not see through
        it: where a network does so a few times one after the other, sizes doubled each time.
        """
        changed = False

        def floor(node: Any) -> Any:
            nonlocal changed
            by = static(node.b)
            if by is None or by >= 0:
                return node
            changed, rounded_up = True, tirx.floordiv(node.a - (by + 1), int64(-by))
            return node.a + rounded_up * by if isinstance(node, tirx.FloorMod) else rounded_up * -1

        def down(node: tirx.Div) -> Any:
            nonlocal changed
            if "int" not in str(node.ty.dtype) or not (self.at_least(node.a, 0) and self.at_least(node.b, 1)):
                return node
            changed = True
            return tirx.floordiv(node.a, node.b)

        written = tvm_ffi.structural_map(dim, [((tirx.FloorMod, tirx.FloorDiv), floor), (tirx.Div, down)])
        return written if changed else dim

    def equal(self, a: Dim, b: Dim) -> bool:
        """Whether a == b is proved."""
        if static(a) is not None and static(b) is not None:
            return static(a) == static(b)
        return bool(self._analyzer.can_prove_equal(int64(a), int64(b)))

    def differ(self, a: Dim, b: Dim) -> bool:
        """Whether two dimensions are computed from the same symbols and differ wherever they are tried and not 1."""
        used = [set(symbols(dim)) for dim in (a, b)]
        if not used[0] or used[0] != used[1]:
            return False
        for size in _TRIED:
            left, right = (static(self.simplify(_with_size(dim, size))) for dim in (a, b))
            if left is None or (left == right and left != 1):
                return False
        return True

    def proved(self, condition: Any) -> bool:
        return bool(condition) if isinstance(condition, bool | int) else self._holds(condition)

    def at_least(self, a: Dim, b: Dim, decides: bool = True) -> bool:
        """Whether a >= b is proved. `decides`: whether a shape depends on the answer, not just whether to check."""
        if static(a) is not None and static(b) is not None:
            return int(a) >= int(b)
        return self._holds(int64(a) >= int64(b), decides)

    def _holds(self, condition: tvm.ir.Expr, decides: bool = True) -> bool:
        if not self._analyzer.can_prove(condition):
            return False
        if decides and not self._from_zero.can_prove(condition):
            self.counted_on.update(symbols(condition))
        return True

    def product(self, dims: Iterable[Dim]) -> Dim:
        return self.simplify(math.prod(dims, start=1))

    def minimum(self, a: Dim, b: Dim, decides: bool = True) -> Dim:
        if self.at_least(b, a, decides):
            return a
        return b if self.at_least(a, b, decides) else self.simplify(tirx.min(int64(a), int64(b)))

    def maximum(self, a: Dim, b: Dim) -> Dim:
        if self.at_least(a, b):
            return a
        return b if self.at_least(b, a) else self.simplify(tirx.max(int64(a), int64(b)))

    def clamp(self, x: Dim, low: Dim, high: Dim) -> Dim:
        return self.minimum(self.maximum(x, low), high)

    def ceildiv(self, a: Dim, b: Dim) -> Dim:
        return self.simplify((a + b - 1) // b)

    def floordiv(self, a: Dim, b: Dim) -> Dim:
        return self.simplify(a // b)

    def cancelled(self, over: Iterable[Dim], under: Iterable[Dim]) -> tuple[Dim, Dim]:
        """The products of both, less the factors that they share. TVM does not see `a * (b + c) // (8 * b + 8 * c)`."""
        above, below = [self.simplify(dim) for dim in over], []
        for dim in map(self.simplify, under):
            match = next((i for i, other in enumerate(above) if self.equal(other, dim)), None)
            if match is None:
                below.append(dim)
            else:
                del above[match]
        return self.product(above), self.product(below)

    def wrapped(self, index: Dim, size: Dim) -> Dim:
        """An index counted from the end if it is negative; one that is far outside is just outside."""
        number = static(index)
        if number is not None and abs(number) >= _FAR:  # the standard's way to say "to the end"
            return size if number > 0 else -1
        if self.at_least(index, 0):
            return index
        if number is not None:
            return self.simplify(index + size)
        return self.simplify(tirx.Select(int64(index) < 0, index + size, int64(index)))


def int64(dim: Dim) -> tvm.ir.Expr:
    """A dimension as an expression; TVM would make a Python int an int32, which compares with no int64."""
    return dim if isinstance(dim, tvm.ir.Expr) else tirx.IntImm("int64", int(dim))


def symbols(dim: Dim) -> list[tirx.Var]:
    """The symbols that a dimension mentions, each as often as it does."""
    found: list[tirx.Var] = []
    if isinstance(dim, tvm.ir.Expr):
        tvm_ffi.structural_walk(dim, (tirx.Var, found.append))
    return found


def _with_size(dim: Dim, size: int) -> Dim:
    """A dimension where each symbol is `size`."""
    number = tirx.IntImm("int64", size)
    return tvm_ffi.structural_map(dim, (tirx.Var, lambda var: number)) if isinstance(dim, tvm.ir.Expr) else dim


def equals(a: Dim, b: Dim) -> tvm.ir.Expr:
    """a == b as a condition for a kernel or a dimension."""
    return tirx.EQ(int64(a), int64(b))


def shape_expr(dims: Sequence[Dim]) -> relax.ShapeExpr:
    return relax.ShapeExpr([int64(dim) for dim in dims])


def reshaped(x: relax.Expr, dims: Sequence[Dim]) -> relax.Call:
    """`x` in the shape `dims`, of as many elements.

    Relax's `reshape` of TVM 0.27 takes a 0 for what a 0 says in ONNX: as in the input. Of (n, 0) it makes (n,) when
    asked for (0,); so the call is put together here.
    """
    return relax.Call(tvm.ir.Op.get("relax.reshape"), [x, shape_expr(dims)])


def require_equal(builder: relax.BlockBuilder, dims: Dims, actual: Dim, expected: Dim) -> bool:
    """Check actual == expected, now if it can be decided, else when the model runs. False: they are known to differ.

    TVM 0.27 crashes in KillAfterLastUse on a `match_cast` to a lone symbol that is already defined, as in
    `R.Shape([n])`. So the side that is not one becomes the pattern, and two lone symbols are compared doubled.
    """
    if dims.equal(actual, expected):
        return True
    if static(actual) is not None and static(expected) is not None:
        return False
    left, right = int64(actual), int64(expected)
    if isinstance(right, tirx.Var):
        left, right = (left * 2, right * 2) if isinstance(left, tirx.Var) else (right, left)
    # VMShapeLower of TVM 0.27 computes what a pattern mentions, but not what the matched value does ("it !=
    # slot_map_.end()"); so the value stands in the pattern too, where it equals itself.
    builder.match_cast(relax.ShapeExpr([left, left]), relax.ShapeType([right, left]))
    return True


def named(builder: relax.BlockBuilder, dims: Dims, dim: Dim, name: str) -> Dim:
    """A symbol that has the value of a computed dimension."""
    symbol, is_new = dims.name(dim, name)
    if is_new:
        named_sizes.bind(builder, symbol, int64(dim))
    return symbol


def restate(builder: relax.BlockBuilder, dims: Dims, x: relax.Expr, shape: Sequence[Dim]) -> relax.Expr | None:
    """x with its dimensions stated as `shape`, checked when the model runs where they cannot be proved; None: they
    are known to differ.
    """
    # The `n - 1 + 1` of a concatenation becomes a lone symbol sooner or later.
    lone = [(dim, dims.simplify(dim)) for dim in shape]
    shape = [simple if isinstance(simple, tirx.Var) else dim for dim, simple in lone]
    # What is equal but written otherwise is stated too: TVM's own types, as of a concatenation, prove less than `dims`.
    pairs = [(dim, wanted) for dim, wanted in zip(x.ty.shape.values, shape, strict=True) if not _is_same(dim, wanted)]
    if any(static(dim) is not None and static(wanted) is not None for dim, wanted in pairs):
        return None
    if not pairs:
        return x
    # CanonicalizeBindings of TVM 0.27 puts a constant in the place of its match_cast, and the shape is lost.
    if isinstance(x, relax.Var) and not any(isinstance(wanted, tirx.Var) for _, wanted in pairs):
        return builder.match_cast(x, relax.TensorType(shape_expr(shape), str(x.ty.dtype)))
    for dim, wanted in pairs:  # a match_cast to a lone symbol would crash: see `require_equal`
        require_equal(builder, dims, dim, wanted)
    return builder.emit(reshaped(x, shape))


def _is_same(a: Dim, b: Dim) -> bool:
    return bool(tvm_ffi.structural_equal(int64(a), int64(b)))


def is_bare(dim: Dim) -> bool:
    """Whether a dimension is a number or a symbol of its own rather than computed from others."""
    return static(dim) is not None or isinstance(dim, tirx.Var)
