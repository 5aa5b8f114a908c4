"""How many transpositions channels-last leaves in networks as they are built today: those at the door and no others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import tvm
from tvm import relax, tirx

from dscc import pipeline
from dscc.passes.base import PassContext
from dscc.passes.graph import Graph
from dscc.passes.layout.regroup import lying_for, regroup
from dscc.plugins import registry

N, H, W = (tirx.Var(name, "int64") for name in "nhw")


class Net:
    """Builds a network with random weights, batch, height and width open."""

    def __init__(self, channels: int) -> None:
        self.builder, self.rng = relax.BlockBuilder(), np.random.default_rng(0)
        self.x = relax.Var("x", relax.TensorType((N, channels, H, W), "float32"))

    def build(self, body: Callable[[Net, relax.Expr], list[relax.Expr]]) -> tvm.IRModule:
        with self.builder.function("main", [self.x]):
            with self.builder.dataflow():
                results = [self.builder.emit_output(result) for result in body(self, self.x)]
            self.builder.emit_func_output(relax.Tuple(results))
        return self.builder.get()

    def __call__(self, expr: relax.Expr) -> relax.Expr:
        return self.builder.emit(expr)

    def weight(self, *shape: int) -> relax.Expr:
        return relax.const(self.rng.standard_normal(shape).astype("float32"))

    def conv(self, x: relax.Expr, channels: int, size: int = 1, stride: int = 1, groups: int = 1) -> relax.Expr:
        inputs = int(x.ty.shape[1])
        weight = self.weight(channels, inputs // groups, size, size)
        made = self(relax.op.nn.conv2d(x, weight, strides=stride, padding=size // 2, groups=groups))
        return self(relax.op.add(made, self.weight(1, channels, 1, 1)))

    def relu(self, x: relax.Expr) -> relax.Expr:
        return self(relax.op.nn.relu(x))

    def pool(self, x: relax.Expr) -> relax.Expr:
        return self(relax.op.mean(x, [2, 3], keepdims=True))


def residual(net: Net, x: relax.Expr) -> list[relax.Expr]:
    """As in ResNet: a stem with a pool, blocks with a shortcut, a classifier behind the global average."""
    x = net(relax.op.nn.max_pool2d(net.relu(net.conv(x, 8, 7, 2)), (3, 3), (2, 2), (1, 1)))
    for _ in range(2):
        inner = net.relu(net.conv(net.relu(net.conv(x, 4)), 4, 3))
        x = net.relu(net(relax.op.add(net.conv(inner, 8), x)))
    flat = net(relax.op.reshape(net.pool(x), [N, 8]))
    return [relax.op.matmul(flat, net.weight(8, 10))]


def squeeze_and_excite(net: Net, x: relax.Expr) -> list[relax.Expr]:
    """As in MobileNetV3: depthwise convolution, a gate per channel, hard swish, a linear bottleneck."""
    x = net.conv(net.conv(x, 8, 3, 2), 8, 3, groups=8)
    gate = net.conv(net.relu(net.conv(net.pool(x), 2)), 8)
    gate = net(relax.op.clip(net(relax.op.add(net(relax.op.multiply(gate, relax.const(0.2))), relax.const(0.5))), 0, 1))
    x = net(relax.op.multiply(x, gate))
    swish = net(relax.op.clip(net(relax.op.add(x, relax.const(3.0))), 0, 6))
    return [net.pool(net.conv(net(relax.op.multiply(x, swish)), 4))]


def pyramid(net: Net, x: relax.Expr) -> list[relax.Expr]:
    """As in text detection: two scales, the smaller enlarged, joined, and a map of one channel on top."""
    large = net.relu(net.conv(x, 8, 3, 2))
    small = net.relu(net.conv(large, 8, 3, 2))
    shape = large.ty.shape
    enlarged = net(relax.op.image.resize2d(small, (shape[2], shape[3]), method="nearest_neighbor"))
    cast = net.builder.match_cast(enlarged, relax.TensorType((N, 8, shape[2], shape[3]), "float32"))
    both = net(relax.op.concat([large, cast], axis=1))
    up = net(relax.op.nn.conv2d_transpose(net.conv(both, 4, 3), net.weight(4, 1, 2, 2), strides=(2, 2)))
    return [relax.op.sigmoid(up)]


def heads(net: Net, x: relax.Expr) -> list[relax.Expr]:
    """As in face detection: several maps of several channels come out as they are."""
    x = net.relu(net.conv(x, 8, 3, 2))
    return [net.conv(x, channels) for channels in (2, 2, 10)]


def patches(net: Net, x: relax.Expr) -> list[relax.Expr]:
    """As in a vision transformer: the image becomes a sequence."""
    x = net.conv(x, 8, 4, 4)
    shape = x.ty.shape
    rows = net(relax.op.permute_dims(net(relax.op.reshape(x, [N, 8, shape[2] * shape[3]])), [0, 2, 1]))
    return [relax.op.matmul(rows, net.weight(8, 8))]


def two_splits(net: Net, x: relax.Expr) -> list[relax.Expr]:
    """As in YOLO: halves go different ways, and are joined with pools of several sizes."""
    parts = net(relax.op.split(net.conv(x, 8, 3), 2, axis=1))
    left, right = net(parts[0]), net(parts[1])
    pools = [net(relax.op.nn.max_pool2d(left, (k, k), (1, 1), (k // 2, k // 2))) for k in (3, 5)]
    return [net.pool(net.conv(net(relax.op.concat([right, *pools], axis=1)), 4))]


@pytest.mark.parametrize(
    ("body", "channels", "transpositions"),
    [
        (residual, 3, 1),
        (residual, 1, 0),
        (squeeze_and_excite, 3, 1),
        (pyramid, 3, 1),
        (heads, 3, 4),
        (patches, 3, 1),
        (two_splits, 3, 1),
    ],
)
def test_transpositions_at_the_door_only(
    body: Callable[[Net, relax.Expr], list[relax.Expr]], channels: int, transpositions: int
) -> None:
    mod = Net(channels).build(body)
    after = pipeline.preset(2, registry().passes).run(mod, PassContext(None))  # type: ignore[arg-type]
    assert relax.analysis.check_well_formed(after)
    nodes = list(Graph(after["main"]))
    assert Counter(node.op for node in nodes)["relax.permute_dims"] == transpositions
    for node in nodes:
        if "conv2d" in node.op:
            assert node.value.attrs.data_layout == node.value.attrs.out_layout == "NHWC"
            assert node.value.attrs.kernel_layout == ("IOHW" if "transpose" in node.op else "OHWI")


@pytest.mark.parametrize(
    ("before", "after", "order", "expected"),
    [
        ((N, 8, H, W), (N, 8, H * W), (0, 2, 3, 1), (0, 2, 1)),
        ((N, 8, H, W), (N, 8 * H * W), (0, 2, 3, 1), None),
        ((N, 8, 1, 1), (N, 8), (0, 2, 3, 1), (0, 1)),
        ((N, 8), (N, 8, 1, 1), (0, 1), (0, 1, 2, 3)),
        ((N, 8, H, W), (N, 2, 2, 2, H, W), (0, 2, 3, 1), (0, 4, 5, 1, 2, 3)),
        ((N, 4, H, 2, W, 2), (N, 4, 2 * H, 2 * W), (0, 2, 3, 4, 5, 1), (0, 2, 3, 1)),
        ((N, 4, H, 2, W, 2), (N, 4, 2 * H, 2 * W), (0, 2, 4, 3, 5, 1), None),
        ((N, 8, H), (N, 8, W), (0, 2, 1), None),
    ],
)
def test_a_reshape_of_what_lies_side_by_side(before, after, order, expected) -> None:
    assert regroup(before, after, order) == expected


def test_the_order_to_have_before_a_reshape() -> None:
    assert lying_for((N, 4, H, 2, W, 2), (N, 4, 2 * H, 2 * W), (0, 2, 3, 1)) == (0, 2, 3, 4, 5, 1)
    assert lying_for((N, 8 * H), (N, 8, H), (0, 2, 1)) is None
