"""A mixture of experts as a function that runs as it is: loops over scalars, one slot after the other."""

from __future__ import annotations

from collections.abc import Mapping

from tvm import tirx
from tvm.ir import Expr, Var

from dscc.schedule.code import Code, Flat, Index, index, quotient, remainder
from dscc.schedule.experts import formula
from dscc.schedule.experts.mixture import ATTRIBUTE, Mixture, Storage

_OPAQUE = 8  # TVM's pattern kind of what nothing is fused with: the rule knows the parameters by position


def define(mixture: Mixture) -> tirx.PrimFunc:
    """The function: `mixture.operands`, then the output; the number of tokens is symbolic."""
    tokens = Var("tokens", "int64")
    params = mixture.params(tokens)
    code = Code()
    _write(code, mixture, {name: code.view(param) for name, param in params.items()}, tokens)
    func = tirx.PrimFunc(list(params.values()), code.stmt())
    return func.with_attrs({ATTRIBUTE: mixture.text(), "op_pattern": _OPAQUE, "tirx.noalias": True})


def _write(code: Code, mixture: Mixture, at: Mapping[str, Flat], tokens: Var) -> None:
    top, out = mixture.top, mixture.out
    limit = mixture.limit(tokens * top)
    taken = code.heap("taken", mixture.experts, "int64")
    product, hidden = code.heap("product", mixture.columns), code.heap("hidden", mixture.inner)
    with code.loop(mixture.experts, "e") as e:
        taken.store(code, e, index(0))
    with code.loop(tokens, "t") as t:
        with code.loop(out, "o") as o:
            at["y"].store(code, t * out + o, tirx.const(0.0, "float32"))
        with code.loop(top, "j") as j:
            slot = code.bind("slot", t * top + j)
            expert = code.bind("expert", at["ids"].load(slot) - mixture.begin)
            with code.when(inside(expert, mixture)):
                before = code.bind("before", taken.load(expert))
                taken.store(code, expert, before + 1)
                with code.when(before < limit):
                    _Expert(code, mixture, at, expert, t, at["shares"].load(slot)).write(product, hidden)


def inside(expert: Expr, mixture: Mixture) -> Expr:
    """Whether the expert is one of those that the function knows."""
    return tirx.And(expert >= 0, expert < mixture.experts)


class _Expert:
    """What one expert makes of one token."""

    def __init__(self, code: Code, mixture: Mixture, at: Mapping[str, Flat], expert: Expr, token: Expr, share: Expr):
        self.code, self.mixture, self.at = code, mixture, at
        self.expert, self.token, self.share = expert, token, share

    def write(self, product: Flat, hidden: Flat) -> None:
        code, m, at = self.code, self.mixture, self.at

        def entered(k: Expr) -> Expr:
            value = at["x"].load(self.token * m.hidden + k)
            return formula.build(m.enter, {"x": value, "share": self.share})

        with code.loop(m.columns, "column") as column:
            self._sum("1", m.first, m.columns, m.hidden, column, entered, product)
        with code.loop(m.inner, "unit") as unit:
            values = {f"p{part}": product.load(part * m.inner + unit) for part in range(m.parts)}
            values |= {f"b{part}": self._bias("b1", m.columns, part * m.inner + unit) for part in range(m.parts)}
            hidden.store(code, unit, formula.build(m.middle, values))
        with code.loop(m.out, "o") as o:
            self._sum("2", m.second, m.out, m.inner, o, hidden.load, product, 0)
            values = {"p": product.load(0), "b": self._bias("b2", m.out, o), "share": self.share}
            place = code.bind("place", self.token * m.out + o)
            at["y"].store(code, place, at["y"].load(place) + formula.build(m.leave, values))

    def _bias(self, name: str, columns: int, column: Index) -> Expr:
        return self.at[name].load(self.expert * columns + column) if name in self.at else tirx.const(0.0, "float32")

    def _sum(
        self,
        number: str,
        storage: Storage,
        columns: int,
        depth: int,
        column: Expr,
        value: object,
        into: Flat,
        place: Index | None = None,
    ) -> None:
        """into[place] = sum over k of value(k) * W[expert, column, k]."""
        code = self.code
        where = column if place is None else index(place)
        into.store(code, where, tirx.const(0.0, "float32"))
        row = code.bind("row", self.expert * columns + column)
        with code.loop(depth, "k") as k:
            weight = element(self.at, number, storage, row, k, depth)
            into.store(code, where, into.load(where) + value(k) * weight)  # type: ignore[operator]


def element(at: Mapping[str, Flat], number: str, storage: Storage, row: Expr, k: Expr, depth: int) -> Expr:
    """Element k of a row of the weight `number`, as float32."""
    stored = at[f"w{number}"].load(row * storage.stored(depth) + quotient(k, storage.per))
    if not storage.coded:
        return storage.real(stored)
    code = tirx.Cast("int32", stored)
    if storage.per > 1:
        shift = tirx.Cast("int32", remainder(k, storage.per)) * storage.bits
        code = tirx.bitwise_and(tirx.shift_right(code, shift), tirx.const(2**storage.bits - 1, "int32"))
    group = row * storage.blocks(depth) + (quotient(k, storage.block) if storage.block else 0)
    zero = at[f"z{number}"].load(group) if f"z{number}" in at else tirx.const(float(storage.zero), "float32")
    return (tirx.Cast("float32", code) - zero) * at[f"s{number}"].load(group)
