"""Mixtures of experts: tokens sorted by expert, weights in panels, products in register tiles; see experts/writer.py.

Weights that are no constants, or whose blocks end within a byte, leave the function as it is.
"""

from __future__ import annotations

from typing import ClassVar

from tvm import tirx

from dscc.schedule.base import Packing, Rule, Scheduled
from dscc.schedule.code import Code, Flat, index
from dscc.schedule.codes.digits import COUNT
from dscc.schedule.decisions import Decisions
from dscc.schedule.experts.mixture import ATTRIBUTE, Mixture, Storage
from dscc.schedule.experts.panels import ExpertPacking, Panels, choose
from dscc.schedule.experts.tiles import Weight, multiplied, word_bits
from dscc.schedule.experts.writer import Plan, Writer
from dscc.schedule.machine import Machine

_TASK_FLOPS = (1_000_000, 250_000, 4_000_000)


class Experts(Rule):
    """Functions that carry the attribute `dscc.experts`; see dscc/schedule/experts/mixture.py."""

    name: ClassVar[str] = "experts"

    def apply(
        self, func: tirx.PrimFunc, constants: frozenset[int], machine: Machine, decisions: Decisions
    ) -> Scheduled | None:
        if not func.attrs or ATTRIBUTE not in func.attrs:
            return None
        mixture = Mixture.of(str(func.attrs[ATTRIBUTE]))
        names = [*mixture.operands, "y"]
        packed = [name for name in names if name[0] in "wsz" and name[1:].isdigit()]
        whole = all(s.block * s.bits % 8 == 0 for s in (mixture.first, mixture.second))
        if not whole or any(names.index(name) not in constants for name in packed):
            return Scheduled(func)
        params = dict(zip(names, func.params, strict=True))
        tokens = func.params[0].shape[0]
        packings: dict[int, Packing] = {}
        code = Code()
        given = {name: code.view(param) for name, param in params.items() if name not in packed}

        def weight(number: int, panels: Panels, depth: int, storage: Storage) -> Weight:
            made = Weight(panels, depth, storage, given["x"])
            word = f"int{word_bits(storage, depth)}" if storage.coded else storage.dtype
            dot = multiplied(machine, storage, depth)
            views: dict[str, Flat | None] = {}
            for kind, stored in (("w", made.reach // made.per), ("s", made.blocks), ("z", made.blocks)):
                name = f"{kind}{number}"
                if name not in params:
                    views[kind] = None
                    continue
                shape = (mixture.experts, panels.count, stored, panels.width)
                dtype = word if kind == "w" else "float32"
                params[name] = tirx.decl_buffer([index(n) for n in shape], dtype, name)
                bits = storage.bits if kind == "w" and dot is not None else 0
                packings[names.index(name)] = ExpertPacking(panels, stored, dtype, bits)
                views[kind] = code.view(params[name])
            codes = views["w"]
            assert codes is not None  # a mixture has both weights
            return Weight(panels, depth, storage, codes, views["s"], views["z"], dot)

        def panels(parts: int, units: int, depth: int, storage: Storage) -> Panels:
            registers = 1 if multiplied(machine, storage, depth) is None else COUNT + 1
            return choose(machine, parts, units, registers)

        sides = (mixture.hidden, mixture.first), (mixture.inner, mixture.second)
        first = weight(1, panels(mixture.parts, mixture.inner, *sides[0]), *sides[0])
        second = weight(2, panels(1, mixture.out, *sides[1]), *sides[1])
        plan = Plan(decisions.pick("task_flops", _TASK_FLOPS))
        Writer(code, mixture, given, first, second, tokens, plan).write()
        scheduled = tirx.PrimFunc(list(params.values()), code.stmt(), func.ret_type, func.attrs)
        return Scheduled(scheduled, packings)
