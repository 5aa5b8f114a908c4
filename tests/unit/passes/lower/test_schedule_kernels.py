"""What happens around the rules: equal functions become one, constants are packed once, and numbers stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax, tirx

from dscc import targets
from dscc.errors import PassError
from dscc.passes.base import PassContext
from dscc.passes.lower.fuse_operators import FuseOperators
from dscc.passes.lower.legalize_operators import LegalizeOperators
from dscc.passes.lower.lift_constants import lift_constants
from dscc.passes.lower.schedule_kernels import ScheduleKernels
from dscc.schedule.base import Packing, Rule, Scheduled


@dataclass(frozen=True)
class Reversed(Packing):
    """Columns in reverse; counts how often it is asked."""

    calls: list[int] = field(default_factory=list, compare=False, hash=False)

    def pack(self, weight: np.ndarray) -> np.ndarray:
        self.calls.append(1)
        return weight[..., ::-1]


class PackEverything(Rule):
    """Takes any function and asks for every constant in reverse, which is enough to see where it arrives."""

    name = "pack-everything"

    def __init__(self) -> None:
        self.asked: list[frozenset[int]] = []
        self.packing = Reversed()

    def apply(self, func: tirx.PrimFunc, constants: frozenset[int], *_: object) -> Scheduled | None:
        self.asked.append(constants)
        return Scheduled(func, MappingProxyType(dict.fromkeys(constants, self.packing)))


class Refuse(Rule):
    name = "refuse"

    def apply(self, func: tirx.PrimFunc, constants: frozenset[int], *_: object) -> Scheduled | None:
        return None


class FakeTarget:
    """This machine with rules of the test's own."""

    spells_out_math = True

    def __init__(self, *rules: Rule) -> None:
        self.rules = rules
        self.host = self
        self.tvm_target = targets.resolve(None).tvm_target
        self.machine = targets.resolve(None).machine

    def __str__(self) -> str:
        return "fake:cpu"


