"""Weights of few bits in the `com.microsoft` domain, against onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import dscc

from .contrib import compare, model, random

OPEN = {"x": ("n", "s", 72)}


def nbits(k: int, n: int, bits: int, block: int, zeros: str, dtype: Any = np.float32) -> dict[str, Any]:
    blocks = -(-k // block)
    packed = -(-blocks * bits // 8)
    return {
        "x": random(2, 3, k, dtype=dtype),
        "w": random(n, blocks, block * bits // 8, dtype=np.uint8),
        "s": (random(n, blocks) / 20).astype(dtype),
        "z": {
            "": None,
            "packed": random(n, packed, dtype=np.uint8),
            "float": (random(n, blocks) + 2 ** (bits - 1)).astype(dtype),
        }[zeros],
    }


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zeros", ["", "packed", "float"])
@pytest.mark.parametrize(("k", "n", "block"), [(64, 20, 16), (72, 33, 32), (40, 7, 64)])
def test_matmul_nbits(bits: int, zeros: str, k: int, n: int, block: int) -> None:
    feed = nbits(k, n, bits, block, zeros)
    if bits == 8 and zeros == "float":
        pytest.skip("onnxruntime's kernel takes none")
    made = model("MatMulNBits", feed, {"x": ("n", "s", k)}, ["w", "s", "z"], K=k, N=n, bits=bits, block_size=block)
    compare(made, feed, {**feed, "x": random(1, 1, k)}, tolerance=1e-4)


@pytest.mark.parametrize(("groups", "zeros"), [(False, "packed"), (True, ""), (True, "float")])
def test_matmul_nbits_with_a_bias_and_groups(groups: bool, zeros: str) -> None:
    feed = nbits(72, 20, 4, 16, zeros)
    feed |= {"g": np.random.default_rng(0).integers(0, 5, 80).astype(np.int32) if groups else None, "b": random(20)}
    made = model("MatMulNBits", feed, OPEN, ["w", "s", "z", "g", "b"], K=72, N=20, bits=4, block_size=16)
    compare(made, feed, tolerance=1e-4)


def test_matmul_nbits_in_half_precision() -> None:
    feed = nbits(72, 20, 4, 16, "packed", np.float16)
    made = model("MatMulNBits", feed, OPEN, ["w", "s", "z"], K=72, N=20, bits=4, block_size=16)
    compare(made, feed, tolerance=4e-3)


def test_the_weight_stays_packed_in_the_artifact(tmp_path: Path) -> None:
    """A matrix of 256 x 512 in 4 bits has 65,536 bytes, and 32,768 of scales and zero points in blocks of 32."""
    feed = nbits(256, 512, 4, 32, "")
    made = model("MatMulNBits", feed, {"x": ("n", "s", 256)}, ["w", "s"], K=256, N=512, bits=4, block_size=32)
    artifact = dscc.compile(made, jobs=1)
    path = tmp_path / "m.dscc"
    artifact.save(path)
    assert path.stat().st_size < 256 * 512 * 4 // 2
    compare(made, feed, tolerance=1e-4)


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize(("k", "n", "block"), [(64, 20, 16), (40, 7, 32)])
def test_matmul_bnb4(kind: int, k: int, n: int, block: int) -> None:
    feed = {
        "x": random(3, k),
        "w": random((n * k + 1) // 2, dtype=np.uint8),
        "s": np.abs(random(-(-n * k // block))),
    }
    made = model("MatMulBnb4", feed, {"x": ("n", k)}, ["w", "s"], K=k, N=n, block_size=block, quant_type=kind)
    compare(made, feed, tolerance=1e-5)


@pytest.mark.parametrize("kind", ["uint4", "int4"])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(("gather", "along"), [(0, 1), (1, 0), (0, 2), (2, 2)])
def test_gather_block_quantized(kind: str, zeros: bool, gather: int, along: int) -> None:
    shape, element = (5, 34, 36), np.dtype(getattr(ml_dtypes, kind))
    blocks = [-(-d // 16) if axis == along else d for axis, d in enumerate(shape)]
    rng = np.random.default_rng(1)
    low = -8 if kind == "int4" else 0
    feed = {
        "d": rng.integers(low, low + 16, shape).astype(element),
        "i": rng.integers(-shape[gather], shape[gather], (2, 3)),
        "s": random(*blocks),
        "z": rng.integers(low, low + 16, blocks).astype(element) if zeros else None,
    }
    more = {"gather_axis": gather, "quantize_axis": along, "block_size": 16}
    compare(model("GatherBlockQuantized", feed, {"i": ("a", "b")}, ["d", "s", "z"], **more), feed)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_gather_block_quantized_of_bytes(bits: int, zeros: bool, dtype: Any) -> None:
    rows, columns = 11, 64
    feed = {
        "d": random(rows, columns * bits // 8, dtype=np.uint8),
        "i": np.array([[0, 10, 3]], np.int32),
        "s": random(rows, columns // 16, dtype=dtype),
        "z": random(rows, -(-columns // 16 * bits // 8), dtype=np.uint8) if zeros else None,
    }
    made = model("GatherBlockQuantized", feed, {"i": (1, "n")}, ["d", "s", "z"], bits=bits, block_size=16)
    compare(made, feed, tolerance=1e-3 if dtype == np.float16 else 1e-6)


def test_a_weight_that_is_computed_is_refused_in_one_line() -> None:
    feed = nbits(64, 20, 4, 16, "")
    with pytest.raises(dscc.DsccError, match=r"the weight \('w'\) is computed when the model runs"):
        dscc.compile(model("MatMulNBits", feed, {}, ["s"], K=64, N=20, bits=4, block_size=16))
