"""Multiply by dequantized weights as they are stored, in 2, 4 or 8 bits.

    R.matmul(x, dequantize(codes_int4, scales, zeros))  ->  R.call_tir(matmul_of_4_bits, (x, codes, scales, zeros))

For weights with scales in blocks along the sum, with zero points, or of less than 8 bits; other weights of 8 bits are
left to `sink-scale`. The product is the one of `MatMulNBits`; see dscc/schedule/codes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from dscc.passes.base import Pass, PassContext
from dscc.passes.graph import Graph, Node, edit_functions
from dscc.passes.moe.stored import Spread, Stored
from dscc.passes.moe.weights import Weights
from dscc.passes.values import const, dtype, rank
from dscc.schedule.codes.define import Packed, bits_of, compact, pack, reals

_SHORTEST = 16  # elements of a block, below which its scales are most of what is read


@dataclass(frozen=True)
class CodeProducts(Pass):
    """Products with weights of few bits read the codes, not floats that are made of them for every run."""

    name = "code-products"

    def run(self, mod: tvm.IRModule, ctx: PassContext) -> tvm.IRModule:
        builder = relax.BlockBuilder(mod)

        def edit(graph: Graph) -> None:
            weights = Weights(graph, mod)
            for node in graph:
                if not _multiplies_a_matrix(node):
                    continue
                stored = weights.read(node.value.args[1])
                if stored is None or stored.scale is None:
                    continue
                packed = _packed(stored)
                if isinstance(packed, str):
                    ctx.remark(f"{self.name}: refused at {node}: {packed}")
                    continue
                ctx.remark(f"{self.name}: applied at {node}")
                graph.replace(node, _product(node, packed, graph, builder))

        return edit_functions(mod, edit, builder)


def _multiplies_a_matrix(node: Node) -> bool:
    if node.op != "relax.matmul" or dtype(node.var) not in ("float32", "float16", "bfloat16"):
        return False
    left, right = node.value.args
    return rank(right) == 2 and (rank(left) or 0) >= 2 and isinstance(right, relax.Var)


def _packed(weight: Stored) -> Packed | str:
    """A weight (depth, columns) in as few bits as its codes need, or why it is left as it is."""
    depth = weight.codes.shape[0]
    assert weight.scale is not None  # who asks has looked
    spans = [spread.spans[0] for spread in (weight.scale, weight.zero) if spread is not None]
    block = math.gcd(*[span for span in spans if span < depth]) or depth
    if block < min(_SHORTEST, depth):
        return f"{block} elements of a column share a scale, which takes more memory than their codes"
    least, most = int(weight.codes.min(initial=0)), int(weight.codes.max(initial=0))
    offset = max(0, -least)
    bits = next((n for n in (2, 4, 8) if most + offset < 2**n), 0)
    if not bits:
        return f"its codes go from {least} to {most}, more than 8 bits"
    if bits == 8 and weight.zero is None and block == depth:
        return "its scales are taken out of the product"
    codes = pack((weight.codes.astype(np.int16) + np.int16(offset)).astype(np.uint8), bits)
    zeros = np.full((1, 1), offset, np.float32)
    if weight.zero is not None:
        zeros = _blocks(weight.zero, weight, block).astype(np.float32) + np.float32(offset)
    return Packed(depth, bits, block, codes, reals(_blocks(weight.scale, weight, block)), compact(zeros))


def _blocks(spread: Spread, weight: Stored, block: int) -> np.ndarray:
    """(blocks, columns)"""
    depth, columns = weight.codes.shape
    numbers = spread.narrowed(0, block, depth).narrowed(1, 1, columns).numbers
    return np.broadcast_to(numbers, (-(-depth // block), columns))


def _product(node: Node, weight: Packed, graph: Graph, builder: relax.BlockBuilder) -> relax.Expr:
    x, kind = node.value.args[0], dtype(node.var)
    real = x if dtype(x) == "float32" else graph.emit(node, relax.op.astype(x, "float32"))
    given = [const(array) for array in weight.arrays]
    product = builder.call_te(
        weight.product(bits_of(dtype(x))), real, *given, primfunc_name_hint=f"matmul_of_{weight.bits}_bits"
    )
    return product if kind == "float32" else relax.op.astype(graph.emit(node, product), kind)
