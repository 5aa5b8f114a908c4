"""Which slot goes to which expert: slots sorted by expert, in the order of the tokens, by counting."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr

from dscc.schedule.code import Code, Flat, index
from dscc.schedule.experts.define import inside
from dscc.schedule.experts.mixture import Mixture


@dataclass(frozen=True)
class Routes:
    """The slots of expert e are `order[start[e]]` to before `order[start[e + 1]]`.

    Attributes:
        slots: how many there are at most.
        kept: how many there are: not those of experts elsewhere, nor those beyond an expert's capacity.
    """

    start: Flat
    order: Flat
    slots: Expr
    kept: Expr


def write_routes(code: Code, mixture: Mixture, ids: Flat, slots: Expr) -> Routes:
    """Count, add up, place."""
    experts, limit = mixture.experts, mixture.limit(slots)
    start, free = code.heap("start", experts + 1, "int64"), code.heap("free", experts + 1, "int64")
    order = code.heap("order", slots + 1, "int64")
    with code.loop(experts + 1, "e") as e:
        free.store(code, e, index(0))
    with code.loop(slots, "s") as s:
        e = code.bind("expert", ids.load(s) - mixture.begin)
        with code.when(inside(e, mixture)):
            free.store(code, e, free.load(e) + 1)
    start.store(code, 0, index(0))
    with code.loop(experts, "e") as e:
        begin = code.bind("begin", start.load(e))
        start.store(code, e + 1, begin + tirx.min(free.load(e), limit))
        free.store(code, e, begin)
    with code.loop(slots, "s") as s:
        e = code.bind("expert", ids.load(s) - mixture.begin)
        with code.when(inside(e, mixture)):
            place = code.bind("place", free.load(e))
            with code.when(place < start.load(e + 1)):
                order.store(code, place, s)
                free.store(code, e, place + 1)
    return Routes(start, order, slots, code.bind("kept", start.load(experts)))