def two_products(weight_a: np.ndarray, weight_b: np.ndarray) -> tvm.IRModule:
    """x @ a + x @ b: two calls of one function with different constants."""
    builder = relax.BlockBuilder()
    a, b = relax.const(weight_a), relax.const(weight_b)
    x = relax.Var("x", relax.TensorType((tirx.Var("n", "int64"), weight_a.shape[0]), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            left = builder.emit(relax.op.matmul(x, a))
            right = builder.emit(relax.op.matmul(left, b))
            again = builder.emit(relax.op.matmul(right, a))
            out = builder.emit_output(relax.Tuple([again]))
        builder.emit_func_output(out)
    return builder.finalize()


def lower(mod: tvm.IRModule, *rules: Rule) -> tuple[tvm.IRModule, PassContext]:
    ctx = PassContext(FakeTarget(*rules))  # type: ignore[arg-type]
    for each in (LegalizeOperators(), FuseOperators(), ScheduleKernels()):
        mod = each.run(mod, ctx)
    return mod, ctx


def kernels(mod: tvm.IRModule) -> Mapping[str, tirx.PrimFunc]:
    return {gvar.name_hint: func for gvar, func in mod.functions.items() if isinstance(func, tirx.PrimFunc)}


def test_equal_functions_are_scheduled_once_and_each_constant_is_packed_once() -> None:
    a, b = (np.arange(9, dtype="float32").reshape(3, 3) + shift for shift in (0, 100))
    rule = PackEverything()
    mod, _ = lower(two_products(a, b), rule)
    assert len(kernels(mod)) == 1
    assert rule.asked == [frozenset({1})]
    assert len(rule.packing.calls) == 2
    weights = list(lift_constants(mod).weights.values())
    np.testing.assert_array_equal(weights[0], a[:, ::-1])
    np.testing.assert_array_equal(weights[1], b[:, ::-1])
    assert len(weights) == 2


def test_a_remark_names_the_rule() -> None:
    _, ctx = lower(two_products(np.eye(3, dtype="float32"), np.eye(3, dtype="float32")), Refuse(), PackEverything())
    assert ctx.remarks == ["schedule-kernels: matmul: pack-everything"]


def test_a_function_that_no_rule_takes_is_an_error() -> None:
    with pytest.raises(PassError, match="no rule of target 'fake:cpu' takes a function"):
        lower(two_products(np.eye(3, dtype="float32"), np.eye(3, dtype="float32")), Refuse())


def test_constants_become_parameters_behind_the_inputs() -> None:
    a = np.arange(9, dtype="float32").reshape(3, 3)
    mod, _ = lower(two_products(a, a + 1), PackEverything())
    lifted = lift_constants(mod)
    main = lifted.mod["main"]
    assert [param.name for param in main.params] == ["x", "weight_0", "weight_1"]
    assert int(main.attrs["num_input"]) == 1
    assert list(lifted.weights) == ["weight_0", "weight_1"]


def windows(channels: int, *levels: tuple[str, str] | int, weights: int = 1) -> tvm.IRModule:
    """3x3 convolutions with `channels` inputs and outputs, of square images (56 x 56 if none are given) or of open
    sizes; with one weight, or `weights` of them in turns.
    """
    builder = relax.BlockBuilder()
    dims = [
        [level, level] if isinstance(level, int) else [tirx.Var(name, "int64") for name in level]
        for level in levels or (56,)
    ]
    images = [relax.Var(f"x{i}", relax.TensorType((1, *dim, channels), "float32")) for i, dim in enumerate(dims)]
    rng = np.random.default_rng(0)
    given = [relax.const(rng.standard_normal((channels, 3, 3, channels)).astype("float32")) for _ in range(weights)]
    layouts = {"data_layout": "NHWC", "kernel_layout": "OHWI", "out_layout": "NHWC"}

    def level(number: int, x: relax.Expr) -> relax.Expr:
        return relax.op.nn.conv2d(x, given[number % weights], padding=(1, 1, 1, 1), **layouts)

    with builder.function("main", images):
        with builder.dataflow():
            made = [builder.emit(level(number, x)) for number, x in enumerate(images)]
            out = builder.emit_output(relax.Tuple(made))
        builder.emit_func_output(out)
    return builder.finalize()


@pytest.mark.parametrize(
    ("channels", "small", "growth"), [(64, False, 4), (64, True, 1), (256, False, 1)], ids=["more", "small", "budget"]
)
def test_larger_weights_are_stored_within_a_budget(channels: int, small: bool, growth: int) -> None:
    ctx = PassContext(targets.resolve(None))
    mod = windows(channels)
    for each in (LegalizeOperators(), FuseOperators(), ScheduleKernels(small=small)):
        mod = each.run(mod, ctx)
    (weight,) = lift_constants(mod).weights.values()
    assert weight.nbytes == growth * 4 * 9 * channels**2
    assert ctx.facts.get("bytes_added_by_packing", 0) == (growth - 1) * 4 * 9 * channels**2


@pytest.mark.parametrize(
    "levels", [[("a", "b"), ("c", "d"), ("e", "f"), ("g", "h")], [80, 40, 32]], ids=["open", "known"]
)
def test_a_larger_weight_that_several_calls_share_is_stored_once(levels: list[Any]) -> None:
    """As that of a detector's head, on levels of several sizes: its growth counts once."""
    ctx = PassContext(targets.resolve(None))
    mod = windows(64, *levels)
    for each in (LegalizeOperators(), FuseOperators(), ScheduleKernels()):
        mod = each.run(mod, ctx)
    (weight,) = lift_constants(mod).weights.values()
    assert weight.nbytes == 4 * 4 * 9 * 64**2
    assert ctx.facts["bytes_added_by_packing"] == 3 * 4 * 9 * 64**2


def test_the_budget_goes_where_a_byte_saves_the_most() -> None:
    """To the larger image: both weights are as large."""
    ctx = PassContext(targets.resolve(None))
    mod = windows(96, 14, 56, weights=2)
    for each in (LegalizeOperators(), FuseOperators(), ScheduleKernels()):
        mod = each.run(mod, ctx)
    assert ctx.facts["bytes_added_by_packing"] == 3 * 4 * 9 * 96**2
    rules = {int(func.params[0].shape[1]): str(func.attrs["dscc.rule"]) for func in kernels(mod).values()}
    assert rules == {14: "conv", 56: "winograd"}
