"""How functions are read as sweeps over a row."""

from __future__ import annotations

from tvm import te, tirx, topi

from dscc.schedule.rowwise.resolve import rows_of


def i64(extent):
    return tirx.IntImm("int64", extent)


def symbol(name):
    return tirx.Var(name, "int64")


def test_softmax_keeps_its_exponentials_in_the_output():
    x = te.placeholder((symbol("n"), i64(3), symbol("s")), name="x")
    func = te.create_prim_func([x, topi.nn.softmax(x)])
    rows = rows_of(func)
    assert [[fold.combine for fold in sweep.folds] for sweep in rows.sweeps] == [["Max"], ["Add"], []]
    assert rows.scratch == []
    output = func.params[-1]
    assert [access.buffer.same_as(output) for access, _ in rows.sweeps[1].stores] == [True]
    assert len(rows.kept) == 1  # n and 3 are one axis


def test_costly_values_without_such_an_output_get_memory_for_one_row():
    x = te.placeholder((symbol("n"), i64(64)), name="x")
    e = te.compute(x.shape, lambda i, j: tirx.tanh(x[i, j]), name="e")
    mean = topi.sum(e, axis=1, keepdims=True) / 64.0
    spread = topi.sum((e - mean) * (e - mean), axis=1)
    rows = rows_of(te.create_prim_func([x, spread]))
    assert [list(buffer.shape) for buffer in rows.scratch] == [[64]]
    assert len(rows.sweeps) == 3


def test_independent_reductions_share_a_sweep():
    x = te.placeholder((i64(5), i64(64)), name="x")
    both = te.compute((i64(5),), lambda i: topi.max(x, axis=1)[i] - topi.min(x, axis=1)[i], name="both")
    rows = rows_of(te.create_prim_func([x, both]))
    assert [[fold.combine for fold in sweep.folds] for sweep in rows.sweeps] == [["Max", "Min"], []]


def test_axes_are_joined_only_where_every_tensor_agrees():
    x = te.placeholder((symbol("n"), i64(4), symbol("s"), symbol("s")), name="x")
    mask = te.placeholder((x.shape[0], i64(1), i64(1), x.shape[3]), name="mask")
    rows = rows_of(te.create_prim_func([x, mask, topi.nn.softmax(topi.add(x, mask))]))
    assert len(rows.kept) == 2  # (n) and (4, s): the mask has an n, and nothing of the other two
