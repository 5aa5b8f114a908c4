"""Convolution, its transpose and pooling, over one to three spatial dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.fuzz.families.linear import behind, scaled
from benchmarks.fuzz.graph import Graph, Rejected, Undone, Value


def image(g: Graph) -> Value:
    """A value (batch, channels, spatial...) with a known number of channels; often a new input."""
    if len(g.inputs) < 4 and g.chance(0.4):
        rank = g.choose([1, 2, 2, 2, 3])
        batch = g.symbol() if g.chance(0.5) else g.integer(1, 3)
        spatial = [g.symbol() if g.chance(0.5) else int(g.choose([3, 5, 7, 8, 12, 14, 16])) for _ in range(rank)]
        channels = int(g.choose([1, 2, 3, 4, 6, 8, 16, 17, 32]))
        return g.input("float32", [batch, channels, *spatial])
    return g.pick(lambda v: v.kind == "f" and 3 <= v.ndim <= 5 and v.static(1) and not v.fixed)


def window(g: Graph, x: Value, largest: int = 5) -> dict[str, Any]:
    """Attributes of a window that fits x."""
    rank = x.ndim - 2
    kernel = [int(g.choose([1, 2, 3, 3, 5, 7][: 4 + (largest > 3) + (largest > 5)])) for _ in range(rank)]
    if g.chance(0.6):
        kernel = [kernel[0]] * rank
    found: dict[str, Any] = {"kernel_shape": kernel}
    if g.chance(0.4):
        found["strides"] = [g.integer(1, 3) for _ in range(rank)]
    kind = g.integer(0, 3)
    if kind == 0:
        found["pads"] = [k // 2 for k in kernel] * 2
    elif kind == 1:
        found["pads"] = [g.integer(0, k - 1) for k in kernel * 2]
    elif kind == 2 and g.chance(0.5):
        found["auto_pad"] = g.choose(["SAME_UPPER", "SAME_LOWER", "VALID"])
    return found


def conv(g: Graph) -> None:
    x = image(g)
    attributes = window(g, x)
    channels, kernel = x.sizes(1)[0], attributes["kernel_shape"]
    if g.chance(0.2) and "auto_pad" not in attributes:
        attributes["dilations"] = [g.integer(1, 2) for _ in kernel]
    group = g.choose([1, 1, 1, channels, *(d for d in (2, 4) if channels % d == 0)])
    out = group * g.choose([1, 1, 2]) if group > 1 else int(g.choose([1, 2, 3, 8, 16, 17, 32]))
    fan = channels // group * int(np.prod(kernel))
    inputs = [x, scaled(g, x.dtype.name, (out, channels // group, *kernel), fan)]
    if g.chance(0.5):
        inputs.append(g.weight(g.content(x.dtype.name, (out,))))
    if group > 1:
        attributes["group"] = group
    if g.chance(0.2):
        del attributes["kernel_shape"]
    [y] = g.add("Conv", inputs, **attributes)
    if not all(array.size for array in y.arrays):
        raise Undone("a window larger than the image")
    if g.chance(0.3):
        y = batch_norm(g, y)
    behind(g, y, out, axis=1)


def batch_norm(g: Graph, x: Value) -> Value:
    if not x.static(1):
        raise Rejected("the number of channels is symbolic")
    c = x.sizes(1)[0]
    scale, bias, mean = (g.weight(g.content(x.dtype.name, (c,))) for _ in range(3))
    var = g.weight(np.abs(g.content(x.dtype.name, (c,))) + np.array(0.5, x.dtype))
    return g.add("BatchNormalization", [x, scale, bias, mean, var], epsilon=1e-3 if g.chance(0.3) else None)[0]


def normalised(g: Graph) -> None:
    batch_norm(g, image(g))


def conv_transpose(g: Graph) -> None:
    x = image(g)
    if max(array.size for array in x.arrays) > 3000:
        raise Rejected("slow in the evaluator")
    attributes = window(g, x, largest=3)
    attributes.pop("auto_pad", None)
    channels, kernel = x.sizes(1)[0], attributes["kernel_shape"]
    group = channels if g.chance(0.15) else 2 if channels % 2 == 0 and g.chance(0.15) else 1
    out = int(g.choose([1, 2, 3, 8, 16])) if group == 1 else g.integer(1, 2)
    strides = attributes.get("strides", [1] * len(kernel))
    if g.chance(0.2):
        attributes["output_padding"] = [g.integer(0, s - 1) for s in strides]
    if g.chance(0.15):
        attributes["dilations"] = [g.integer(1, 2) for _ in kernel]
    inputs = [x, scaled(g, x.dtype.name, (channels, out, *kernel), channels * int(np.prod(kernel)))]
    if g.chance(0.5):
        inputs.append(g.weight(g.content(x.dtype.name, (out * group,))))
    g.add("ConvTranspose", inputs, group=group if group > 1 else None, **attributes)


def pool(g: Graph) -> None:
    x = image(g)
    op = g.choose(["MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
    if op.startswith("Global"):
        g.add(op, [x])
        return
    attributes = window(g, x, largest=3)
    kernel = attributes["kernel_shape"]
    if g.chance(0.3) and "auto_pad" not in attributes and (op != "LpPool" or g.opset >= 18):
        attributes["ceil_mode"] = 1
    if g.chance(0.2) and "auto_pad" not in attributes and (op == "MaxPool" or g.opset >= 19):
        attributes["dilations"] = [g.integer(1, 2) for _ in kernel]
    if op == "AveragePool" and g.chance(0.4):
        attributes["count_include_pad"] = 1
    if op == "LpPool":
        attributes["p"] = g.integer(1, 3)
    g.add(op, [x], outputs=2 if op == "MaxPool" and g.chance(0.1) else 1, **attributes)


def squeeze_excite(g: Graph) -> None:
    """A channel's weight from its mean: GlobalAveragePool, two 1x1 convolutions, a gate."""
    x = image(g)
    c = x.sizes(1)[0]
    ones = (1,) * (x.ndim - 2)
    [y] = g.add("GlobalAveragePool", [x])
    [y] = g.add("Conv", [y, scaled(g, x.dtype.name, (4, c, *ones), c)])
    [y] = g.add("Relu", [y])
    [y] = g.add("Conv", [y, scaled(g, x.dtype.name, (c, 4, *ones), 4)])
    [y] = g.add(g.choose(["Sigmoid", "HardSigmoid"]), [y])
    g.add("Mul", [x, y])


GENERATORS = {conv: 8.0, conv_transpose: 2.5, pool: 4.0, normalised: 1.0, squeeze_excite: 0.7}
