"""RewritePass as a third party uses it."""

from __future__ import annotations

import time

import pytest
import tvm
from tvm import relax
from tvm.relax.dpl import is_const, is_op, is_tuple_get_item
from tvm.script import ir as I
from tvm.script import relax as R

import dscc
from dscc.errors import PassError
from dscc.passes.base import PassContext
from dscc.passes.graph import Graph


class Double(dscc.RewritePass):
    """x + c + x  ->  2 x + c, for the constant 1 only."""

    name = "double"

    def pattern(self, x, c):
        return is_op("relax.add")(is_op("relax.add")(x, c & is_const()), x)

    def check(self, c):
        value = float(c.value.numpy())
        return None if value == 1 else f"the constant is {value:g}, not 1"

    def rewrite(self, x, c, root):
        assert isinstance(root, relax.Var)
        return relax.op.add(relax.op.multiply(x, relax.const(2.0)), c)


def apply(each: dscc.RewritePass, mod: tvm.IRModule) -> tuple[list[str], list[str]]:
    ctx = PassContext(target=None)
    after = each.run(mod, ctx)
    assert relax.analysis.check_well_formed(after)
    return [node.op.removeprefix("relax.") for node in Graph(after["main"])], ctx.remarks


def module(constant: float, swapped: bool) -> tvm.IRModule:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((2, 3), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            inner = builder.emit(relax.op.add(*_order(x, relax.const(constant), swapped)), "inner")
            outer = builder.emit(relax.op.add(*_order(inner, x, swapped)), "outer")
            result = builder.emit_output(relax.op.exp(outer))
        builder.emit_func_output(result)
    return builder.get()


def _order(a: relax.Expr, b: relax.Expr, swapped: bool) -> tuple[relax.Expr, relax.Expr]:
    return (b, a) if swapped else (a, b)


@pytest.mark.parametrize("swapped", [False, True])
def test_commutative_operands_in_both_orders(swapped: bool) -> None:
    ops, remarks = apply(Double(), module(1.0, swapped))
    assert ops == ["multiply", "add", "exp"]
    assert remarks == ["double: applied at %outer (add)"]


def test_the_reason_for_refusing_is_a_remark() -> None:
    ops, remarks = apply(Double(), module(2.0, False))
    assert ops == ["add", "add", "exp"]
    assert remarks == ["double: refused at %outer (add): the constant is 2, not 1"]


def test_the_module_that_came_in_is_left_as_it_was() -> None:
    mod = module(1.0, False)
    before = mod.script()
    Double().run(mod, PassContext(target=None))
    assert mod.script() == before


def test_no_match_gives_the_same_module() -> None:
    mod = module(2.0, False)
    assert Double().run(mod, PassContext(target=None)).same_as(mod)


def test_a_name_that_the_pattern_does_not_have() -> None:
    class Misnamed(Double):
        name = "misnamed"

        def rewrite(self, y):
            return y

    with pytest.raises(
        PassError, match=r"pass 'misnamed': rewrite\(\) asks for 'y'; pattern\(\) offers 'c', 'graph', 'root', 'x'"
    ):
        Misnamed().run(module(1.0, False), PassContext(target=None))


def test_attributes_and_tuple_fields() -> None:
    class First(dscc.RewritePass):
        name = "first"

        def pattern(self, x):
            return is_tuple_get_item(is_op("relax.split")(x).has_attr({"axis": 1}), 0)

        def rewrite(self, x):
            return relax.op.strided_slice(x, [1], [0], [2])

    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((6, 4), "float32")):
            with R.dataflow():
                parts = R.split(x, 2, axis=1)
                left = parts[0]
                others = R.split(x, 2, axis=0)
                upper = others[0]
                out = (left, upper)
                R.output(out)
            return out

    ops, _ = apply(First(), Before)
    assert ops == ["strided_slice", "split", "getitem", "tuple"]


def test_a_result_of_the_function_counts_as_a_reader() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((2, 3), "float32")):
            with R.dataflow():
                inner = R.add(x, R.const(1.0))
                outer = R.add(inner, x)
                R.output(inner, outer)
            return (inner, outer)

    ops, remarks = apply(Double(), Before)
    assert ops == ["add", "add"]
    assert remarks == ["double: refused at %outer (add): %inner (add) is also a result of the function"]


def test_two_thousand_nodes_take_well_under_a_second() -> None:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((2, 3), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            value = x
            for _ in range(1000):
                inner = builder.emit(relax.op.add(value, relax.const(1.0)))
                value = builder.emit(relax.op.add(inner, value))
            result = builder.emit_output(relax.op.exp(value))
        builder.emit_func_output(result)
    start = time.process_time()
    ops, remarks = apply(Double(), builder.get())
    assert time.process_time() - start < 5
    assert len(remarks) == 1000
    assert ops.count("multiply") == 1000
