"""The elementary functions that AMD's devices are given, compiled for this processor and compared with NumPy's."""

from __future__ import annotations

import ctypes
import ctypes.util
import math
import platform
import subprocess

import numpy as np
import pytest

from dscc.errors import TargetError
from dscc.targets.rocm import clang

try:
    CLANG = clang.find()
except TargetError as missing:
    pytest.skip(str(missing), allow_module_level=True)
if platform.machine() != "x86_64":
    pytest.skip("the header is compiled for x86-64", allow_module_level=True)

LARGE = np.float32([1e3, 1023.9, 1024.1, 12345.6, 1e5, 1e6, 123456789.0])
AROUND = np.concatenate([np.linspace(-12, 12, 4001), np.geomspace(1e-30, 80, 999), -np.geomspace(1e-30, 80, 999)])
INSIDE = np.concatenate([np.linspace(-1, 1, 4001), np.geomspace(1e-30, 1, 999)])
SPECIAL = np.array([0.0, np.inf, -np.inf, np.nan])

# Name: NumPy's function, arguments, and whether the error is counted in units of 1 rather than of the result.
CASES = {
    "sin": (np.sin, np.concatenate([AROUND, LARGE, -LARGE]), True),
    "cos": (np.cos, np.concatenate([AROUND, LARGE, -LARGE]), True),
    "tan": (np.tan, np.linspace(-1.5, 1.5, 2001), False),
    "asin": (np.arcsin, INSIDE, True),
    "acos": (np.arccos, INSIDE, True),
    "atan": (np.arctan, np.concatenate([AROUND, LARGE, SPECIAL]), False),
    "sinh": (np.sinh, np.concatenate([AROUND, [89.0, -89.0], SPECIAL]), False),
    "cosh": (np.cosh, np.concatenate([AROUND, [89.0], SPECIAL]), False),
    "tanh": (np.tanh, np.concatenate([AROUND, LARGE, SPECIAL]), False),
    "asinh": (np.arcsinh, np.concatenate([AROUND, LARGE]), False),
    "acosh": (np.arccosh, np.concatenate([1 + np.geomspace(1e-4, 1e8, 999), [1.0, np.inf]]), False),
    "atanh": (np.arctanh, INSIDE, False),
    "log1p": (np.log1p, np.concatenate([np.linspace(-0.999, 12, 2001), np.geomspace(1e-30, 1e30, 999)]), False),
    "erf": (np.vectorize(math.erf), np.concatenate([AROUND, SPECIAL]), False),
}


@pytest.fixture(scope="module")
def functions(tmp_path_factory):
    """A shared library with `void call_NAME(const float*, const float*, float*, int)`."""
    folder = tmp_path_factory.mktemp("math")
    text = [
        f"void call_{name}(const float* x, const float* y, float* out, int n) "
        f"{{ for (int i = 0; i < n; ++i) out[i] = {name}(x[i]{', y[i]' if name == 'pow' else ''}); }}"
        for name in (*CASES, "pow")
    ]
    (folder / "calls.cl").write_text("\n".join(text))
    flags = ["-x", "cl", "-cl-std=CL2.0", "-cl-no-stdinc", "-O2", "-Wno-everything", "-include"]
    flags += [str(clang.DEVICE / "opencl.h"), "--target=x86_64-linux-gnu", "-fPIC", "-c"]
    made, library = folder / "calls.o", folder / "calls.so"
    subprocess.run([*CLANG.compiler, *flags, str(folder / "calls.cl"), "-o", str(made)], check=True)
    libm = ctypes.util.find_library("m")  # what LLVM leaves to it on this processor: exp, log
    subprocess.run([*CLANG.linker, "-shared", str(made), "-o", str(library)], check=True)
    ctypes.CDLL(libm, ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(library))


def call(functions: ctypes.CDLL, name: str, x: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
    x = np.ascontiguousarray(x, np.float32)
    y = x if y is None else np.ascontiguousarray(y, np.float32)
    out = np.empty_like(x)
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (x, y, out)]
    functions[f"call_{name}"](*pointers, ctypes.c_int(x.size))
    return out


def error(got: np.ndarray, want: np.ndarray, of_one: bool = False) -> float:
    """The largest error where `want` is a normal float; others have to be the same."""
    normal = np.isfinite(want) & (np.abs(want) > 1.2e-38) & (np.abs(want) < 3.4e38)
    np.testing.assert_array_equal(got[~normal & ~np.isfinite(want)], want[~normal & ~np.isfinite(want)])
    apart = np.abs(got[normal].astype(np.float64) - want[normal])
    return float((apart / (1 if of_one else np.abs(want[normal]))).max())


@pytest.mark.parametrize("name", CASES)
def test_function(functions, name):
    reference, x, of_one = CASES[name]
    x = x.astype(np.float32)
    with np.errstate(all="ignore"):
        want = reference(x.astype(np.float64))
    assert error(call(functions, name, x), want, of_one) < 5e-7


def test_power(functions):
    values = np.float32([0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -3.0, 1e-38, 1e-42, 7.3, -7.3, 1e30, np.inf, -np.inf, np.nan])
    exponents = np.float32([0, 1, -1, 2, 3, -3, 0.5, -0.5, 2.7, 1e-3, 31, 1e10, -1e10, np.inf, -np.inf, np.nan])
    x, y = (grid.ravel() for grid in np.meshgrid(values, exponents))
    rng = np.random.default_rng(0)
    x = np.concatenate([x, np.exp(rng.uniform(-8, 8, 5000))]).astype(np.float32)
    y = np.concatenate([y, rng.uniform(-9, 9, 5000)]).astype(np.float32)
    with np.errstate(all="ignore"):
        want = np.power(x.astype(np.float64), y.astype(np.float64))
        want[np.abs(want) > 3.4028235e38] *= np.inf
    assert error(call(functions, "pow", x, y), want) < 5e-7
