"""Products with weights of few bits against NumPy in double precision, with every instruction that this machine has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import tvm
from tvm import te, tirx

from dscc import targets
from dscc.passes.lower import fuse_weight_casts
from dscc.schedule.base import Rule
from dscc.schedule.codes.define import FLOAT_BITS, HALF_BITS, Packed, compact, pack
from dscc.schedule.decisions import Decisions
from dscc.schedule.machine import Machine
from dscc.schedule.rules.matmul import Matmul
from dscc.schedule.rules.matmul_codes import MatmulCodes

from ..modules import on_this_machine

HOST, RULE = targets.resolve(None), MatmulCodes()
MACHINES = {
    "ssse3": Machine(features=frozenset({"sse3", "ssse3"})),
    "avx2": Machine(256, 16, features=frozenset({"sse3", "ssse3", "avx2"})),
    "avx512": Machine(512, 32, embedded_broadcast=True, features=frozenset({"sse3", "avx2", "avx512bw"})),
    "vnni": Machine(512, 32, embedded_broadcast=True, features=frozenset({"avx512bw", "avx512vnni"})),
    "neon": Machine(128, 32, features=frozenset({"dotprod"})),
}
RNG = np.random.default_rng(7)
TOLERANCE = 2e-6  # of the largest sum of absolute products


@pytest.fixture(params=MACHINES)
def machine(request) -> Machine:
    return on_this_machine(MACHINES[request.param])


def placeholder(shape: Sequence, dtype: str, name: str) -> te.Tensor:
    """With sizes of int64, as Relax has them."""
    return te.placeholder([tirx.const(d, "int64") if isinstance(d, int) else d for d in shape], dtype, name)


def compiled(func: tirx.PrimFunc, constants: int, machine: Machine, rule: Rule = RULE) -> Callable[..., np.ndarray]:
    """`run(data, *constants)` of a function of float32."""
    plan = rule.apply(func, frozenset(range(1, 1 + constants)), machine, Decisions())
    assert plan is not None, f"refused:\n{func.script()}"
    ready = plan.func.with_attr("tirx.is_scheduled", True).with_attr("global_symbol", "kernel")
    library = tvm.compile(tvm.IRModule({"kernel": ready}), HOST.tvm_target)
    columns = int(func.params[-1].shape[-1])

    def run(*arrays: np.ndarray) -> np.ndarray:
        packed = [plan.packings[i].pack(a) if i in plan.packings else a for i, a in enumerate(arrays)]
        out = tvm.runtime.tensor(np.full((*arrays[0].shape[:-1], columns), 77, "float32"))
        library["kernel"](*(tvm.runtime.tensor(np.require(a, requirements="C")) for a in packed), out)
        return out.numpy()

    return run


def product(weight: Packed, rows: Sequence, row_bits: int = FLOAT_BITS) -> tirx.PrimFunc:
    data = placeholder([*rows, weight.depth], "float32", "x")
    given = [placeholder(array.shape, str(array.dtype), f"w{i}") for i, array in enumerate(weight.arrays)]
    return te.create_prim_func([data, *given, weight.product(row_bits)(data, *given)])


def random(bits: int, depth: int, columns: int, block: int, zeros: str, scales: str = "float32") -> tuple:
    """A weight, and its elements as numbers of double precision."""
    codes = RNG.integers(0, 2**bits, (depth, columns)).astype(np.uint8)
    shape = (-(-depth // block), columns)
    factors = (RNG.random(shape) + 0.5).astype(scales)
    zero = {
        "none": np.zeros(shape),
        "same": np.full(shape, 2.0 ** (bits - 1)),
        "bytes": RNG.integers(0, 2**bits, shape),
        "floats": RNG.random(shape) * 2**bits,
    }[zeros].astype("float32")
    whole = np.repeat(zero, block, 0)[:depth], np.repeat(factors, block, 0)[:depth]
    return Packed(depth, bits, block, pack(codes, bits), factors, compact(zero)), (
        codes - whole[0].astype("float64")
    ) * whole[1].astype("float64")


def check(got: np.ndarray, x: np.ndarray, weight: np.ndarray, tolerance: float = TOLERANCE) -> None:
    wide = x.astype("float64")
    largest = (np.abs(wide) @ np.abs(weight)).max(initial=0)
    np.testing.assert_allclose(got, wide @ weight, atol=tolerance * largest, rtol=0)


@pytest.mark.parametrize(("bits", "zeros"), [(4, "same"), (4, "bytes"), (4, "floats"), (2, "none"), (8, "bytes")])
@pytest.mark.parametrize(("depth", "columns", "block"), [(16, 1, 16), (72, 33, 16), (200, 47, 64), (1030, 20, 512)])
def test_products_with_symbolic_rows(
    machine: Machine, bits: int, zeros: str, depth: int, columns: int, block: int
) -> None:
    if bits == 8 and "avx512vnni" not in machine.features and "dotprod" not in machine.features:
        pytest.skip("pairs of products with bytes do not fit 16 bits")
    weight, numbers = random(bits, depth, columns, block, zeros)
    run = compiled(product(weight, [te.var("n", "int64")]), len(weight.arrays), machine)
    for rows in (1, 2, 3, 4, 5, 7, 13):
        x = RNG.standard_normal((rows, depth)).astype("float32")
        check(run(x, *weight.arrays), x, numbers)


@pytest.mark.parametrize(("depth", "columns", "block"), [(16, 1, 16), (200, 47, 64), (1030, 20, 512)])
def test_rows_of_fewer_bits(machine: Machine, depth: int, columns: int, block: int) -> None:
    """More precise than halves, of numbers of any size; what is no number stays none."""
    weight, numbers = random(4, depth, columns, block, "bytes")
    run = compiled(product(weight, [te.var("n", "int64")], HALF_BITS), len(weight.arrays), machine)
    for rows in (1, 2, 3, 4, 5, 9):
        for factor in (1.0, 1e30, 1e-30):
            x = (RNG.standard_normal((rows, depth)) * factor).astype("float32")
            check(run(x, *weight.arrays), x, numbers, 2.0**-HALF_BITS / 20)
        x[0, depth // 2], x[rows // 2, 0] = np.nan, -np.inf
        assert not np.isfinite(run(x, *weight.arrays)[[0, rows // 2]]).any()
    assert not run(np.zeros((2, depth), "float32"), *weight.arrays).any()


@pytest.mark.parametrize("rows", [(1,), (2, 3), (5,)])
def test_known_rows_and_scales_in_halves(machine: Machine, rows: tuple[int, ...]) -> None:
    weight, numbers = random(4, 96, 40, 32, "bytes", "float16")
    run = compiled(product(weight, rows), len(weight.arrays), machine)
    x = RNG.standard_normal((*rows, 96)).astype("float32")
    check(run(x, *weight.arrays), x, numbers)


def test_rows_of_two_axes(machine: Machine) -> None:
    weight, numbers = random(4, 96, 40, 32, "bytes")
    run = compiled(product(weight, [te.var("n", "int64"), te.var("s", "int64")]), len(weight.arrays), machine)
    for rows in ((1, 1), (1, 3), (2, 9)):
        x = RNG.standard_normal((*rows, 96)).astype("float32")
        check(run(x, *weight.arrays), x, numbers)


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_bytes_without_a_scale(kind: str) -> None:
    machine = HOST.machine
    if not {"avx512vnni", "avxvnni", "dotprod"} & machine.features:
        pytest.skip("this machine has no instruction for them")
    stored = RNG.integers(np.iinfo(kind).min, np.iinfo(kind).max, (70, 33), endpoint=True).astype(kind)
    data, weight = placeholder([te.var("n", "int64"), 70], "float32", "x"), placeholder(stored.shape, kind, "w")
    run = compiled(te.create_prim_func([data, weight, fuse_weight_casts._product(data, weight)]), 1, machine)
    for rows in (1, 6):
        x = RNG.standard_normal((rows, 70)).astype("float32")
        check(run(x, stored), x, stored.astype("float64"))


def test_rows_of_one_sign_keep_their_precision() -> None:
    """Where bytes are stored with 128 added, what that adds is a hundred times the result."""
    machine = HOST.machine
    if not {"avx512vnni", "avxvnni", "dotprod"} & machine.features:
        pytest.skip("this machine has no instruction for them")
    stored = RNG.integers(-40, 41, (512, 48)).astype("int8")
    data, weight = placeholder([te.var("n", "int64"), 512], "float32", "x"), placeholder(stored.shape, "int8", "w")
    run = compiled(te.create_prim_func([data, weight, fuse_weight_casts._product(data, weight)]), 1, machine)
    x = RNG.random((5, 512)).astype("float32") + 1
    want = x.astype("float64") @ stored
    assert np.abs(run(x, stored) - want).max() < 3e-7 * np.abs(want).max()


@pytest.mark.parametrize("kind", ["float16", "int8"])
@pytest.mark.parametrize(("depth", "columns"), [(1, 1), (7, 17), (64, 48), (131, 33), (300, 70)])
def test_weights_that_are_converted_on_the_way(machine: Machine, kind: str, depth: int, columns: int) -> None:
    """By the rule for products of reals: packed as they are stored, whatever the number of rows."""
    stored = (RNG.standard_normal((depth, columns)) * 40).astype(kind)
    weight = placeholder(stored.shape, kind, "w")
    for given, counts in ((te.var("n", "int64"), (1, 2, 6, 40)), (3, (3,)), (29, (29,))):
        data = placeholder([given, depth], "float32", "x")
        func = te.create_prim_func([data, weight, fuse_weight_casts._product(data, weight)])
        run = compiled(func, 1, machine, Matmul())
        for rows in counts:
            x = RNG.standard_normal((rows, depth)).astype("float32")
            check(run(x, stored), x, stored.astype("float64"))


def test_numbers_of_all_sizes_side_by_side(machine: Machine) -> None:
    """Each row keeps the precision of its own largest element; zeros, the smallest and the largest floats included."""
    weight, numbers = random(4, 64, 40, 32, "same")
    run = compiled(product(weight, [te.var("n", "int64")]), len(weight.arrays), machine)
    sizes = np.array([0.0, 1e-45, 1e-38, 1e-20, 1.0, 1e20, 1e34], "float32")
    x = (RNG.standard_normal((len(sizes), 64)) * sizes[:, None].astype("float64")).astype("float32")
    got = run(x, *weight.arrays)
    for i in range(len(sizes)):
        largest = (np.abs(x[i].astype("float64")) @ np.abs(numbers)).max()
        np.testing.assert_allclose(
            got[i], x[i].astype("float64") @ numbers, atol=TOLERANCE * largest + 1e-30 * (sizes[i] < 1e-29), rtol=0
        )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_row(machine: Machine, bad: float) -> None:
    weight, numbers = random(4, 64, 40, 32, "same")
    run = compiled(product(weight, [te.var("n", "int64")]), len(weight.arrays), machine)
    x = RNG.standard_normal((4, 64)).astype("float32")
    x[2, 50] = bad
    got = run(x, *weight.arrays)
    assert not np.isfinite(got[2]).any()
    check(got[[0, 1, 3]], x[[0, 1, 3]], numbers)


def test_extremes_do_not_overflow(machine: Machine) -> None:
    weight = Packed(512, 4, 512, np.full((256, 33), 255, np.uint8), np.ones((1, 33), "float32"))
    run = compiled(product(weight, [te.var("n", "int64")]), 2, machine)
    for value in (1.9999999, -1.9999999, 1.0):
        x = np.full((2, 512), value, "float32")
        check(run(x, *weight.arrays), x, np.full((512, 33), 15.0))


def test_a_table_of_numbers_is_left_to_others() -> None:
    weight = Packed(
        32, 4, 32, np.zeros((16, 8), np.uint8), np.ones((1, 8), "float32"), table=np.arange(16, dtype="float32")
    )
    func = product(weight, [te.var("n", "int64")])
    assert RULE.apply(func, frozenset({1, 2, 3}), MACHINES["vnni"], Decisions()) is None
