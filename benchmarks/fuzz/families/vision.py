"""Sampling at computed places, regions of interest, boxes, and what undoes a pool."""

from __future__ import annotations

import numpy as np

from benchmarks.fuzz.graph import Graph, Rejected, Value


def _image(g: Graph) -> Value:
    """(batch, channels, height, width), often a new input."""
    if len(g.inputs) < 4 and g.chance(0.6):
        sides = [g.symbol() if g.chance(0.4) else int(g.choose([2, 4, 5, 8])) for _ in range(2)]
        return g.input("float32", [g.integer(1, 2), g.integer(1, 3), *sides])
    return g.pick(
        lambda v: v.dtype == np.float32 and v.ndim == 4 and not v.fixed and min(min(s) for s in v.shapes) > 0
        and max(a.size for a in v.arrays) < 8000
    )  # fmt: skip


def grid_sample(g: Graph) -> None:
    if g.opset < 16:
        raise Rejected("GridSample")
    x = _image(g)
    if not x.static(0):
        raise Rejected("the batch is symbolic")
    shape = (x.sizes(0)[0], g.integer(1, 5), g.integer(1, 5), 2)
    grid = g.weight(g.rng.uniform(-1.2, 1.2, shape).astype(np.float32))
    modes = ["linear", "nearest", "cubic"] if g.opset >= 20 else ["bilinear", "nearest", "bicubic"]
    g.add(
        "GridSample", [x, grid], mode=g.choose(modes), align_corners=g.integer(0, 1),
        padding_mode=g.choose(["zeros", "border", "reflection"]),
    )  # fmt: skip


def affine_grid(g: Graph) -> None:
    if g.opset < 20:
        raise Rejected("AffineGrid")
    n = g.integer(1, 2)
    theta = g.weight(g.content("float32", (n, 2, 3)))
    g.add("AffineGrid", [theta, g.ints(n, 1, g.integer(1, 5), g.integer(1, 5))], align_corners=g.integer(0, 1))


def roi_align(g: Graph) -> None:
    if g.opset < 16:
        raise Rejected("RoiAlign")
    x, count = _image(g), g.integer(1, 3)
    low = g.rng.uniform(0, 3, (count, 2))
    boxes = np.concatenate([low, low + g.rng.uniform(0.5, 5, (count, 2))], axis=1).astype(np.float32)
    batch = g.weight(g.rng.integers(0, min(x.sizes(0)), count))
    g.add(
        "RoiAlign", [x, g.weight(boxes), batch], output_height=g.integer(1, 3), output_width=g.integer(1, 3),
        sampling_ratio=g.integer(0, 2), mode=g.choose(["avg", "max"]), spatial_scale=float(g.choose([1.0, 0.5])),
        coordinate_transformation_mode=g.choose(["half_pixel", "output_half_pixel"]),
    )  # fmt: skip


def suppression(g: Graph) -> None:
    """NonMaxSuppression: how many boxes are left depends on the data."""
    count, classes = g.symbol() if g.chance(0.5) else g.integer(1, 12), g.integer(1, 2)
    if len(g.inputs) > 4:
        raise Rejected("inputs")
    corners, scores = g.input("float32", [1, count, 4]), g.input("float32", [1, classes, count])
    for array in corners.arrays:
        np.abs(array, out=array)
        array[..., 2:] += array[..., :2]
    limit = g.ints(g.integer(1, 5))
    overlap, least = (g.weight(np.array([v], np.float32)) for v in (g.choose([0.1, 0.5]), g.choose([-9.0, 0.1])))
    [found] = g.add("NonMaxSuppression", [corners, scores, limit, overlap, least])
    if g.chance(0.6):
        [boxes] = g.add("Gather", [found, g.ints(2)], axis=1)
        [boxes] = g.add("Reshape", [boxes, g.ints(-1)])
        g.add("Gather", [corners, boxes], axis=1)


def unpool(g: Graph) -> None:
    x = _image(g)
    if not all(x.static(a) and x.sizes(a)[0] % 2 == 0 for a in (2, 3)):
        raise Rejected("odd sizes")
    y, indices = g.add("MaxPool", [x], outputs=2, kernel_shape=[2, 2], strides=[2, 2])
    g.add("MaxUnpool", [y, indices], kernel_shape=[2, 2], strides=[2, 2])


def col2im(g: Graph) -> None:
    if g.opset < 18:
        raise Rejected("Col2Im")
    h, w, kernel = g.integer(3, 6), g.integer(3, 6), [g.integer(1, 3), g.integer(1, 3)]
    blocks = (h - kernel[0] + 1) * (w - kernel[1] + 1)
    if len(g.inputs) > 4:
        raise Rejected("inputs")
    batch = g.symbol() if g.chance(0.5) else 1
    x = g.input("float32", [batch, g.integer(1, 3) * kernel[0] * kernel[1], blocks])
    g.add("Col2Im", [x, g.ints(h, w), g.ints(*kernel)])


GENERATORS = {
    grid_sample: 1.0, affine_grid: 0.3, roi_align: 0.6, suppression: 0.7, unpool: 0.4, col2im: 0.4,
}  # fmt: skip
