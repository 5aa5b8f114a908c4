"""Products and convolutions of 8-bit integers against NumPy, exactly, with every instruction that this machine has."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tvm
from tvm import te, tirx

from dscc import targets
from dscc.passes.lower import fuse_integer_casts
from dscc.schedule.base import Rule
from dscc.schedule.decisions import Decisions
from dscc.schedule.machine import Machine
from dscc.schedule.rules.conv_words import ConvWords
from dscc.schedule.rules.matmul_words import MatmulWords

from ..modules import on_this_machine

HOST = targets.resolve(None)
MACHINES = {
    "plain": Machine(),
    "sse": Machine(features=frozenset({"sse3"})),
    "avx2": Machine(256, 16, features=frozenset({"sse3", "avx2"})),
    "avx512": Machine(512, 32, embedded_broadcast=True, features=frozenset({"sse3", "avx2", "avx512bw"})),
    "vnni": Machine(512, 32, embedded_broadcast=True, features=frozenset({"avx512bw", "avx512vnni"})),
}
RNG = np.random.default_rng(5)


@pytest.fixture(params=MACHINES)
def machine(request) -> Machine:
    return on_this_machine(MACHINES[request.param])


def compiled(rule: Rule, func: tirx.PrimFunc, machine: Machine) -> Callable[..., np.ndarray]:
    """`run(data, weight, *zero, shape=...)` of a function whose second parameter is constant."""
    plan = rule.apply(func, frozenset({1}), machine, Decisions())
    assert plan is not None, f"refused:\n{func.script()}"
    ready = plan.func.with_attr("tirx.is_scheduled", True).with_attr("global_symbol", "kernel")
    library = tvm.compile(tvm.IRModule({"kernel": ready}), HOST.tvm_target)

    def run(*arrays: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        packed = [plan.packings[i].pack(a) if i in plan.packings else a for i, a in enumerate(arrays)]
        out = tvm.runtime.tensor(np.full(shape, 77, "int32"))
        library["kernel"](*(tvm.runtime.tensor(np.require(a, requirements="C")) for a in packed), out)
        return out.numpy()

    return run


def numbers(dtype: str, *shape: int) -> np.ndarray:
    """Of the whole range of a type; int16 as far as differences of 8-bit numbers go."""
    low, high = (-255, 255) if dtype == "int16" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return RNG.integers(low, high, shape, endpoint=True).astype(dtype)


def placeholder(shape: tuple, dtype: str, name: str) -> te.Tensor:
    """With sizes of int64, as Relax has them."""
    return te.placeholder([tirx.const(d, "int64") if isinstance(d, int) else d for d in shape], dtype, name)


def matmul(data: str, weight: str, depth: int, columns: int, rows: int | None, zero: bool) -> tirx.PrimFunc:
    a = placeholder((te.var("n", "int64") if rows is None else rows, depth), data, "a")
    b = placeholder((depth, columns), weight, "b")
    z = [placeholder((), "int32", "z")] if zero else []
    return te.create_prim_func([a, b, *z, fuse_integer_casts._matmul(zero, False)(a, b, *z)])


@pytest.mark.parametrize(("data", "weight"), [("uint8", "int8"), ("int8", "int8"), ("uint8", "int16")])
@pytest.mark.parametrize(("depth", "columns"), [(1, 1), (7, 17), (64, 48), (131, 33)])
def test_products_with_symbolic_rows(machine: Machine, data: str, weight: str, depth: int, columns: int) -> None:
    run = compiled(MatmulWords(), matmul(data, weight, depth, columns, None, True), machine)
    w = numbers(weight, depth, columns)
    for rows in (1, 2, 5, 7, 13, 64):
        a, zero = numbers(data, rows, depth), numbers(data, 1)[0].astype("int32")
        got = run(a, w, np.array(zero), shape=(rows, columns))
        np.testing.assert_array_equal(got, (a.astype("int64") - zero) @ w.astype("int64"))


@pytest.mark.parametrize("rows", [1, 6, 29])
def test_extremes_do_not_saturate(machine: Machine, rows: int) -> None:
    run = compiled(MatmulWords(), matmul("uint8", "int8", 66, 40, rows, False), machine)
    for left, right in ((255, 127), (255, -128)):
        got = run(np.full((rows, 66), left, "uint8"), np.full((66, 40), right, "int8"), shape=(rows, 40))
        assert (got == 66 * left * right).all()


class Window:
    """The attributes of a convolution, and what it computes in NumPy."""

    def __init__(self, strides=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1)):
        self.strides, self.padding, self.dilation = strides, padding, dilation

    def out(self, size: tuple[int, int], kernel: tuple[int, int]) -> tuple[int, ...]:
        around = (self.padding[0] + self.padding[2], self.padding[1] + self.padding[3])
        return tuple(
            (s + p - (k - 1) * d - 1) // t + 1
            for s, p, k, d, t in zip(size, around, kernel, self.dilation, self.strides, strict=True)
        )

    def compute(self, data: np.ndarray, weight: np.ndarray) -> np.ndarray:
        top, left, bottom, right = self.padding
        padded = np.pad(data, [(0, 0), (top, bottom), (left, right), (0, 0)])
        high, wide = self.out(data.shape[1:3], weight.shape[1:3])
        total = np.zeros((len(data), high, wide, len(weight)), "int64")
        for ry in range(weight.shape[1]):
            for rx in range(weight.shape[2]):
                y, x = ry * self.dilation[0], rx * self.dilation[1]
                part = padded[:, y : y + high * self.strides[0] : self.strides[0]][:, :high]
                part = part[:, :, x : x + wide * self.strides[1] : self.strides[1]][:, :, :wide]
                total += part @ weight[:, ry, rx].T
        return total


class Call:
    """What `fuse_integer_casts._convolution` reads of a call."""

    def __init__(self, window: Window, shape):
        self.attrs = window
        self.ty = type("Type", (), {"shape": type("Shape", (), {"values": shape})})


@pytest.mark.parametrize(
    ("weight", "channels", "outputs", "kernel", "window"),
    [
        ("int8", 3, 5, (3, 3), Window((2, 2), (1, 1, 1, 1))),
        ("int16", 8, 17, (3, 3), Window((1, 1), (1, 1, 1, 1))),
        ("int8", 5, 40, (1, 3), Window((1, 2), (0, 1, 0, 0), (1, 2))),
        ("int8", 12, 33, (2, 2), Window()),
    ],
)
@pytest.mark.parametrize("size", [(7, 9), None])
def test_convolutions(machine: Machine, weight: str, channels: int, outputs: int, kernel, window: Window, size) -> None:
    high, wide = size or (te.var("h", "int64"), te.var("w", "int64"))
    a = placeholder((te.var("n", "int64"), high, wide, channels), "uint8", "a")
    b = placeholder((outputs, *kernel, channels), weight, "b")
    z = placeholder((), "int32", "z")
    shape = (a.shape[0], *window.out(a.shape[1:3], kernel), b.shape[0])
    run = compiled(
        ConvWords(),
        te.create_prim_func([a, b, z, fuse_integer_casts._convolution(Call(window, shape))(a, b, z)]),
        machine,
    )
    w = numbers(weight, outputs, *kernel, channels)
    for images, rows, columns in [(1, 7, 9), (2, 7, 9)] if size else [(1, 3, 4), (2, 7, 9), (1, 16, 31)]:
        data, zero = numbers("uint8", images, rows, columns, channels), np.int32(117)
        want = window.compute(data.astype("int64") - zero, w.astype("int64"))
        np.testing.assert_array_equal(run(data, w, np.array(zero), shape=want.shape), want)
