"""Fourier transforms, the windows before them and the filters behind them."""

from __future__ import annotations

import numpy as np

from benchmarks.fuzz.graph import Graph, Rejected, Value


def _signal(g: Graph) -> Value:
    """(batch, length, 1), with a length that is often symbolic."""
    if len(g.inputs) > 4:
        raise Rejected("inputs")
    batch = g.symbol() if g.chance(0.5) else g.integer(1, 2)
    return g.input("float32", [batch, g.symbol() if g.chance(0.5) else int(g.choose([8, 12, 16, 32])), 1])


def dft(g: Graph) -> None:
    if g.opset < 17:
        raise Rejected("DFT")
    x, inverse = _signal(g), g.integer(0, 1)
    onesided = 0 if inverse else g.integer(0, 1)
    length = g.weight(np.array(g.choose([4, 7, 16]))) if g.chance(0.3) else None
    if g.opset >= 20:
        g.add("DFT", [x, length, g.weight(np.array(1))], inverse=inverse, onesided=onesided)
    else:
        g.add("DFT", [x] if length is None else [x, length], axis=1, inverse=inverse, onesided=onesided)


def stft(g: Graph) -> None:
    """A spectrogram: windows, their transforms, powers, and sometimes a bank of filters."""
    if g.opset < 17:
        raise Rejected("STFT")
    x, size, step = _signal(g), int(g.choose([4, 6, 8])), g.integer(1, 4)
    if min(x.sizes(1)) < size:
        raise Rejected("a signal shorter than a frame")
    [window] = g.add(g.choose(["HannWindow", "HammingWindow", "BlackmanWindow"]), [g.weight(np.array(size))],
                     periodic=g.integer(0, 1))  # fmt: skip
    [y] = g.add("STFT", [x, g.weight(np.array(step)), window, g.weight(np.array(size))], onesided=1)
    [square] = g.add("Mul", [y, y])
    [power] = g.add("ReduceSum", [square, g.ints(-1)], keepdims=0)
    if g.chance(0.5):
        numbers = [g.weight(np.array(v)) for v in (g.integer(2, 4), size, 8000)]
        edges = [g.weight(np.array(v, np.float32)) for v in (0.0, 4000.0)]
        [filters] = g.add("MelWeightMatrix", [*numbers, *edges])
        g.add("MatMul", [power, filters])


GENERATORS = {dft: 0.6, stft: 0.6}
